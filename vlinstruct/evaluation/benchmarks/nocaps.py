"""NoCaps (Agrawal et al. 2019): captions of the 4,500 validation pictures, ten references each.

nocaps_val_4500_captions.json   {"images": [{"id", "file_name"}, ...], "annotations": [{"image_id", "caption"}, ...]}
val/ or images/                 the pictures, under their `file_name`

The authors publish no pictures, hence no name for their folder: LAVIS' download script says `val`, others `images`.
On the hub a row has `image_id`, `annotations_captions` and the picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark, HubCopy
from vlinstruct.evaluation.benchmarks.annotations import read_object
from vlinstruct.evaluation.benchmarks.asking import Asking
from vlinstruct.evaluation.benchmarks.generation import CAPTION, CAPTION_SOURCE
from vlinstruct.evaluation.benchmarks.hub_table import read_rows
from vlinstruct.evaluation.benchmarks.picture import Draw, picture
from vlinstruct.evaluation.benchmarks.record import Record, bad_annotation
from vlinstruct.evaluation.item import Item, Task
from vlinstruct.training.data.image_folder import CAPTION_INSTRUCTION

_FILE, _FOLDERS = "nocaps_val_4500_captions.json", ("val/", "images/")
_TASK = Task(name="nocaps", metric="cider", is_ranked=False)


def read(folder: Path) -> Iterator[Item]:
    """Yields the validation part's items.

    Raises:
        DataError: the annotations cannot be used.
    """
    asking = Asking(_TASK)
    file = read_object(folder / _FILE)
    captions = _captions(file)
    pictures = folder / next((name for name in _FOLDERS if (folder / name).is_dir()), _FOLDERS[0])
    for record in file.records("images", "image"):
        name = record.key("id")
        if name not in captions:
            raise bad_annotation(record.place, f"'annotations' holds no caption of image {name}")
        yield _item(asking, record, name, captions[name], picture(pictures, record.text("file_name"), record))


def read_copy(folder: Path) -> Iterator[Item]:
    """Yields the same items from a copy on the hub.

    Raises:
        DataError: its tables cannot be used.
    """
    asking = Asking(_TASK)
    for row in read_rows(folder, _COPY.split, columns=_COPY.columns, picture="image"):
        captions = row.texts("annotations_captions")
        if not captions:
            raise bad_annotation(row.place, "it has no caption")
        yield _item(asking, row, row.key("image_id"), captions, row.picture("image"))


def _item(asking: Asking, record: Record, name: str, captions: Sequence[str], draw: Draw) -> Item:
    return asking.item(name, record, instruction=CAPTION_INSTRUCTION, draw=draw, references=captions)


def _captions(file: Record) -> dict[str, list[str]]:
    """Returns the captions by image."""
    found: dict[str, list[str]] = defaultdict(list)
    for record in file.records("annotations", "annotation"):
        found[record.key("image_id")].append(record.text("caption"))
    return found


_COPY = HubCopy(split="validation", columns=("image_id", "annotations_captions"), read=read_copy)
BENCHMARK = Benchmark(
    task=_TASK,
    part="val",
    num_items=4_500,
    instruction=CAPTION_INSTRUCTION,
    source="https://nocaps.org/download, https://nocaps.s3.amazonaws.com/nocaps_val_4500_captions.json",
    licence="not stated with the file (copies of it say CC BY 2.0, as Open Images' pictures)",
    forms=tuple({_FILE: "the captions", name: "the pictures, of Open Images' validation part"} for name in _FOLDERS),
    example='{"images": [{"id": 7, "file_name": "0a1b.jpg", "coco_url": "", "height": 480, "width": 640}], '
    '"annotations": [{"id": 70, "image_id": 7, "caption": "A grey cat sleeps on a drum."}, '
    '{"id": 71, "image_id": 7, "caption": "A cat lies on top of a drum."}]}',
    generation=CAPTION,
    generation_source=CAPTION_SOURCE,
    read=read,
    hub="lmms-lab/NoCaps, validation",
    copy=_COPY,
)
