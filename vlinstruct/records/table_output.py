"""Writes the records of a run as a table: `-o answers.csv`, `-o answers.parquet`.

A table cannot grow by whole, synced records, and parquet cannot be appended to at all. So a run writes its records as
lines to `answers.csv.jsonl` (output.py: locked, resumed, one record per item), and makes the table of all of them at
its end, whole or not at all. Ids and values are those of the lines; what is nested there has a column for each value,
`initial.ias`; of a record of scores each instruction has a row. What is a list is one in parquet, and JSON in a CSV.

The columns that a command's records may have are always there, in one order; behind them those of the user's own
variants, and whatever later versions add.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vlinstruct.errors import InputError, not_installed
from vlinstruct.files import PathLike, written_atomically
from vlinstruct.records.output import check_place
from vlinstruct.records.resume import records_of

Row = Mapping[str, Any]

_SUFFIXES = (".csv", ".parquet")
_ROWS_AT_ONCE = 10_000

_CANDIDATE = ("text", "ias", "answer", "certainty", "cross_nll")
_OPTIMIZATION = (
    *(f"{role}.{field}" for role in ("initial", "rewritten", "optimized") for field in _CANDIDATE),
    "chosen",
    "instruction",
    "reason",
)
_COLUMNS = {
    "vlinstruct.ask/1": ("question", "ocr_tokens", "instruction", "answer", "choices"),
    "vlinstruct.optimize/1": (*_OPTIMIZATION, "initial_answer", "initial_certainty", "answer", "certainty"),
    "vlinstruct.score/1": ("instruction", "ias", "tokens", "token_nll"),
}
_FIRST = ("id", "status", "image", "backbone")
_LAST = ("code", "message", "notices", "revision", "key")
_NUMBERS = frozenset({"ias", "certainty", "cross_nll", "initial_certainty"})


def is_table(output: PathLike) -> bool:
    """Says whether an output's name promises a table that is written here."""
    return Path(output).suffix.lower() in _SUFFIXES


def lines_of(output: PathLike) -> Path:
    """Returns the file of an output's records: beside a table, else the output itself.

    >>> lines_of("answers.csv").name, lines_of("answers.jsonl").name
    ('answers.csv.jsonl', 'answers.jsonl')
    """
    path = Path(output)
    return path.with_name(f"{path.name}.jsonl") if is_table(path) else path


def require_table(path: PathLike, *, overwrite: bool, inputs: Sequence[PathLike]) -> None:
    """Refuses, before any work, a table that could not be written at the end.

    Args:
        path: the table.
        overwrite: whether a file of something else may be replaced.
        inputs: files that the run reads.

    Raises:
        InputError: it is a directory, an input or no place for a file, or a file that no records lie beside.
        ResourceError: it is parquet, and the library that writes it is not installed.
    """
    name = os.fspath(path)
    if Path(path).suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise not_installed(f"--output {Path(path).name}", "pyarrow", "parquet") from None
    check_place(name, inputs)
    is_other = os.path.exists(name) and not (os.path.isfile(name) and os.path.getsize(name) == 0)
    if is_other and not overwrite and not os.path.lexists(lines_of(path)):
        why = f"the file exists, and {lines_of(path).name}, which it would be made of, does not"
        advice = "Name another file, or replace it with --overwrite"
        raise InputError.at("cannot write output", name, why, advice, code="output_not_records")


def write_table(path: PathLike) -> None:
    """Makes a table of all the records beside it.

    Args:
        path: the table; what stands there is replaced.

    Raises:
        ResourceError: it cannot be written.
    """
    lines = str(lines_of(path))
    kinds = _kinds(lines)
    # A link stays one: what it leads to is replaced.
    with written_atomically(Path(os.path.realpath(path))) as temporary:
        if Path(path).suffix.lower() == ".csv":
            with open(temporary, "wb") as stream:
                stream.write(_csv_line(list(kinds)))
                for row in _rows(lines):
                    stream.write(_csv_line([row.get(name) for name in kinds]))
        else:
            _write_parquet(temporary, kinds, _rows(lines))


def _rows(lines: str) -> Iterator[Row]:
    for record in records_of(lines):
        fields = {name: value for name, value in record.items() if name not in ("schema", "scores")}
        row = dict(_flat(fields))
        yield from ({**row, **scored} for scored in record.get("scores", ({},)))


def _flat(fields: Row, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _kinds(lines: str) -> dict[str, set[type]]:
    """Returns the columns in their order, with the types of their values; a number past 64 bits counts as a text."""
    kinds: dict[str, set[type]] = {}
    for row in _rows(lines):
        for name, value in row.items():
            kinds.setdefault(name, set())
            if value is not None:
                kinds[name].add(str if isinstance(value, int) and abs(value) >= 2**63 else type(value))
    schema = next((record["schema"] for record in records_of(lines)), "")
    middle = [*_COLUMNS.get(schema, ())]
    if any(name.startswith("optimization.") for name in kinds):
        middle += [f"optimization.{name}" for name in (*_OPTIMIZATION, "notices")]
    others = [name for name in kinds if name not in {*_FIRST, *middle, *_LAST}]
    for name in others:  # one candidate was judged and another not: each has all columns all the same
        group, _, field = name.rpartition(".")
        middle += [f"{group}.{each}" for each in _CANDIDATE] if group and field in _CANDIDATE else [name]
    return {name: kinds.get(name, set()) for name in dict.fromkeys((*_FIRST, *middle, *_LAST))}


def _csv_line(values: Sequence[object]) -> bytes:
    r"""Returns a line of a CSV: texts always in quotes, so that an empty one is not taken for none.

    >>> _csv_line(["a \"b\",\nc", "", None, 7, ["x"]])
    b'"a ""b"",\nc","",,7,"[""x""]"\n'
    """
    return (",".join(map(_csv_cell, values)) + "\n").encode("utf-8", "backslashreplace")


def _csv_cell(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        if not isinstance(value, list):
            return text
        value = text
    return '"' + value.replace('"', '""') + '"'


def _write_parquet(path: Path, kinds: Mapping[str, set[type]], rows: Iterator[Row]) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = pyarrow.schema([(name, _parquet_type(name, kind)) for name, kind in kinds.items()])
    with ParquetWriter(path, schema) as writer:
        while block := list(islice(rows, _ROWS_AT_ONCE)):
            columns = [
                pyarrow.array([_parquet_value(row.get(field.name), field.type) for row in block], field.type)
                for field in schema
            ]
            writer.write_table(pyarrow.table(columns, schema=schema))


def _parquet_type(name: str, kinds: set[type]) -> Any:
    """Returns a column's type, by its name: a column in which nothing stands has it, too."""
    import pyarrow

    field = name.rpartition(".")[2]
    if field in _NUMBERS:
        return pyarrow.float64()
    if field in ("tokens", "notices"):
        return pyarrow.list_(pyarrow.string())
    if field == "token_nll":
        return pyarrow.list_(pyarrow.float64())
    if field == "choices":
        parts = {"text": pyarrow.string(), "probability": pyarrow.float64(), "nll": pyarrow.float64()}
        return pyarrow.list_(pyarrow.struct(list(parts.items())))
    return pyarrow.int64() if kinds == {int} else pyarrow.string()


def _parquet_value(value: Any, kind: Any) -> Any:
    import pyarrow

    if kind == pyarrow.string() and value is not None:
        return _unicode(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return [_unicode(entry) if isinstance(entry, str) else entry for entry in value]
    return value


def _unicode(text: str) -> str:
    # A file's name may hold lone surrogates, which are no text there.
    return text.encode("utf-8", "backslashreplace").decode()
