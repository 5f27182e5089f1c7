"""A measurement beside an earlier one: has something become slower?

Seconds are those of a machine and an hour. What is compared are ratios of arms that ran in turns: every arm's to the
first one's, transformers' as a rule, turn by turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlinstruct.bench.timing import median_and_quartiles
from vlinstruct.errors import InputError
from vlinstruct.files import read_regular

_MAX_BYTES = 100_000_000
_LEAST_CHANGE = 0.05  # medians of two measurements on one machine differ by less, too
_WORKLOAD = ("lengths", "samples", "candidates", "questions", "answer_tokens", "batch", "acceptance")


@dataclass(frozen=True, kw_only=True)
class Change:
    """An arm then and now.

    Args:
        what: was measured, e.g. "answer tokens 2, batch 1".
        arm: its name.
        before: first quartile, median and third quartile of its ratios to the first arm.
        now: the same of this measurement.
    """

    what: str
    arm: str
    before: tuple[float, float, float]
    now: tuple[float, float, float]

    @property
    def is_slower(self) -> bool:
        """Whether its quartiles now lie above those before, and the median by more than 5 %."""
        return self.now[0] > self.before[2] and self.now[1] > (1 + _LEAST_CHANGE) * self.before[1]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """A measurement beside an earlier one.

    Args:
        file: the earlier one's.
        differs: what of the environment is not the same, as (name, before, now).
        arms: what both have measured.
    """

    file: str
    differs: Sequence[tuple[str, Any, Any]]
    arms: Sequence[Change]

    def as_record(self) -> dict[str, Any]:
        """Returns what stands in a record under `against`."""
        return {
            "file": self.file,
            "differs": {name: {"before": before, "now": now} for name, before, now in self.differs},
            "arms": [{**asdict(change), "is_slower": change.is_slower} for change in self.arms],
        }

    def as_table(self) -> str:
        """Returns the changes as lines."""
        lines = [f"{f'times the first arm, beside {self.file}':52} {'before':>20} {'now':>20}"]
        lines += [f"  {name} was {before}, is {now}" for name, before, now in self.differs]
        what = ""
        for change in self.arms:
            if change.what != what:
                what = change.what
                lines.append(f"  {what}")
            before, now = (
                f"{middle:.2f} ({low:.2f} to {high:.2f})" for low, middle, high in (change.before, change.now)
            )
            lines.append(f"    {change.arm:48} {before:>20} {now:>20}{'  slower' * change.is_slower}")
        num_slower = sum(change.is_slower for change in self.arms)
        return "\n".join([*lines, f"  {num_slower or 'none'} of {len(self.arms)} slower"])


def read_measurement(path: Path) -> dict[str, Any]:
    """Reads what `bench --json` printed.

    Raises:
        InputError: it is something else.
    """
    content = read_regular(path, kind="data", max_bytes=_MAX_BYTES)
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not str(record.get("schema")).startswith("vlinstruct.bench"):
        raise _refused(path, "it is no record of bench")
    return record


def require_shared(
    earlier: Mapping[str, Any], path: Path, *, batch_sizes: Sequence[int], acceptance: Sequence[float]
) -> None:
    """Refuses a file with which nothing could be compared, before anything is measured.

    Args:
        earlier: what it holds.
        path: the file.
        batch_sizes: that will be measured.
        acceptance: that will be measured; nothing is said of those that a measurement finds out, where it is empty.

    Raises:
        InputError: answers were measured of other batch sizes or shares of drafts alone.
    """
    comparisons = earlier.get("comparisons")
    for option, name, asked in (("--batch-size", "batch", batch_sizes), ("--acceptance", "acceptance", acceptance)):
        parts = [part for part in comparisons if isinstance(part, Mapping)] if isinstance(comparisons, list) else []
        had = [part[name] for part in parts if isinstance(part.get(name), int | float)]
        if had and asked and not set(had) & set(asked):
            values = ", ".join(f"{value:g}" for value in dict.fromkeys(had))
            raise _refused(path, f"it was measured with {option} {values}", "Give one of these")


def changes(record: Mapping[str, Any], earlier: Mapping[str, Any], path: Path) -> Changes:
    """Compares a measurement with an earlier one.

    Args:
        record: this one.
        earlier: the other one.
        path: the other one's file.

    Raises:
        InputError: they have measured different things, or the other one is damaged.
    """
    if (record["schema"], record["id"]) != (earlier["schema"], earlier.get("id")):
        kinds = " and ".join(f"{one['schema']} of {one.get('id')}" for one in (earlier, record))
        raise _refused(path, f"they have measured different things, {kinds}")
    try:
        before, then = dict(_ratios(earlier)), dict(earlier["environment"])
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        raise _refused(path, "it is damaged") from error
    arms = [
        Change(what=what, arm=arm, before=before[what, arm], now=now)
        for (what, arm), now in _ratios(record)
        if (what, arm) in before
    ]
    if not arms:
        raise _refused(path, "no workload is in both", "Give the options that it was measured with")
    now = record["environment"]
    differs = [(name, then.get(name), now[name]) for name in now if then.get(name) != now[name]]
    return Changes(file=path.name, differs=differs, arms=arms)


def _ratios(record: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], tuple[float, float, float]]]:
    """Yields quartiles of the ratios of every arm but the first, wherever a record has seconds by arm."""
    seconds = record.get("seconds")
    if isinstance(seconds, Mapping) and seconds:
        facts = [f"{name.replace('_', ' ')} {record[name]}" for name in _WORKLOAD if name in record]
        what = ", ".join(facts) or "cold start"
        first, *others = seconds
        for arm in others:
            ratios = [mine / other for mine, other in zip(seconds[arm], seconds[first], strict=True)]
            yield (what, arm), median_and_quartiles(ratios)
    for part in record.values():
        for inner in part if isinstance(part, list) else [part]:
            if isinstance(inner, Mapping):
                yield from _ratios(inner)


def _refused(path: Path, why: str, advice: str = "Give what bench --json printed") -> InputError:
    return InputError.at("cannot compare with", path, why, advice)
