"""The ways to choose among an item's three instructions, as an evaluation's records tell what each would have chosen.

All are read from the same records, so that no way is scored on answers that another did not have.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from vlinstruct.evaluation.parts import RECORDS_FILE
from vlinstruct.instruction.choose import JUDGED, RULES, Candidate, Decision
from vlinstruct.instruction.optimize import left_alone_reason
from vlinstruct.settings import Select, Thresholds
from vlinstruct.values import ROLES

Column = str
OPTIMIZED: Column = "AIO safe"
"""The way that the commands go by default: where the answer to the user's own words is sure, they are left alone."""
_ANSWERED, _SCORED = ("answer",), ("rewrite", "score", "compare")
_RULES_MEAN: Mapping[str, str] = {
    "safe": "as AIO cross, where the model is not sure of its answer to the words as asked",
    "cross": "the rewriting where its answer passes for an answer to the words as asked",
    "agree": "the rewriting where its answer is the same",
    "ias": "the lowest IAS of those that keep the content",
    "paper": "always the optimized instruction, as in the paper",
}
MEANINGS: Mapping[Column, str] = {
    "plain": "the instruction as it was asked",
    "plain, greedy": "the same, answered without beams",
    "rewritten": "always the model's rewriting of it",
    "lowest of pair": "of these two the one with the lower IAS",
    **{f"AIO {rule}": meaning for rule, meaning in _RULES_MEAN.items()},
    "always canonical": "what well-worded questions get: the ceiling",
}
"""What the columns are, for people."""
# What of an item's time each way needs; see `answering.Times`. Where answers are judged, the chosen one is among them.
STAGES: Mapping[Column, tuple[str, ...]] = {
    "plain": ("see", *_ANSWERED),
    "plain, greedy": ("see", "greedy"),
    "rewritten": ("see", "rewrite", *_ANSWERED),
    "lowest of pair": ("see", "rewrite", "score", *_ANSWERED),
    **{f"AIO {rule}": ("see", *_ANSWERED, *_SCORED, *(("judge",) if rule in JUDGED else ())) for rule in RULES},
    "always canonical": ("see", *_ANSWERED),
}
UNSURE_STAGES = (*_SCORED, "judge")
"""What the default does of these for the items alone whose answers are not sure."""
COLUMNS: tuple[Column, ...] = tuple(STAGES)


def columns_of(records: Iterable[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Returns the columns of a table; the greedy one where some answers were searched for with beams."""
    has_greedy = any("greedy" in record for record in records)
    return tuple(column for column in COLUMNS if has_greedy or column != "plain, greedy")


def wording_of(record: Mapping[str, Any], column: Column, thresholds: Thresholds) -> dict[str, Any]:
    """Returns the wording that a way chooses, with its IAS and its answer.

    Args:
        record: the item's; under "always canonical" the one that was asked in canonical words.
        column: the way.
        thresholds: that the rules compare with.
    """
    wording: dict[str, Any] = record[role_of(record, column, thresholds)]
    return wording


def role_of(record: Mapping[str, Any], column: Column, thresholds: Thresholds) -> str:
    """Returns the role of the wording that a way chooses; where optimization failed, only the initial one is there."""
    if column == "plain, greedy":  # an item that ranks was answered without beams anyway
        return "greedy" if "greedy" in record else "initial"
    if column in ("plain", "always canonical") or "rewritten" not in record:
        return "initial"
    if column == "rewritten":
        return "rewritten"
    if column == "lowest of pair":
        scores = {role: record[role]["ias"] for role in ("initial", "rewritten") if record[role]["ias"] is not None}
        return min(scores, key=lambda role: scores[role], default="initial")
    if column == OPTIMIZED:
        return decision_of(record, thresholds).chosen
    return RULES[cast(Select, column.removeprefix("AIO "))](candidates_in(record), thresholds).chosen


def decision_of(record: Mapping[str, Any], thresholds: Thresholds) -> Decision:
    """Returns what the commands do by default with an item whose instruction could be optimized."""
    if is_sure(record, thresholds):
        return Decision(chosen="initial", reason=left_alone_reason(record["initial"]["certainty"]))
    return RULES["safe"](candidates_in(record), thresholds)


def is_sure(record: Mapping[str, Any], thresholds: Thresholds) -> bool:
    """Says whether the answer to the user's own words is so certain that they are left alone."""
    certainty = record["initial"].get("certainty")
    return certainty is not None and certainty > thresholds.sure_above


def candidates_in(record: Mapping[str, Any]) -> list[Candidate]:
    """Returns what a rule knows of a record's candidates, the initial instruction first."""
    candidates = []
    for role in (*ROLES, *(name for name in record if name.startswith("variant "))):
        if role not in record:
            continue
        wording = record[role]
        answer = wording.get("judged_answer")
        if "candidates" in record:
            answer = record["candidates"][int(np.argmin(wording["answer"]))]
        candidates.append(
            Candidate(
                role=role,
                ias=wording["ias"],
                faults=tuple(wording.get("faults", ())),
                written_certainty=wording.get("written_certainty"),
                answer=answer,
                certainty=wording.get("certainty"),
                cross_nll=wording.get("cross_nll"),
            )
        )
    return candidates


def item_of(record: Mapping[str, Any]) -> str:
    """Returns the id of a record's item; records are named model/words/item."""
    return str(record["id"]).rsplit("/", 1)[1]


def model_of(record: Mapping[str, Any]) -> str:
    """Returns the row that a record is of; its name may hold slashes."""
    return str(record["id"]).rsplit("/", 2)[0]


def read_records(folder: Path) -> list[Mapping[str, Any]]:
    """Returns the records that `runner.run` wrote, in the order in which it did."""
    return [json.loads(line) for line in (folder / RECORDS_FILE).read_text(encoding="utf-8").splitlines()]
