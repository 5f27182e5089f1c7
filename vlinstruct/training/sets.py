"""What a training learns and validates on: sets that are read, a part held out of them, or mini's example set."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vlinstruct.errors import DataError
from vlinstruct.training.data.conversations import TrainingSample, read_conversations
from vlinstruct.training.data.reading import TrainingPicture, picture_sha256
from vlinstruct.training.experiment import DataSource, Request
from vlinstruct.training.schedule import Mixture
from vlinstruct.training.settings import TrainingSettings

EXAMPLE_FOLDER = "example-data"

_EXAMPLE_PICTURES, _EXAMPLE_EVAL_PICTURES = 200, 25  # a first training takes seconds


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


@dataclass(frozen=True, kw_only=True)
class Sets:
    """What is learned and validated on.

    Args:
        parts: of every set what is learned of it.
        weights: of the sets.
        validation: what is validated on.
    """

    parts: Sequence[Sequence[TrainingSample]]
    weights: Sequence[float]
    validation: Sequence[TrainingSample] = ()

    @property
    def samples(self) -> list[TrainingSample]:
        """What is learned, set by set."""
        return [sample for part in self.parts for sample in part]

    @property
    def mixture(self) -> Mixture | None:
        """How often each is learned; None where all are, once in an epoch."""
        if set(self.weights) == {1.0}:
            return None
        return Mixture(sizes=tuple(map(len, self.parts)), weights=tuple(self.weights))

    def split(self, size: float, *, seed: int) -> Sets:
        """Returns them with a part held out to validate on."""
        is_held_out = iter(held_out(self.samples, size, seed=seed))
        pairs = [[(sample, next(is_held_out)) for sample in part] for part in self.parts]
        return replace(
            self,
            parts=[[sample for sample, is_out in part if not is_out] for part in pairs],
            validation=[sample for part in pairs for sample, is_out in part if is_out],
        )


def read_sets(request: Request, checked: TrainingSettings, folder: Path, notify: Callable[[str], None]) -> Sets:
    """Reads all sets, or draws mini's example sets; that to validate on only where none is given or held out.

    Args:
        request: what is asked for.
        checked: its settings, with the recipe.
        folder: where the example set is drawn.
        notify: is told what is read otherwise than it stands there.

    Raises:
        DataError: a set cannot be used.
    """
    sources, eval_data, image_root = request.data, request.eval_data, request.image_root
    if sources is None:
        from vlinstruct.mini.example_data import write_example_data  # needs Pillow's fonts, which a data file does not

        draw = partial(write_example_data, folder / example_folder(checked.seed), seed=checked.seed)
        sources, image_root = (DataSource(path=str(draw("train", pictures=_EXAMPLE_PICTURES))),), None
        if eval_data is None and checked.val_size is None:
            eval_data = draw("dev", pictures=_EXAMPLE_EVAL_PICTURES)
    read = partial(read_conversations, answers=checked.answers, options=request.data_options, notify=notify)
    eval_root = request.image_root if request.eval_image_root is None else request.eval_image_root
    return Sets(
        parts=[
            read(source.path, image_root=image_root if source.image_root is None else source.image_root)
            for source in sources
        ],
        weights=[source.weight for source in sources],
        validation=[] if eval_data is None else read(eval_data, image_root=eval_root),
    )


def example_folder(seed: int) -> str:
    """Returns where the example set of a seed lies: what is there is not drawn again."""
    return EXAMPLE_FOLDER if seed == 0 else f"{EXAMPLE_FOLDER}-{seed}"
