"""Reads the annotation files of official benchmarks: one JSON text, read whole, or JSON lines.

In: a file as its authors publish it. Out: its records, whose fields are asked for by name and type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vlinstruct.errors import DataError
from vlinstruct.files import open_regular, read_regular
from vlinstruct.records.foreign import ForeignRecord, parse_document
from vlinstruct.records.lines import BOM, numbered_lines, parse_record, require_text

# What IconQA and ScienceQA share: problems by number in one file, the numbers of every part in another.
PROBLEMS_FILE, SPLITS_FILE = "problems.json", "pid_splits.json"
_MAX_BYTES = 1_000_000_000  # the largest is Visual Dialog's, of about a tenth of that
_HEAD_BYTES = 64  # enough to tell a picture, an archive or a page of HTML from a text


@dataclass(frozen=True, kw_only=True)
class Record(ForeignRecord):
    """An object of an annotation file, or a row of a table."""

    ACTION: ClassVar[str] = "cannot use annotations"
    ADVICE: ClassVar[str] = "Compare the file with `vlinstruct evaluate --list`, or get it again"


def bad_annotation(place: str, why: str, *, code: str = "bad_field") -> DataError:
    """Returns the error of annotations that cannot be used.

    Args:
        place: their file, and the record where it is one that is wrong.
        why: what is wrong.
        code: of the error.
    """
    return Record.error_at(place, why, code=code)


def read_object(path: Path) -> Record:
    """Reads a file that is one JSON object.

    Raises:
        DataError: it cannot be read, or is anything else.
    """
    fields = _read_json(path)
    if not isinstance(fields, dict):
        raise bad_annotation(str(path), "it is no JSON object", code="bad_json")
    return Record(file=str(path), label="", fields=fields)


def read_list(path: Path, called: str) -> Iterator[Record]:
    """Reads a file that is one JSON list of objects, called e.g. `question 1`.

    Raises:
        DataError: it cannot be read, or is anything else.
    """
    values = _read_json(path)
    if not isinstance(values, list):
        raise bad_annotation(str(path), "it is no JSON list", code="bad_json")
    for number, fields in enumerate(values, start=1):
        if not isinstance(fields, dict):
            raise bad_annotation(f"{path} {called} {number}", "it is no JSON object", code="bad_json")
        yield Record(file=str(path), label=f"{called} {number}", fields=fields)


def read_lines(path: Path) -> Iterator[Record]:
    """Reads a file of JSON lines.

    Raises:
        DataError: it cannot be read, or a line is no object.
    """
    with open_regular(path, kind="data") as stream:
        require_text(stream.peek(_HEAD_BYTES)[:_HEAD_BYTES], path, action=Record.ACTION)
        for number, line in numbered_lines(stream):
            label = f"line {number}"
            yield Record(file=str(path), label=label, fields=parse_record(line, f"{path} {label}"))


def read_problems(folder: Path, part: str) -> Iterator[tuple[str, Record]]:
    """Yields the problems of a part with their numbers, in the part's order.

    Args:
        folder: where PROBLEMS_FILE and SPLITS_FILE are.
        part: a name in the latter.

    Raises:
        DataError: a file cannot be used, or a problem of the part is missing.
    """
    names = read_object(folder / SPLITS_FILE).texts(part)
    problems = read_object(folder / PROBLEMS_FILE)
    for name in names:
        yield name, problems.entry(name, "problem")


def _read_json(path: Path) -> object:
    content = read_regular(path, kind="data", max_bytes=_MAX_BYTES).removeprefix(BOM)
    require_text(content[:_HEAD_BYTES], path, action=Record.ACTION)

    def refuse(cause: json.JSONDecodeError, words: str) -> DataError:
        why = f"not valid JSON at line {cause.lineno} column {cause.colno} ({words})"
        return bad_annotation(str(path), why, code="bad_json")

    return parse_document(content, str(path), refuse)
