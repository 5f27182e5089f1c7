"""Where the records of two runs differ: of two people, two machines, two batch sizes or two numbers of processes.

A decision between two scores that lie closer together than a batch moves them can fall either way: a near-tie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

NEAR = 1e-4  # nats per token
_ROLES = ("initial", "greedy", "rewritten", "optimized")
_MOST_SHOWN = 20  # ids of each kind on a terminal
Record = Mapping[str, Any]


@dataclass(kw_only=True)
class Differences:
    """What is not the same.

    Args:
        compared: records that both runs have.
        only_one: ids of records that one of them has.
        texts: ids of records with other instructions, candidates or written answers.
        parts: by what differs of these texts, e.g. `greedy answer`, in how many records.
        decisions: ids of records in which another instruction was chosen, or another candidate came first.
        near_ties: ids of records in which something was decided by less than NEAR, in either run.
        largest: the largest difference of a score, in nats per token, by kind: `ias`, `candidates`.
    """

    compared: int = 0
    only_one: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    parts: dict[str, int] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)
    near_ties: list[str] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=lambda: {"ias": 0.0, "candidates": 0.0})


def differences(ours: Sequence[Record], theirs: Sequence[Record]) -> Differences:
    """Compares two runs' records."""
    our_records, their_records = ({str(record["id"]): record for record in records} for records in (ours, theirs))
    result = Differences(only_one=sorted(our_records.keys() ^ their_records.keys()))
    for name in sorted(our_records.keys() & their_records.keys()):
        result.compared += 1
        _compare(name, our_records[name], their_records[name], result)
    return result


def _compare(name: str, our_record: Record, their_record: Record, result: Differences) -> None:
    our_texts, their_texts = _texts(our_record), _texts(their_record)
    if our_texts != their_texts:
        result.texts.append(name)
        parts = {**our_texts, **their_texts}
        for part in parts:
            if our_texts.get(part) != their_texts.get(part):
                result.parts[part] = result.parts.get(part, 0) + 1
    if _decisions(our_record) != _decisions(their_record):
        result.decisions.append(name)
    if any(margin < NEAR for record in (our_record, their_record) for margin in _margins(record)):
        result.near_ties.append(name)
    for role in _roles(our_record, their_record):
        pairs = {"ias": [(our_record[role]["ias"], their_record[role]["ias"])]}
        if "candidates" in our_record and our_record["candidates"] == their_record.get("candidates"):
            pairs["candidates"] = list(zip(our_record[role]["answer"], their_record[role]["answer"], strict=True))
        for kind, scores in pairs.items():
            distances = [abs(a - b) for a, b in scores if a is not None and b is not None]
            result.largest[kind] = max([result.largest[kind], *distances])


def _roles(*records: Record) -> list[str]:
    return [role for role in _ROLES if all(role in record for record in records)]


def _texts(record: Record) -> dict[str, Any]:
    """Returns a record's texts by what they are; what ranks has no written answers."""
    texts = {f"{role} instruction": record[role]["text"] for role in _roles(record) if role != "greedy"}
    if "candidates" in record:
        return {"candidates": record["candidates"], **texts}
    return {**texts, **{f"{role} answer": record[role]["answer"] for role in _roles(record)}}


def _decisions(record: Record) -> list[Any]:
    if "candidates" not in record:
        return [record[record["chosen"]]["text"], []]
    losses = [record[role]["answer"] for role in _roles(record)]
    likeliest = [min(range(len(nll)), key=nll.__getitem__) for nll in losses]
    return [record[record["chosen"]]["text"], likeliest]


def _margins(record: Record) -> Iterator[float]:
    """Yields by how much each decision fell: the best candidate against the next, a wording's IAS against another's."""
    for role in _roles(record) if "candidates" in record else []:
        lowest, next_lowest, *_ = sorted(record[role]["answer"])
        yield next_lowest - lowest
    scored = {record[role]["text"]: record[role]["ias"] for role in _roles(record) if record[role]["ias"] is not None}
    yield from (abs(ias - other) for ias, other in combinations(scored.values(), 2))


def as_lines(result: Differences, other_run: str) -> list[str]:
    """Returns the differences for a terminal, which names few items and counts many."""
    lines = [f"against {other_run}: {result.compared:,} records compared, {len(result.only_one):,} in one of both only"]
    scores = ", ".join(f"{kind} {value:.1e}" for kind, value in result.largest.items())
    lines.append(f"  largest difference of a score, nats per token: {scores}")
    parts = "".join(f", {part} {count:,}" for part, count in result.parts.items()).replace(",", " in:", 1)
    kinds = {
        f"other texts{parts}": result.texts,
        "other decisions": result.decisions,
        f"near-ties, decided by less than {NEAR:g}": result.near_ties,
    }
    for kind, names in kinds.items():
        is_many = len(names) > _MOST_SHOWN
        lines += [f"  {kind}: {len(names):,}{' (--json names them)' if is_many else ''}"]
        lines += [] if is_many else [f"    {name}" for name in names]
    return lines
