"""Optimizes one instruction for the pictures of a folder: one record for all of them. No torch at import.

A picture that cannot be read does not count; the record names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlinstruct.batch import BatchItem
from vlinstruct.errors import InputError, NetworkError, VlinstructError
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLimits, LoadedImage
from vlinstruct.media.inputs import load_source
from vlinstruct.media.read_ahead import read_ahead
from vlinstruct.operations import Fields, optimization_fields
from vlinstruct.settings import OptimizationSettings

if TYPE_CHECKING:
    from PIL import Image

    from vlinstruct.model import Model

SCHEMA = "vlinstruct.optimize_shared/1"


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures that are read as often as they are needed, and never all at once.

    Args:
        items: where they are.
        batch_size: how many are given together.
        limits: how large a picture may be.
        notify: is told what a user should know of a picture.
        failed: gets those that cannot be read, by the item's place.
    """

    items: Sequence[BatchItem]
    batch_size: int = 1
    limits: ImageLimits = DEFAULT_LIMITS
    notify: Callable[[str], None] = lambda notice: None
    failed: dict[int, VlinstructError] = field(default_factory=dict)

    def chunks(self) -> Iterator[list[Image.Image]]:
        """Yields all pictures that can be read, in order."""
        places = [place for place in range(len(self.items)) if place not in self.failed]
        chunk: list[Image.Image] = []
        for place, read in zip(places, read_ahead(places, self._read, num_ahead=self.batch_size), strict=True):
            if isinstance(read, VlinstructError):
                self.failed[place] = read
                continue
            for notice in read.notices:
                self.notify(notice)
            chunk.append(read.image)
            if len(chunk) == self.batch_size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _read(self, place: int) -> LoadedImage | VlinstructError:
        item = self.items[place]
        try:
            return load_source(item.source, name=item.image, limits=self.limits)
        except (InputError, NetworkError) as error:
            return error


def optimize_shared(
    instruction: str,
    pictures: Pictures,
    *,
    backbone: str,
    load_model: Callable[[], Model],
    optimization: OptimizationSettings,
) -> Fields:
    """Optimizes an instruction for all pictures and returns the record.

    Args:
        instruction: options included.
        pictures: those that cannot be read are in its `failed` afterwards.
        backbone: what the record calls the model.
        load_model: loads it; called when the first picture has been read.
        optimization: how the instruction is chosen.

    Raises:
        VlinstructError: no picture can be read (the first one's error), or the model was refused.
    """
    if next(pictures.chunks(), None) is None:
        raise pictures.failed[0]
    model = load_model()
    outcome = model.optimize_chunks(instruction, pictures.chunks, optimization=optimization)
    failed = [
        {"image": pictures.items[place].image, "code": error.code, "message": str(error)}
        for place, error in sorted(pictures.failed.items())
    ]
    head = {"schema": SCHEMA, "id": "shared", "status": "ok", "images": len(pictures.items) - len(failed)}
    found = {
        **head,
        "backbone": backbone,
        **optimization_fields(outcome),
        "revision": model.revision,
        "failed": failed,
    }
    return {name: value for name, value in found.items() if name not in ("revision", "failed") or value}
