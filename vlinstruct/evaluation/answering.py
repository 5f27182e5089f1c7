"""From a chunk of items to their records: optimizes each instruction once, and answers every wording that came of it.

So all ways to choose among the three instructions are scored from one pass: a wording's answer is computed once,
whichever way would have chosen it. A run per way would answer the same wordings again, in other batches, whose sums
round otherwise.

Legend: B items of a chunk, K candidates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

from PIL import Image

from vlinstruct.backend import Backend, ProfiledBackend, Row, Seen
from vlinstruct.errors import InputError
from vlinstruct.evaluation.benchmark import Item, Words
from vlinstruct.model import Model
from vlinstruct.records.output import error_record
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
        compare: the comparison, and the IAS of what it wrote.
    """

    see: float
    answer: float
    greedy: float
    rewrite: float
    score: float
    compare: float


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A chunk of items, answered.

    Args:
        records: one per item, in their order; of one whose picture cannot be read, why.
        times: of the chunk's stages; None where no picture could be read.
    """

    records: list[dict[str, Any]]
    times: Times | None


def answer(
    model: Model,
    items: Sequence[Item],
    words: Words,
    *,
    prefix: str,
    generation: GenerationSettings,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Answered:
    """Answers a chunk of one task's items, asked in one kind of words; where beams are used, without them as well.

    Args:
        model: answers.
        items: B, of one task.
        words: how they are asked.
        prefix: in front of every record's id.
        generation: how answers are generated, where they are not ranked.
        facts: what every record says of the run.
    """
    readable, errors = _with_pictures(items)
    if not readable:
        records = [_error_record(f"{prefix}/{words}/{item.id}", item, errors[item.id], facts) for item in items]
        return Answered(records=records, times=None)
    answered = _answered(model, readable, words, prefix=prefix, generation=generation, facts=facts)
    by_item = dict(zip((item.id for item, _ in readable), answered.records, strict=True))
    records = [
        by_item.get(item.id) or _error_record(f"{prefix}/{words}/{item.id}", item, errors[item.id], facts)
        for item in items
    ]
    return replace(answered, records=records)


def _with_pictures(items: Sequence[Item]) -> tuple[list[tuple[Item, Image.Image]], dict[str, InputError]]:
    """Reads the pictures of a chunk; one that cannot be read costs its item, not the run."""
    readable, errors = [], {}
    for item in items:
        try:
            readable.append((item, item.load_picture()))
        except InputError as error:  # a picture's, or a damaged table's
            errors[item.id] = error
    return readable, errors


def _error_record(name: str, item: Item, error: InputError, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {**error_record(SCHEMA, name, error), "task": item.task, **facts}


def _answered(
    model: Model,
    readable: Sequence[tuple[Item, Image.Image]],
    words: Words,
    *,
    prefix: str,
    generation: GenerationSettings,
    facts: Mapping[str, Any],
) -> Answered:
    """Answers items whose pictures are there."""
    items = [item for item, _ in readable]
    # The profiled model counts the stages; answers go to the model itself and are timed as a whole, by wording.
    backend = ProfiledBackend(model.backend)
    profiled = Model(backend, templates=model.templates, least_certainty=model.least_certainty)
    texts = [item.instructions[words] for item in items]
    seen = [good(outcome) for outcome in profiled.see_each([picture for _, picture in readable])]
    first, answer_s = _timed(lambda: _answers(model, seen, items, texts, generation))
    greedy, greedy_s = first, answer_s
    has_beams = generation.num_beams > 1 and not items[0].candidates  # ranking searches for nothing
    if has_beams:
        greedy_generation = replace(generation, num_beams=1)
        greedy, greedy_s = _timed(lambda: _answers(model, seen, items, texts, greedy_generation))
    # `safe` whatever was asked for: the table works out from its three scored instructions what any rule would choose.
    outcomes = profiled.optimize_each(seen, texts, optimization=OptimizationSettings(select="safe"))
    answers_by_text = [{text: first_answer} for text, first_answer in zip(texts, first, strict=True)]
    _answer_other_wordings(model, seen, items, outcomes, answers_by_text, generation)
    records = []
    for item, picture, outcome, answers in zip(items, seen, outcomes, answers_by_text, strict=True):
        head: dict[str, Any] = {
            "schema": SCHEMA,
            "id": f"{prefix}/{words}/{item.id}",
            "status": "ok",
            "task": item.task,
            **facts,
        }
        if item.candidates:
            head["candidates"] = list(item.candidates)
            if item.target is not None:
                head["target"] = item.target
        if item.num_ocr_tokens is not None:
            head["ocr_tokens"] = item.num_ocr_tokens
        # Ten equal answers are written once: scoring repeats them (report/scores.py).
        head["references"] = list(item.references if len(set(item.references)) > 1 else item.references[:1])
        records.append({**head, **_instructions(model.backend, item.instructions[words], picture, outcome, answers)})
    if has_beams:
        for record, text in zip(records, greedy, strict=True):
            record["greedy"] = {**record["initial"], "answer": text}
    costs = backend.costs
    times = Times(
        see=costs["see"].seconds / len(items),
        answer=answer_s / len(items),
        greedy=greedy_s / len(items),
        rewrite=costs["rewrite"].seconds / len(items),
        score=costs["score"].seconds / len(items),
        compare=(costs["compare"].seconds + costs["judge"].seconds) / len(items),
    )
    return Answered(records=records, times=times)


def _answer_other_wordings(
    model: Model,
    seen: Sequence[Seen],
    items: Sequence[Item],
    outcomes: Sequence[Optimization | Failed],
    answers_by_text: Sequence[dict[str, Any]],
    generation: GenerationSettings,
) -> None:
    """Adds to each item's answers those to the wordings that optimization wrote.

    A wording that is equal to an earlier one of its item is not answered again: equal texts must not get two answers.
    """
    new = [
        (row, text)
        for row, outcome in enumerate(outcomes)
        if isinstance(outcome, Optimization)
        for text in dict.fromkeys((outcome.rewritten.text, outcome.optimized.text))
        if text not in answers_by_text[row]
    ]
    rows, texts = [row for row, _ in new], [text for _, text in new]
    answers = _answers(model, [seen[row] for row in rows], [items[row] for row in rows], texts, generation)
    for (row, text), value in zip(new, answers, strict=True):
        answers_by_text[row][text] = value


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """Returns what the work gives, and its seconds."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


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


def _instructions(
    backend: Backend, initial: str, seen: Seen, outcome: Optimization | Failed, answers: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a record's three instructions with their IAS and answers, and which was chosen why."""

    def wording(text: str, ias: float | None) -> dict[str, Any]:
        finite = ias if ias is not None and math.isfinite(ias) else None  # JSON has no NaN
        # What the language model and the Q-Former read of the wording, which is all of the prompt.
        (count,) = backend.num_tokens([Row(prompt=text, seen=(seen,), reads=text)])
        tokens = {"prompt": count.prompt, "qformer": count.reads} if count is not None else None
        return {"text": text, "tokens": tokens, "ias": finite, "answer": answers[text]}

    # Where optimization failed, the instruction is asked as it was: the item counts in every column.
    if not isinstance(outcome, Optimization):
        return {"initial": wording(initial, None), "chosen": "initial", "reason": str(outcome.error)}
    return {
        "initial": wording(outcome.initial.text, outcome.initial.ias),
        "rewritten": wording(outcome.rewritten.text, outcome.rewritten.ias),
        "optimized": wording(outcome.optimized.text, outcome.optimized.ias),
        "chosen": outcome.chosen,
        "reason": outcome.reason,
    }
