"""Single items to look at: drawn by seed, with what was asked, scored and answered, and at least some failures."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlinstruct.evaluation.item import Item
from vlinstruct.metrics.accuracy import is_exact_match, is_ranked_first

NUM_CASES, NUM_FAILURES = 12, 4
ROLES = ("initial", "rewritten", "optimized")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one instruction.

    Args:
        role: initial, rewritten or optimized; canonical for the best instruction, which nobody asked.
        instruction: what was asked.
        ias: its score; None where it has none.
        text: what was answered: the likeliest candidate where the task ranks.
        is_right: whether that is a reference, word for word.
    """

    role: str
    instruction: str
    ias: float | None
    text: str
    is_right: bool


@dataclass(frozen=True, kw_only=True)
class Case:
    """An item as it was asked: poorly, where it was.

    Args:
        item: with its picture.
        reference: the right answer, or the one that most people gave.
        answers: of the three instructions, then of the canonical one.
        chosen: the role that `safe` chose.
        reason: why.
    """

    item: Item
    reference: str
    answers: Sequence[Answer]
    chosen: str
    reason: str

    @property
    def is_failure(self) -> bool:
        """Whether the chosen instruction's answer is wrong."""
        return not next(one for one in self.answers if one.role == self.chosen).is_right


def draw_cases(records: Iterable[Mapping[str, Any]], items: Sequence[Item], *, model: str, seed: int) -> list[Case]:
    """Draws a dozen cases of a model, failures first: four of them, or as many as there are.

    Args:
        records: what `runner.run` wrote.
        items: of all tasks.
        model: the row of the table.
        seed: another one draws others.
    """
    by_id = {str(record["id"]): record for record in records}
    words = "poor" if any("poor" in item.instructions for item in items) else "canonical"
    prefix = f"{model}/{words}"
    cases = [
        _case(item, by_id[f"{prefix}/{item.id}"], by_id[f"{model}/canonical/{item.id}"])
        for item in items
        if f"{prefix}/{item.id}" in by_id
    ]
    rng = random.Random(f"cases/{seed}")
    failures = [case for case in cases if case.is_failure]
    first = rng.sample(failures, min(NUM_FAILURES, len(failures)))
    rest = [case for case in cases if all(case is not one for one in first)]
    return first + rng.sample(rest, min(NUM_CASES - len(first), len(rest)))


def _case(item: Item, record: Mapping[str, Any], canonical: Mapping[str, Any]) -> Case:
    answers = [_answer(record, role, role) for role in ROLES if role in record]
    return Case(
        item=item,
        reference=Counter(record["references"]).most_common(1)[0][0],
        answers=[*answers, _answer(canonical, "initial", "canonical")],
        chosen=record["chosen"],
        reason=record["reason"],
    )


def _answer(record: Mapping[str, Any], role: str, name: str) -> Answer:
    said, references = record[role], record["references"]
    text = said["answer"]
    is_right = any(is_exact_match(str(text), reference) for reference in references)
    if "candidates" in record:
        candidates = record["candidates"]
        text = candidates[min(range(len(candidates)), key=lambda place: said["answer"][place])]
        is_right = is_ranked_first(said["answer"], candidates.index(references[0]))
    return Answer(role=name, instruction=said["text"], ias=said["ias"], text=text, is_right=is_right)
