"""Reads what an earlier run left in an output file: which items are done, which lines a new run must leave out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlinstruct.errors import InputError, printable, shortened

_MAX_LINE_BYTES = 64_000_000  # far above any record: a foreign file of one endless line shall not fill the memory


@dataclass(frozen=True, kw_only=True)
class Target:
    """The output of a run.

    Args:
        name: the path as typed, for messages.
        real: the path with its links resolved.
        schema: the `schema` of every record.
        keys: for every item of this run, `str(id)` to its resume key.
    """

    name: str
    real: str
    schema: str
    keys: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What an earlier run left.

    Args:
        done: `str(id)` of its good records; not their keys, which two items may share.
        failed: `str(id)` of the items to try again.
        dropped: numbers, from 0, of lines to leave out: failed ones to try again, good ones written twice.
        whole_bytes: where the last whole line ends.
    """

    done: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    dropped: frozenset[int] = frozenset()
    whole_bytes: int = 0


def scan(target: Target) -> Earlier:
    """Reads all records of the target.

    Raises:
        InputError: it holds anything else (`output_not_records`), or good records of this run's items with another key
            (`output_other_run`).
    """
    done: set[str] = set()
    failed: set[str] = set()
    dropped: set[int] = set()
    whole_bytes = 0
    for number, line in enumerate(lines(target.real)):
        if not line.endswith(b"\n"):
            _check_half_line(line, target)
            break
        record = _parse(line, number + 1, target)
        whole_bytes += len(line)
        if _is_superseded(record, target, done):
            dropped.add(number)
            if record["status"] != "ok":
                failed.add(str(record["id"]))
        elif record["status"] == "ok":
            done.add(str(record["id"]))
    # Of several runs into one output a later one may have done what failed in an earlier one.
    again = frozenset(failed - done)
    return Earlier(done=frozenset(done), failed=again, dropped=frozenset(dropped), whole_bytes=whole_bytes)


def lines(path: str) -> Iterator[bytes]:
    """Yields the lines of a file with their ends; one past 64 MB comes in parts."""
    with open(path, "rb") as stream:
        while line := stream.readline(_MAX_LINE_BYTES):
            yield line


def records_of(path: str) -> Iterator[dict[str, Any]]:
    """Yields the records of an output that nobody writes any more."""
    yield from (json.loads(line) for line in lines(path))


def earlier_notices(target: Target, earlier: Earlier, size_bytes: int) -> tuple[str, ...]:
    """Says in at most one line what was found; `size_bytes` is the file's size before it was touched."""
    parts = [
        (bool(earlier.done), f"{len(earlier.done)} done before"),
        (bool(earlier.failed), f"{len(earlier.failed)} failed before and tried again"),
        (size_bytes > earlier.whole_bytes, "half a last line dropped"),
    ]
    state = ", ".join(text for applies, text in parts if applies)
    return (f"{printable(target.name)}: {state}",) if state else ()


def _parse(line: bytes, number: int, target: Target) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not {"schema", "id", "status"} <= record.keys():
        raise _not_records(target, f"line {number} is none of our records")
    if record["schema"] != target.schema:
        raise _not_records(target, f"line {number} is no {target.schema} record")
    if record["status"] == "ok" and "key" not in record:
        raise _not_records(target, f"line {number} has no key to resume by")
    return record


def _check_half_line(line: bytes, target: Target) -> None:
    # A foreign file without a last newline must never be cut, hence the look at what the half line begins with.
    start = f'{{"schema": {json.dumps(target.schema)}, '.encode()
    if not (line.startswith(start) or start.startswith(line)) or len(line) == _MAX_LINE_BYTES:
        raise _not_records(target, "its last line is none of our records")


def _is_superseded(record: dict[str, object], target: Target, done: set[str]) -> bool:
    """Says whether a new run leaves a line out: an item's that failed and is tried again, or one written twice.

    Records of items that this run does not have stay: an output may be filled by several runs.
    """
    expected = target.keys.get(str(record["id"]))
    if record["status"] != "ok":
        return expected is not None
    if expected is not None and record["key"] != expected:
        why = f"it holds {shortened(str(record['id']), 60)} made with other arguments, weights or input"
        raise _refuse(target, "other_run", why)
    return str(record["id"]) in done


def _not_records(target: Target, why: str) -> InputError:
    return _refuse(target, "not_records", f"the file exists and {why}")


def _refuse(target: Target, code: str, why: str) -> InputError:
    advice = "Name another file, or replace it with --overwrite"
    return InputError.at("cannot write output", target.name, why, advice, code=f"output_{code}")
