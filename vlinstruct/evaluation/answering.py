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
from vlinstruct.instruction.choose import RULES
from vlinstruct.instruction.judge import Answering, answers_to_judge, judge
from vlinstruct.instruction.optimize import candidates_of, left_alone_reason, with_judgements
from vlinstruct.model import Model
from vlinstruct.records.output import error_record
from vlinstruct.settings import GenerationSettings, OptimizationSettings, Thresholds
from vlinstruct.values import Answer, Failed, Optimization, ScoredInstruction, good

T = TypeVar("T")
SCHEMA = "vlinstruct.evaluation/3"
# Stands in records for an infinite cross check, which JSON has not: above every threshold.
_IMPLAUSIBLE_NLL = 1e9


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
        judge: the answers to the candidates that are none to the instruction itself, and their cross checks.
    """

    see: float
    answer: float
    greedy: float
    rewrite: float
    score: float
    compare: float
    judge: float


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
    profiled = Model(backend, templates=model.templates, thresholds=model.thresholds)
    texts = [item.instructions[words] for item in items]
    seen = [good(outcome) for outcome in profiled.see_each([picture for _, picture in readable])]
    candidates = [item.candidates for item in items] if items[0].candidates else None
    first, answer_s = _timed(lambda: _answers(model, seen, texts, candidates, generation))
    greedy, greedy_s = first, answer_s
    has_beams = generation.num_beams > 1 and candidates is None  # ranking searches for nothing
    if has_beams:
        greedy_generation = replace(generation, num_beams=1)
        greedy, greedy_s = _timed(lambda: _answers(model, seen, texts, candidates, greedy_generation))
    # All of algorithm 2, and all candidates answered, whatever was asked for: the table works out from what is known of
    # them what any rule would choose.
    always = OptimizationSettings(select="ias", when="always")
    answering = Answering(generation=generation, choices=candidates)
    initial = first if answering.is_final else [good(it) for it in answers_to_judge(backend, seen, texts, answering)]
    outcomes = _judged(backend, seen, initial, profiled.optimize_each(seen, texts, optimization=always), answering)
    # A wording that is equal to an earlier one of its item is not answered again: equal texts must not get two answers.
    answers_by_text = [{text: answer} for text, answer in zip(texts, first, strict=True)]
    new = []
    for row, outcome in enumerate(outcomes):
        for scored in outcome.by_role().values() if isinstance(outcome, Optimization) else ():
            if answering.is_final and scored.judgement is not None:
                answers_by_text[row].setdefault(scored.text, scored.judgement.answer)
            elif scored.text not in answers_by_text[row]:
                new.append((row, scored.text))
    rows = [row for row, _ in new]
    offered = None if candidates is None else [candidates[row] for row in rows]
    others = _answers(model, [seen[row] for row in rows], [text for _, text in new], offered, generation)
    for (row, text), answer in zip(new, others, strict=True):
        answers_by_text[row][text] = answer
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
        records.append(
            {
                **head,
                **_instructions(model.backend, item.instructions[words], picture, outcome, answers, model.thresholds),
            }
        )
    if has_beams:
        for record, answer in zip(records, greedy, strict=True):
            record["greedy"] = {**record["initial"], "answer": _value(answer)}
    costs = backend.costs
    times = Times(
        see=costs["see"].seconds / len(items),
        answer=answer_s / len(items),
        greedy=greedy_s / len(items),
        rewrite=costs["rewrite"].seconds / len(items),
        score=costs["score"].seconds / len(items),
        compare=costs["compare"].seconds / len(items),
        judge=costs["judge"].seconds / len(items),
    )
    return Answered(records=records, times=times)


def _judged(
    backend: Backend,
    seen: Sequence[Seen],
    initial: Sequence[Answer],
    outcomes: Sequence[Optimization | Failed],
    answering: Answering,
) -> list[Optimization | Failed]:
    """Adds what the answers to all candidates tell, those among them that no rule would have answered."""
    rows = [row for row, outcome in enumerate(outcomes) if isinstance(outcome, Optimization)]
    good_outcomes = [good(outcomes[row]) for row in rows]
    judgements = judge(
        backend,
        [seen[row] for row in rows],
        [initial[row] for row in rows],
        [[scored.text for scored in outcome.by_role().values()] for outcome in good_outcomes],
        answering.rows(rows),
    )
    judged = {
        row: with_judgements(outcome, dict(zip(outcome.by_role(), of_row, strict=True)))
        for row, outcome, of_row in zip(rows, good_outcomes, judgements, strict=True)
    }
    return [judged.get(row) or outcome for row, outcome in enumerate(outcomes)]


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """Returns what the work gives, and its seconds."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _answers(
    model: Model,
    seen: Sequence[Seen],
    texts: Sequence[str],
    candidates: Sequence[Sequence[str]] | None,
    generation: GenerationSettings,
) -> list[Answer]:
    outcomes = model.ask_each(seen, texts, choices=candidates, generation=generation)
    return [good(outcome) for outcome in outcomes]


def _value(answer: Answer) -> Any:
    """Returns what a record has of an answer: its text, or the mean nats per token of every candidate, (K,)."""
    return [choice.nll for choice in answer.choices] if answer.choices else answer.text


def _instructions(
    backend: Backend,
    initial: str,
    seen: Seen,
    outcome: Optimization | Failed,
    answers: Mapping[str, Answer],
    thresholds: Thresholds,
) -> dict[str, Any]:
    """Returns a record's three instructions with their IAS and answers, and which was chosen why."""

    def wording(text: str, scored: ScoredInstruction | None) -> dict[str, Any]:
        # What the language model and the Q-Former read of the wording, which is all of the prompt.
        (count,) = backend.num_tokens([Row(prompt=text, seen=(seen,), reads=text)])
        tokens = {"prompt": count.prompt, "qformer": count.reads} if count is not None else None
        ias = scored.ias if scored is not None and math.isfinite(scored.ias) else None  # JSON has no NaN
        fields: dict[str, Any] = {"text": text, "tokens": tokens, "ias": ias, "answer": _value(answers[text])}
        return fields if scored is None else {**fields, **_known(scored)}

    # Where optimization failed, the instruction is asked as it was: the item counts in every column.
    if not isinstance(outcome, Optimization):
        return {"initial": wording(initial, None), "chosen": "initial", "reason": str(outcome.error)}
    wordings = {role: wording(scored.text, scored) for role, scored in outcome.by_role().items()}
    # What the commands do by default; the table works it out anew, and what other rules would have done.
    certainty = outcome.initial.judgement.answer.certainty if outcome.initial.judgement is not None else None
    if certainty is not None and certainty > thresholds.sure_above:
        return {**wordings, "chosen": "initial", "reason": left_alone_reason(certainty)}
    decision = RULES["safe"](candidates_of(outcome), thresholds)
    return {**wordings, "chosen": decision.chosen, "reason": decision.reason}


def _known(scored: ScoredInstruction) -> dict[str, Any]:
    """Returns what a rule knows of a candidate beside its IAS."""
    known: dict[str, Any] = {"faults": list(scored.faults), "written_certainty": scored.written_certainty}
    if scored.judgement is not None:
        answer, cross_nll = scored.judgement.answer, scored.judgement.cross_nll
        is_finite = cross_nll is not None and math.isfinite(cross_nll)
        judged = None if answer.choices else answer.text
        known |= {
            "judged_answer": judged,
            "certainty": answer.certainty,
            "token_nll": None if answer.token_nll is None else [round(nll, 4) for nll in answer.token_nll],
            "cross_nll": cross_nll if is_finite or cross_nll is None else _IMPLAUSIBLE_NLL,
        }
    return known
