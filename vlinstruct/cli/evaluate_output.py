"""What `vlinstruct evaluate` prints beside its tables: what is listed, checked and compared, as lines or as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlinstruct.cli.terminal import show
from vlinstruct.errors import DataError, UsageError


def show_list(names: Sequence[str], as_json: bool) -> None:
    """Prints the official benchmarks that were named, or all of them.

    Args:
        names: of benchmarks; may be empty.
        as_json: as records.

    Raises:
        UsageError: nothing is known by one of the names.
    """
    from vlinstruct.evaluation.benchmarks.listing import MINI_LINE, as_lines, as_records
    from vlinstruct.evaluation.benchmarks.official import BENCHMARKS
    from vlinstruct.evaluation.benchmarks.selection import official

    found = official(names) if names else list(BENCHMARKS.values())
    if as_json:
        for record in as_records(found):
            show_json(record)
    else:
        show("\n".join([*as_lines(found), MINI_LINE]))


def show_checked(names: Sequence[str], data: Path | None, as_json: bool, *, ocr: bool) -> None:
    """Prints what is wrong with the files of benchmarks.

    Args:
        names: of official benchmarks.
        data: the folder of theirs.
        as_json: as records.
        ocr: whether tokens may lack.

    Raises:
        DataError: something is wrong (after printing).
        UsageError: there is nothing to check.
    """
    from dataclasses import asdict

    from vlinstruct.evaluation.benchmarks.official import folder_of, without_tokens
    from vlinstruct.evaluation.benchmarks.selection import official
    from vlinstruct.evaluation.checking import check

    benchmarks = official(names)
    if not benchmarks or data is None:
        raise UsageError("--check-data needs --data DIR and official benchmarks; mini's items are drawn, not read.")
    num_wrong = 0
    for benchmark in benchmarks:
        found = check(without_tokens(benchmark) if ocr else benchmark, folder_of(benchmark, data))
        num_wrong += bool(found.problems)
        if as_json:
            status = "error" if found.problems else "ok"
            head = {"schema": "vlinstruct.benchmark_data/1", "id": found.name, "status": status}
            show_json({**head, **asdict(found)})
        else:
            good = f"nothing is wrong: {found.num_items:,} items, {found.num_pictures:,} pictures"
            show("\n".join(f"{found.name}: {line}" for line in found.problems or [good]))
    if num_wrong:
        raise DataError(
            f"the data of {num_wrong} of {len(benchmarks)} benchmarks is not as it should be", advice="See stdout."
        )


def show_differences(here: Path, there: Path, as_json: bool) -> None:
    """Prints where the records of two runs differ; `here` and `there` are their folders."""
    from dataclasses import asdict

    from vlinstruct.evaluation.differences import as_lines, differences, other_records
    from vlinstruct.evaluation.table import read_records

    found = differences(read_records(here), other_records(there))
    if as_json:
        head = {"schema": "vlinstruct.evaluation_differences/1", "id": str(there), "status": "ok"}
        show_json({**head, **asdict(found)})
    else:
        show("\n".join(["", *as_lines(found, str(there))]))


def show_json(record: dict[str, Any]) -> None:
    """Prints a record as a line, with null for what is no number."""
    from vlinstruct.records.output import json_line

    show(json_line(_finite(record)).decode().rstrip("\n"))


def _finite(value: Any) -> Any:
    """Returns a value with null for what is no number: a score relative to none at all."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
