"""Reads the annotation files of official benchmarks: one JSON text, read whole, or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from vlinstruct.errors import DataError
from vlinstruct.evaluation.benchmarks.record import WHAT, Record, bad_annotation
from vlinstruct.files import open_regular, read_regular
from vlinstruct.records.lines import (
    BOM,
    numbered_lines,
    parse_record,
    parse_strictly,
    require_text,
)

_MAX_BYTES = 1_000_000_000  # the largest is Visual Dialog's, of about a tenth of that
_HEAD_BYTES = 64


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
        require_text(stream.peek(_HEAD_BYTES)[:_HEAD_BYTES], path, action=WHAT)
        for number, line in numbered_lines(stream):
            label = f"line {number}"
            yield Record(file=str(path), label=label, fields=parse_record(line, f"{path} {label}"))


def _read_json(path: Path) -> object:
    content = read_regular(path, kind="data", max_bytes=_MAX_BYTES).removeprefix(BOM)
    require_text(content[:_HEAD_BYTES], path, action=WHAT)
    try:
        return parse_strictly(content, str(path))
    except DataError as error:
        cause = error.__cause__
        if not isinstance(cause, json.JSONDecodeError):
            raise
        why = f"not valid JSON at line {cause.lineno} column {cause.colno} ({cause.msg.removesuffix(':')})"
        raise bad_annotation(str(path), why, code="bad_json") from cause
