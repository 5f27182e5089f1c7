"""Reads a folder of pictures with their metadata, as Hugging Face's `imagefolder` has it.

    metadata.jsonl    {"file_name": "cats/1.jpg", "instruction" or "question", "answer"}    one JSON line each
    metadata.csv      the same names as columns

`text` or `caption` alone is a caption: the answer to the paper's instruction for captions (section 4).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from vlinstruct.errors import DataError
from vlinstruct.records.lines import bad_record, text_field

METADATA_FILES = ("metadata.jsonl", "metadata.csv")
CAPTION_INSTRUCTION = "A short image description:"
_CAPTIONS = ("text", "caption")
_ASKED = ("instruction", "question", "answer")


def metadata_file(folder: str) -> str:
    """Returns the path of a folder's metadata.

    Raises:
        DataError: it has none (`nothing_to_do`), or two.
    """
    found = [path for name in METADATA_FILES if os.path.lexists(path := os.path.join(folder, name))]
    if not found:
        why = f"nothing to do, the folder holds neither {METADATA_FILES[0]} nor {METADATA_FILES[1]}"
        advice = "Name one that does, or a file of JSON lines"
        raise DataError.at("cannot read data", folder, why, advice, code="nothing_to_do")
    if len(found) > 1:
        why = f"the folder holds {METADATA_FILES[0]} and {METADATA_FILES[1]}"
        raise DataError.at("cannot read data", folder, why, "Name one of them", code="two_metadata_files")
    return found[0]


def is_metadata(name: str) -> bool:
    """Says whether a file is an image folder's metadata, or another table.

    >>> is_metadata("cats/metadata.jsonl"), is_metadata("vqa.CSV"), is_metadata("vqa.jsonl")
    (True, True, False)
    """
    return os.path.basename(name) in METADATA_FILES or name.lower().endswith(".csv")


def image_field(record: Mapping[str, object]) -> str:
    """Returns the field that names a metadata record's picture: `file_name`, or `image` where that alone is there."""
    return "image" if "image" in record and "file_name" not in record else "file_name"


def with_caption_asked_for(record: Mapping[str, object], place: str) -> dict[str, object]:
    """Returns a metadata record, one that holds just a caption with the instruction that it answers.

    >>> with_caption_asked_for({"caption": "a cat"}, "metadata.csv line 2")
    {'instruction': 'A short image description:', 'answer': 'a cat'}

    Raises:
        DataError: it has no answer and no caption, or two captions.
    """
    if any(name in record for name in _ASKED):
        return dict(record)
    captions = [name for name in _CAPTIONS if name in record]
    if not captions:
        why, advice = "it has no answer and no caption", "Add 'instruction' and 'answer', or 'caption'"
        raise bad_record(place, "missing_field", why, advice)
    if len(captions) > 1:
        raise bad_record(place, "bad_field", "both 'text' and 'caption' are given", "Keep one of them")
    return {"instruction": CAPTION_INSTRUCTION, "answer": text_field(dict(record), captions[0], place)}
