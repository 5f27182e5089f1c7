"""NoCaps (Agrawal et al. 2019): captions of the 4,500 validation pictures, ten references each.

nocaps_val_4500_captions.json   {"images": [{"id", "file_name"}, ...], "annotations": [{"image_id", "caption"}, ...]}
val/                            the pictures, under their `file_name`
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from vlinstruct.data.image_folder import CAPTION_INSTRUCTION
from vlinstruct.evaluation.benchmark import Benchmark
from vlinstruct.evaluation.benchmarks.annotations import read_object
from vlinstruct.evaluation.benchmarks.asking import Asking
from vlinstruct.evaluation.benchmarks.generation import CAPTION, CAPTION_SOURCE
from vlinstruct.evaluation.benchmarks.picture import picture
from vlinstruct.evaluation.benchmarks.record import Record, bad_annotation
from vlinstruct.evaluation.item import Item, Task

_FILE, _PICTURES = "nocaps_val_4500_captions.json", "val/"
_TASK = Task(name="nocaps", metric="cider", is_ranked=False)


def read(folder: Path) -> Iterator[Item]:
    """Yields the validation part's items.

    Raises:
        DataError: the annotations cannot be used.
    """
    asking = Asking(_TASK)
    file = read_object(folder / _FILE)
    captions = _captions(file)
    for record in file.records("images", "image"):
        name = record.key("id")
        if name not in captions:
            raise bad_annotation(record.place, f"'annotations' holds no caption of image {name}")
        yield asking.item(
            name,
            record,
            instruction=CAPTION_INSTRUCTION,
            draw=picture(folder / _PICTURES, record.text("file_name"), record),
            references=captions[name],
        )


def _captions(file: Record) -> dict[str, list[str]]:
    """Returns the captions by image."""
    found: dict[str, list[str]] = defaultdict(list)
    for record in file.records("annotations", "annotation"):
        found[record.key("image_id")].append(record.text("caption"))
    return found


BENCHMARK = Benchmark(
    task=_TASK,
    part="val",
    num_items=4_500,
    instruction=CAPTION_INSTRUCTION,
    source="https://nocaps.org/download, https://nocaps.s3.amazonaws.com/nocaps_val_4500_captions.json",
    licence="not stated with the file (copies of it say CC BY 2.0, as Open Images' pictures)",
    forms=({_FILE: "the captions", _PICTURES: "the pictures, of Open Images' validation part"},),
    example='{"images": [{"id": 7, "file_name": "0a1b.jpg", "coco_url": "", "height": 480, "width": 640}], '
    '"annotations": [{"id": 70, "image_id": 7, "caption": "A grey cat sleeps on a drum."}, '
    '{"id": 71, "image_id": 7, "caption": "A cat lies on top of a drum."}]}',
    generation=CAPTION,
    generation_source=CAPTION_SOURCE,
    read=read,
)
