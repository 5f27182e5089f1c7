"""Puts items to a model: optimizes each instruction once, and answers every wording that came of it.

So all ways to choose among the three instructions are scored from one pass: a wording's answer is computed once,
whichever way would have chosen it.

Legend: B items of a chunk, K candidates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

from vlinstruct.backend import Backend, ProfiledBackend, Row, Seen
from vlinstruct.evaluation.benchmark import Item, Words
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Failed, Optimization, good

T = TypeVar("T")
SCHEMA = "vlinstruct.evaluation/2"


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds per item of each stage of a chunk.

    Args:
        see: the vision tower.
        answer: answering one wording.
        greedy: the same without beams.
        rewrite: the language model's rewriting.
        score: the IAS of both wordings.
        compare: the comparison, and the IAS of what it brought forth.
    """

    see: float
    answer: float
    greedy: float
    rewrite: float
    score: float
    compare: float


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A chunk's records, and what they took."""

    records: list[dict[str, Any]]
    times: Times


def answer(
    model: Model,
    items: Sequence[Item],
    words: Words,
    *,
    prefix: str,
    generation: GenerationSettings,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Answered:
    """Answers a chunk of one task's items, asked in one kind of words; without beams, too, where there are some.

    Args:
        model: answers.
        items: B, of one task.
        words: how they are asked.
        prefix: in front of every record's id.
        generation: how answers are generated, where they are not ranked.
        facts: what every record says of the run.
    """
    backend = ProfiledBackend(model.backend)
    profiled = Model(backend, templates=model.templates, least_certainty=model.least_certainty)
    texts = [item.instructions[words] for item in items]
    seen = [good(outcome) for outcome in profiled.see_each([item.load_picture() for item in items])]
    first, answering = _timed(lambda: _answers(model, seen, items, texts, generation))
    greedy, searching = first, answering
    if _has_beams(items, generation):
        alone = replace(generation, num_beams=1)
        greedy, searching = _timed(lambda: _answers(model, seen, items, texts, alone))
    # `safe` whatever was asked for: the table works out from its three scored instructions what any rule would choose.
    outcomes = profiled.optimize_each(seen, texts, optimization=OptimizationSettings(select="safe"))
    known = [{text: first_answer} for text, first_answer in zip(texts, first, strict=True)]
    _answer_others(model, seen, items, outcomes, known, generation)
    writer = _Writer(model.backend, words, prefix, facts)
    records = [
        writer.record(item, picture, outcome, answers)
        for item, picture, outcome, answers in zip(items, seen, outcomes, known, strict=True)
    ]
    if _has_beams(items, generation):
        for record, text in zip(records, greedy, strict=True):
            record["greedy"] = {**record["initial"], "answer": text}
    costs = backend.costs
    times = Times(
        see=costs["see"].seconds / len(items),
        answer=answering / len(items),
        greedy=searching / len(items),
        rewrite=costs["rewrite"].seconds / len(items),
        score=costs["score"].seconds / len(items),
        compare=(costs["compare"].seconds + costs["judge"].seconds) / len(items),
    )
    return Answered(records=records, times=times)


def _has_beams(items: Sequence[Item], generation: GenerationSettings) -> bool:
    return generation.num_beams > 1 and not items[0].candidates


def _answer_others(
    model: Model,
    seen: Sequence[Seen],
    items: Sequence[Item],
    outcomes: Sequence[Optimization | Failed],
    known: Sequence[dict[str, Any]],
    generation: GenerationSettings,
) -> None:
    """Adds to each row's answers those to the wordings that optimization wrote."""
    new = [
        (row, text)
        for row, outcome in enumerate(outcomes)
        if isinstance(outcome, Optimization)
        for text in dict.fromkeys((outcome.rewritten.text, outcome.optimized.text))
        if text not in known[row]
    ]
    rows, texts = [row for row, _ in new], [text for _, text in new]
    answers = _answers(model, [seen[row] for row in rows], [items[row] for row in rows], texts, generation)
    for (row, text), value in zip(new, answers, strict=True):
        known[row][text] = value


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _answers(
    model: Model, seen: Sequence[Seen], items: Sequence[Item], texts: Sequence[str], generation: GenerationSettings
) -> list[Any]:
    """Returns a generated text, or the mean nats per token of every candidate, (K,), per row."""
    if not items:
        return []
    if not items[0].candidates:
        return [good(outcome).text for outcome in model.ask_each(seen, texts, generation=generation)]
    scores = model.rank_each(seen, texts, [item.candidates for item in items])
    return [[candidate.mean_nll for candidate in good(row)] for row in scores]


class _Writer:
    """Makes records: an item's instructions with their IAS and answers, and which was chosen why.

    Args:
        backend: counts tokens.
        words: how the items were asked.
        prefix: in front of every id.
        facts: what every record says of the run.
    """

    def __init__(self, backend: Backend, words: Words, prefix: str, facts: Mapping[str, Any]) -> None:
        self._backend, self._words, self._prefix, self._facts = backend, words, prefix, facts

    def record(
        self, item: Item, seen: Seen, outcome: Optimization | Failed, answers: Mapping[str, Any]
    ) -> dict[str, Any]:
        name = f"{self._prefix}/{self._words}/{item.id}"
        record: dict[str, Any] = {"schema": SCHEMA, "id": name, "status": "ok", "task": item.task, **self._facts}
        if item.candidates:
            record["candidates"] = list(item.candidates)
        record["references"] = list(item.references if len(set(item.references)) > 1 else item.references[:1])
        if not isinstance(outcome, Optimization):
            initial = self._said(seen, item.instructions[self._words], None, answers)
            return {**record, "initial": initial, "chosen": "initial", "reason": str(outcome.error)}
        roles = {"initial": outcome.initial, "rewritten": outcome.rewritten, "optimized": outcome.optimized}
        said = {role: self._said(seen, one.text, one.ias, answers) for role, one in roles.items()}
        return {**record, **said, "chosen": outcome.chosen, "reason": outcome.reason}

    def _said(self, seen: Seen, text: str, ias: float | None, answers: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a wording, which is all of its prompt, with what the language model and the Q-Former read of it."""
        finite = ias if ias is not None and math.isfinite(ias) else None
        (count,) = self._backend.num_tokens([Row(prompt=text, seen=(seen,), reads=text)])
        tokens = {"prompt": count.prompt, "qformer": count.reads} if count is not None else None
        return {"text": text, "tokens": tokens, "ias": finite, "answer": answers[text]}
