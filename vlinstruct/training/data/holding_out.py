"""Holds samples out to validate on: by picture, so that none is learned from and validated on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from vlinstruct.errors import DataError
from vlinstruct.training.data.conversations import TrainingSample
from vlinstruct.training.data.reading import TrainingPicture, picture_sha256


def held_out(samples: Sequence[TrainingSample], size: float, *, seed: int) -> list[bool]:
    """Returns of every sample whether it is held out.

    Pictures are drawn until theirs are enough samples; one that lies there under several names is one.

    Args:
        samples: all that there are.
        size: how many are held out at least, or below 1 which share of them.
        seed: of the draw.

    Raises:
        DataError: nothing would be left to learn.
    """
    names: dict[TrainingPicture, object] = {}
    for sample in samples:
        if sample.image not in names:
            # One that cannot be read has no checksum, and is told when its turn comes.
            names[sample.image] = picture_sha256(sample.image) or sample.image
    pictures = list(dict.fromkeys(names.values()))
    random.Random(f"{seed}/held out").shuffle(pictures)
    wanted = math.ceil(size * len(samples)) if size < 1 else int(size)
    counts = dict.fromkeys(pictures, 0)
    for sample in samples:
        counts[names[sample.image]] += 1
    chosen, num_chosen = set(), 0
    for picture in pictures:
        if num_chosen >= wanted:
            break
        chosen.add(picture)
        num_chosen += counts[picture]
    if len(chosen) == len(pictures):
        problem = f"{num_chosen:,} of {len(samples):,} samples would be held out, all of their pictures"
        raise DataError(f"--val-size leaves nothing to learn: {problem}", advice="Name a smaller one.")
    return [names[sample.image] in chosen for sample in samples]
