"""A dozen items to look at, with their pictures: failures first, then those that optimization changed.

They are sampled by seed: a page of successes alone would say nothing about where optimization fails.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlinstruct.evaluation.benchmark import Item, Metric
from vlinstruct.evaluation.report.columns import decision_of
from vlinstruct.evaluation.report.table import Cell, Table
from vlinstruct.instruction.choose import Decision
from vlinstruct.settings import Thresholds
from vlinstruct.values import ROLES

NUM_CASES, NUM_FAILURES, NUM_CHANGED = 12, 4, 4
# Whose answers a table's columns hold, by role: its metric is computed of them already.
_COLUMN_OF = {"initial": "plain", "rewritten": "rewritten", "optimized": "AIO paper"}


@dataclass(frozen=True, kw_only=True)
class CaseAnswer:
    """What came of one instruction.

    Args:
        role: initial, rewritten or optimized; canonical for the same item in canonical words.
        instruction: what was asked.
        ias: its score; None where it has none.
        text: what was answered: the likeliest candidate where the task ranks.
        score: what the item has of the task's metric; of an area, 1 where the likelier candidate is the right one.
        is_right: whether that counts as right; None of captions, which are more or less alike.
    """

    role: str
    instruction: str
    ias: float | None
    text: str
    score: float
    is_right: bool | None


@dataclass(frozen=True, kw_only=True)
class Case:
    """An item as it was asked: poorly, where it was.

    Args:
        item: with its picture.
        metric: what its answers are judged by.
        reference: the right answer, or the one that most people gave.
        answers: of the three instructions, then of the canonical one.
        chosen: the role that `safe` chose.
        reason: why.
    """

    item: Item
    metric: Metric
    reference: str
    answers: Sequence[CaseAnswer]
    chosen: str
    reason: str

    @property
    def typed(self) -> CaseAnswer:
        """The answer to the words as they were typed."""
        return self.answers[0]

    @property
    def chosen_answer(self) -> CaseAnswer:
        """The answer to the instruction that was chosen."""
        return next(answer for answer in self.answers if answer.role == self.chosen)

    @property
    def is_failure(self) -> bool:
        """Whether the chosen instruction's answer is wrong; a caption's is neither right nor wrong."""
        return self.chosen_answer.is_right is False

    @property
    def is_changed(self) -> bool:
        """Whether another instruction than the typed one was chosen, and it was answered otherwise."""
        return self.chosen_answer.text != self.typed.text


@dataclass(frozen=True, kw_only=True)
class Cases:
    """The items of a model in one kind of words.

    Args:
        shown: a dozen of them.
        model: the row of the table.
        words: how they were asked.
        num_items: of how many they were sampled.
        num_changed: how many of these were answered otherwise because of optimization.
        num_mended: how many answers became right.
        num_spoilt: how many answers became wrong.
    """

    shown: Sequence[Case]
    model: str
    words: str
    num_items: int
    num_changed: int
    num_mended: int
    num_spoilt: int


def sample_cases(
    records: Iterable[Mapping[str, Any]],
    items: Sequence[Item],
    table: Table,
    *,
    model: str,
    seed: int,
    thresholds: Thresholds | None = None,
) -> Cases:
    """Samples a dozen cases of a model.

    Args:
        records: what `runner.run` wrote.
        items: of all tasks.
        table: what was made of them.
        model: the row of the table.
        seed: another one draws others.
        thresholds: that `safe` compares with; None leaves what the records say.
    """
    by_id = {str(record["id"]): record for record in records if record.get("status") != "error"}
    words = table.words[-1]  # poor words where there are any: they leave optimization the most to do
    metrics = {task.name: task.metric for task in table.tasks}
    cases = []
    for item in items:
        record = by_id.get(f"{model}/{words}/{item.id}")
        canonical = by_id.get(f"{model}/canonical/{item.id}")
        # Of an item that could not be read in one cell the table has no score.
        if record is None or canonical is None or item.id not in table.item_places[item.task]:
            continue
        answers = [
            _answer(record, role, role, table, Cell(model, words, _COLUMN_OF[role]), metrics[item.task])
            for role in ROLES
            if role in record
        ]
        answers.append(
            _answer(canonical, "initial", "canonical", table, Cell(model, "canonical", "plain"), metrics[item.task])
        )
        decision = Decision(chosen=record["chosen"], reason=record["reason"])
        if thresholds is not None and "rewritten" in record:
            decision = decision_of(record, thresholds)
        cases.append(
            Case(
                item=item,
                metric=metrics[item.task],
                reference=Counter(record["references"]).most_common(1)[0][0],
                answers=answers,
                chosen=decision.chosen,
                reason=decision.reason,
            )
        )
    rng = random.Random(f"cases/{seed}")
    shown: list[Case] = []
    for some, most in (
        ([case for case in cases if case.is_failure], NUM_FAILURES),
        ([case for case in cases if case.is_changed], NUM_CHANGED),
        (cases, NUM_CASES),
    ):
        left = [case for case in some if all(case is not other for other in shown)]
        shown += rng.sample(left, min(most, NUM_CASES - len(shown), len(left)))
    return Cases(
        shown=shown,
        model=model,
        words=words,
        num_items=len(cases),
        num_changed=sum(case.is_changed for case in cases),
        num_mended=sum(case.typed.is_right is False and case.chosen_answer.is_right is True for case in cases),
        num_spoilt=sum(case.typed.is_right is True and case.chosen_answer.is_right is False for case in cases),
    )


def _answer(record: Mapping[str, Any], role: str, name: str, table: Table, cell: Cell, metric: Metric) -> CaseAnswer:
    wording = record[role]
    text = wording["answer"]
    if "candidates" in record:
        text = record["candidates"][min(range(len(text)), key=text.__getitem__)]
    task, item_id = record["task"], str(record["id"]).rsplit("/", 1)[1]
    score = float(table.values[cell, task][table.item_places[task][item_id]])
    if metric == "roc_auc":
        score = float(text == record["references"][0])
    is_right = {"cider": None, "vqa_accuracy": score > 0}.get(metric, score == 1)
    return CaseAnswer(
        role=name, instruction=wording["text"], ias=wording["ias"], text=text, score=score, is_right=is_right
    )
