"""Flickr30K (Young et al. 2014): captions of the 1,000 test pictures of Karpathy's split, five references each.

dataset_flickr30k.json   {"dataset": "flickr30k", "images": [{"filename", "split", "sentences": [{"raw"}]}, ...]}
                         or
flickr30k_test.json      [{"image": "flickr30k-images/1.jpg", "caption": [text, ...]}, ...]        as in LAVIS
flickr30k-images/        the pictures, under the names that Flickr30K gives them

On the hub a row has `filename`, `caption`, the picture and, where the copy keeps it, `split`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from vlinstruct.evaluation.benchmark import Benchmark, HubCopy, Item, Task
from vlinstruct.evaluation.reading.annotations import Record, read_list, read_object
from vlinstruct.evaluation.reading.hub_tables import read_rows
from vlinstruct.evaluation.reading.items import ItemMaker, LoadPicture, picture
from vlinstruct.training.data.fields import CAPTION_INSTRUCTION

_SPLIT_FILE, _LAVIS_FILE, _PICTURES = "dataset_flickr30k.json", "flickr30k_test.json", "flickr30k-images/"
_CHAT_INSTRUCTION = "Provide a one-sentence caption for the provided image."
_TASK = Task(name="flickr30k", metric="cider")


def read(folder: Path) -> Iterator[Item]:
    """Yields the test part's items."""
    maker = ItemMaker(_TASK)
    records = _from_split if (folder / _SPLIT_FILE).exists() else _from_lavis
    for record, path, captions in records(folder):
        yield _item(maker, record, path, captions, picture(folder, path, record, pictures=_PICTURES))


def read_copy(folder: Path) -> Iterator[Item]:
    """Yields the same items from a copy on the hub that keeps Karpathy's split; all of another one's."""
    maker = ItemMaker(_TASK)
    for row in read_rows(folder, _COPY.split, columns=_COPY.columns, picture="image", optional=["split"]):
        # Where the copy says of which part of Karpathy's split a row is, those of the others are left out.
        if row.fields.get("split", "test") == "test":
            yield _item(maker, row, row.text("filename"), row.texts("caption"), row.picture("image"))


def _item(maker: ItemMaker, record: Record, path: str, captions: Sequence[str], load_picture: LoadPicture) -> Item:
    if not captions:
        raise record.error("it has no caption")
    return maker.item(
        PurePosixPath(path).stem,
        record,
        instruction=CAPTION_INSTRUCTION,
        fields={},
        load_picture=load_picture,
        references=captions,
    )


def _from_split(folder: Path) -> Iterator[tuple[Record, str, tuple[str, ...]]]:
    file = read_object(folder / _SPLIT_FILE)
    # Karpathy's splits of Flickr8k and COCO have the same form: the file's own name for its data set tells them apart.
    if file.fields.get("dataset", _TASK.name) != _TASK.name:
        raise file.error(f"it is of another data set than '{_TASK.name}'", code="other_part")
    for record in file.records("images", "image"):
        if record.text("split") == "test":
            captions = tuple(sentence.text("raw") for sentence in record.records("sentences", "sentence"))
            yield record, _PICTURES + record.text("filename"), captions


def _from_lavis(folder: Path) -> Iterator[tuple[Record, str, tuple[str, ...]]]:
    for record in read_list(folder / _LAVIS_FILE, "image"):
        yield record, record.text("image"), record.texts("caption")


_COPY = HubCopy(split="test", columns=("filename", "caption"), read=read_copy)
BENCHMARK = Benchmark(
    task=_TASK,
    part="test (Karpathy's split)",
    num_items=1_000,
    instruction=CAPTION_INSTRUCTION,
    chat_instruction=_CHAT_INSTRUCTION,
    source="https://shannon.cs.illinois.edu/DenotationGraph (pictures), "
    "https://cs.stanford.edu/people/karpathy/deepimagesent (split)",
    licence="not stated with the files; the pictures are under Flickr's terms of use",
    forms=(
        {_SPLIT_FILE: "Karpathy's split with the captions", _PICTURES: "the pictures"},
        {_LAVIS_FILE: "LAVIS' test part", _PICTURES: "the pictures"},
    ),
    example='{"filename": "31.jpg", "split": "test", "sentences": [{"raw": "A man in a red hat waters a plant."}, '
    '{"raw": "Someone pours water on a flower."}]}',
    read=read,
    hub="nlphuji/flickr30k, revision refs/convert/parquet; lmms-lab/flickr30k, test, is all 31,783 pictures unsplit",
    copy=_COPY,
)
