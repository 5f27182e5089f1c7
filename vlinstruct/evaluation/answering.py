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

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.evaluation.item import Item, Words
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Optimization, Percept

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
    pipeline: Model,
    items: Sequence[Item],
    words: Words,
    *,
    prefix: str,
    generation: GenerationSettings,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Answered:
    """Answers a chunk of one task's items, asked in one kind of words; without beams, too, where there are some.

    Args:
        pipeline: the model.
        items: B, of one task.
        words: how they are asked.
        prefix: in front of every record's id.
        generation: how answers are generated, where they are not ranked.
        facts: what every record says of the run.
    """
    texts = [item.instructions[words] for item in items]
    pictures = [item.load_picture() for item in items]
    percept, see = _timed(lambda: pipeline.see(*pictures))
    first, answering = _timed(lambda: _answers(pipeline, percept, items, texts, generation))
    greedy, searching = first, answering
    if _has_beams(items, generation):
        alone = replace(generation, num_beams=1)
        greedy, searching = _timed(lambda: _answers(pipeline, percept, items, texts, alone))
    clock = _Clock(pipeline.backend)
    watched = Model(clock, templates=pipeline.templates, least_certainty=pipeline.least_certainty)  # type: ignore[arg-type]
    outcomes = watched.optimize_each(percept, texts, optimization=OptimizationSettings(select="safe"))
    known = [{text: found} for text, found in zip(texts, first, strict=True)]
    _answer_others(pipeline, percept, items, outcomes, known, generation)
    writer = _Writer(pipeline.backend, words, prefix, facts)
    records = [writer.record(*of_item) for of_item in zip(items, outcomes, known, strict=True)]
    if _has_beams(items, generation):
        for record, answer in zip(records, greedy, strict=True):
            record["greedy"] = {**record["initial"], "answer": answer}
    taken = (see, answering, searching, *clock.seconds())
    return Answered(
        records=records, times=Times(**dict(zip(_STAGES, (one / len(items) for one in taken), strict=True)))
    )


def _has_beams(items: Sequence[Item], generation: GenerationSettings) -> bool:
    return generation.num_beams > 1 and not items[0].candidates


def _answer_others(
    pipeline: Model,
    percept: Percept,
    items: Sequence[Item],
    outcomes: Sequence[Optimization | Exception],
    known: Sequence[dict[str, Any]],
    generation: GenerationSettings,
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


_STAGES = ("see", "answer", "greedy", "rewrite", "score", "compare")


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _answers(
    pipeline: Model, percept: Percept, items: Sequence[Item], texts: Sequence[str], generation: GenerationSettings
) -> list[Any]:
    """Returns a generated text, or the mean nats per token of every candidate, (K,), per row."""
    if not items:
        return []
    if not items[0].candidates:
        return pipeline.backend.generate(percept, texts, texts, generation)
    scores = pipeline.backend.candidate_nll(percept, texts, texts, [item.candidates for item in items])
    return [[one.mean_nll for one in row] for row in scores]


class _Writer:
    """Makes records: an item's instructions with their IAS and answers, and which was chosen why.

    Args:
        model: counts tokens.
        words: how the items were asked.
        prefix: in front of every id.
        facts: what every record says of the run.
    """

    def __init__(self, model: InstructBlipBackend, words: Words, prefix: str, facts: Mapping[str, Any]) -> None:
        self._model, self._words, self._prefix, self._facts = model, words, prefix, facts

    def record(self, item: Item, outcome: Optimization | Exception, answers: Mapping[str, Any]) -> dict[str, Any]:
        name = f"{self._prefix}/{self._words}/{item.id}"
        record: dict[str, Any] = {"schema": SCHEMA, "id": name, "status": "ok", "task": item.task, **self._facts}
        if item.candidates:
            record["candidates"] = list(item.candidates)
        record["references"] = list(item.references if len(set(item.references)) > 1 else item.references[:1])
        if not isinstance(outcome, Optimization):
            initial = self._said(item.instructions[self._words], None, answers)
            return {**record, "initial": initial, "chosen": "initial", "reason": str(outcome)}
        roles = {"initial": outcome.initial, "rewritten": outcome.rewritten, "optimized": outcome.optimized}
        said = {role: self._said(one.text, one.ias, answers) for role, one in roles.items()}
        return {**record, **said, "chosen": outcome.chosen, "reason": outcome.reason}

    def _said(self, text: str, ias: float | None, answers: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a wording, which is all of its prompt, with what the language model and the Q-Former read of it."""
        finite = ias if ias is not None and math.isfinite(ias) else None
        tokens = {
            "prompt": len(self._model.prompt_ids(text)),
            "qformer": len(self._model.qformer_tokenizer.encode(text)),
        }
        return {"text": text, "tokens": tokens, "ias": finite, "answer": answers[text]}
