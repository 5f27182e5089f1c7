"""Puts items to a model: optimizes each instruction once, and answers every wording that came of it.

So all ways to choose among the three instructions are scored from one pass: a wording's answer is computed once,
whichever way would have chosen it.

Legend: B items of a chunk, K candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from vlinstruct.config import GenerationConfig, OptimizationConfig
from vlinstruct.evaluation.item import Item, Words
from vlinstruct.pipeline import Pipeline
from vlinstruct.values import Optimization, Percept

T = TypeVar("T")
SCHEMA = "vlinstruct.evaluation/1"


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds per item of each stage of a chunk.

    Args:
        see: the vision tower.
        answer: answering one wording.
        rewrite: the language model's rewriting.
        score: the IAS of both wordings.
        compare: the comparison, and the IAS of what it brought forth.
    """

    see: float
    answer: float
    rewrite: float
    score: float
    compare: float


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A chunk's records, and what they took."""

    records: list[dict[str, Any]]
    times: Times


class _Clock:
    """A model that says how long each of its calls took."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.calls: list[tuple[str, float]] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        if name not in ("generate_text", "text_nll", "token_nll", "generate"):
            return value

        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = value(*arguments)
            self.calls.append((name, time.perf_counter() - began))
            return result

        return timed

    def seconds(self) -> tuple[float, float, float]:
        """Returns what rewriting, scoring the pair, and all that followed took."""
        rewriting = sum(taken for name, taken in self.calls if name in ("generate_text", "text_nll"))
        rest = [taken for name, taken in self.calls if name not in ("generate_text", "text_nll")]
        return rewriting, sum(rest[:1]), sum(rest[1:])


def answer(
    pipeline: Pipeline, items: Sequence[Item], words: Words, *, prefix: str, generation: GenerationConfig
) -> Answered:
    """Answers a chunk of one task's items, asked in one kind of words.

    Args:
        pipeline: the model.
        items: B, of one task.
        words: how they are asked.
        prefix: in front of every record's id.
        generation: how answers are generated, where they are not ranked.
    """
    texts = [item.instructions[words] for item in items]
    pictures = [item.draw() for item in items]
    percept, see = _timed(lambda: pipeline.see(*pictures))
    first, answering = _timed(lambda: _answers(pipeline, percept, items, texts, generation))
    clock = _Clock(pipeline.model)
    watched = Pipeline(clock, templates=pipeline.templates, least_certainty=pipeline.least_certainty)  # type: ignore[arg-type]
    outcomes = watched.optimize_each(percept, texts, optimization=OptimizationConfig(select="safe"))
    known = [{text: found} for text, found in zip(texts, first, strict=True)]
    _answer_others(pipeline, percept, items, outcomes, known, generation)
    records = [
        _record(item, words, prefix, outcome, answers)
        for item, outcome, answers in zip(items, outcomes, known, strict=True)
    ]
    taken = (see, answering, *clock.seconds())
    return Answered(
        records=records, times=Times(**dict(zip(_STAGES, (one / len(items) for one in taken), strict=True)))
    )


def _answer_others(
    pipeline: Pipeline,
    percept: Percept,
    items: Sequence[Item],
    outcomes: Sequence[Optimization | Exception],
    known: Sequence[dict[str, Any]],
    generation: GenerationConfig,
) -> None:
    """Adds to each row's answers those of the wordings that optimization brought forth."""
    new = [
        (row, text)
        for row, outcome in enumerate(outcomes)
        if isinstance(outcome, Optimization)
        for text in dict.fromkeys((outcome.rewritten.text, outcome.optimized.text))
        if text not in known[row]
    ]
    rows, asked = [row for row, _ in new], [text for _, text in new]
    found = _answers(pipeline, percept.select(rows), [items[row] for row in rows], asked, generation)
    for (row, text), value in zip(new, found, strict=True):
        known[row][text] = value


_STAGES = ("see", "answer", "rewrite", "score", "compare")


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _answers(
    pipeline: Pipeline, percept: Percept, items: Sequence[Item], texts: Sequence[str], generation: GenerationConfig
) -> list[Any]:
    """Returns a generated text, or the mean nats per token of every candidate, (K,), per row."""
    if not items:
        return []
    if not items[0].candidates:
        return pipeline.model.generate(percept, texts, texts, generation)
    scores = pipeline.model.candidate_nll(percept, texts, texts, [item.candidates for item in items])
    return [[one.mean_nll for one in row] for row in scores]


def _record(
    item: Item, words: Words, prefix: str, outcome: Optimization | Exception, answers: dict[str, Any]
) -> dict[str, Any]:
    """Returns an item's record: the three instructions with their IAS and answers, and which was chosen why."""
    record: dict[str, Any] = {"schema": SCHEMA, "id": f"{prefix}/{words}/{item.id}", "status": "ok", "task": item.task}
    if item.candidates:
        record["candidates"] = list(item.candidates)
    record["references"] = list(item.references if len(set(item.references)) > 1 else item.references[:1])
    initial = item.instructions[words]
    if not isinstance(outcome, Optimization):
        return {**record, "initial": _said(initial, None, answers), "chosen": "initial", "reason": str(outcome)}
    roles = {"initial": outcome.initial, "rewritten": outcome.rewritten, "optimized": outcome.optimized}
    said = {role: _said(one.text, one.ias, answers) for role, one in roles.items()}
    return {**record, **said, "chosen": outcome.chosen, "reason": outcome.reason}


def _said(text: str, ias: float | None, answers: dict[str, Any]) -> dict[str, Any]:
    finite = ias if ias is not None and ias == ias and abs(ias) != float("inf") else None
    return {"text": text, "ias": finite, "answer": answers[text]}
