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

from vlinstruct.evaluation.benchmark import Benchmark, HubCopy, Item, Task
from vlinstruct.evaluation.reading.annotations import Record, read_object
from vlinstruct.evaluation.reading.hub_tables import read_rows
from vlinstruct.evaluation.reading.items import ItemMaker, LoadPicture, picture
from vlinstruct.training.data.fields import CAPTION_INSTRUCTION

_FILE, _FOLDERS = "nocaps_val_4500_captions.json", ("val/", "images/")
_CHAT_INSTRUCTION = "Provide a one-sentence caption for the provided image."
_TASK = Task(name="nocaps", metric="cider")


def read(folder: Path) -> Iterator[Item]:
    """Yields the validation part's items."""
    maker = ItemMaker(_TASK)
    file = read_object(folder / _FILE)
    # The annotations are a list of their own, in no order of the images: gathered by image first.
    captions: dict[str, list[str]] = defaultdict(list)
    for annotation in file.records("annotations", "annotation"):
        captions[annotation.key("image_id")].append(annotation.text("caption"))
    pictures = folder / next((name for name in _FOLDERS if (folder / name).is_dir()), _FOLDERS[0])
    for record in file.records("images", "image"):
        name = record.key("id")
        if name not in captions:
            raise record.error(f"'annotations' holds no caption of image {name}")
        yield _item(maker, record, name, captions[name], picture(pictures, record.text("file_name"), record))


def read_copy(folder: Path) -> Iterator[Item]:
    """Yields the same items from a copy on the hub."""
    maker = ItemMaker(_TASK)
    for row in read_rows(folder, _COPY.split, columns=_COPY.columns, picture="image"):
        captions = row.texts("annotations_captions")
        if not captions:
            raise row.error("it has no caption")
        yield _item(maker, row, row.key("image_id"), captions, row.picture("image"))


def _item(maker: ItemMaker, record: Record, name: str, captions: Sequence[str], load_picture: LoadPicture) -> Item:
    return maker.item(
        name,
        record,
        instruction=CAPTION_INSTRUCTION,
        fields={},
        load_picture=load_picture,
        references=captions,
    )


_COPY = HubCopy(
    split="validation",
    columns=("image_id", "annotations_captions"),
    read=read_copy,
    hub_ids=("lmms-lab-encoder/NoCaps", "lmms-lab/NoCaps"),
)
BENCHMARK = Benchmark(
    task=_TASK,
    part="val",
    num_items=4_500,
    instruction=CAPTION_INSTRUCTION,
    chat_instruction=_CHAT_INSTRUCTION,
    source="https://nocaps.org/download, https://nocaps.s3.amazonaws.com/nocaps_val_4500_captions.json",
    licence="not stated with the file (copies of it say CC BY 2.0, as Open Images' pictures)",
    forms=tuple({_FILE: "the captions", name: "the pictures, of Open Images' validation part"} for name in _FOLDERS),
    example='{"images": [{"id": 7, "file_name": "0a1b.jpg", "coco_url": "", "height": 480, "width": 640}], '
    '"annotations": [{"id": 70, "image_id": 7, "caption": "A grey cat sleeps on a drum."}, '
    '{"id": 71, "image_id": 7, "caption": "A cat lies on top of a drum."}]}',
    read=read,
    hub="lmms-lab-encoder/NoCaps (until July 2026 lmms-lab/NoCaps), validation",
    copy=_COPY,
)
