"""Calibrate: thresholds of the guard for a model that nobody has measured, from a user's own pictures.

The cross check's needs no labels: it is the largest at which at most 1 of 100 foreign instructions is taken, that is,
at which the answer to another question about the same picture still passes for an answer. Everyday instructions stand
in for the user's and for the foreign ones; answers that are alike do no harm and do not count.

The gate's needs to know which answers are right: of labelled items it is the lowest certainty above which leaving the
user's words alone costs less than their noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from vlinstruct.errors import InputError
from vlinstruct.instruction.judge import Answering, answers_to_judge, judge
from vlinstruct.metrics.vqa_accuracy import is_lavis_match
from vlinstruct.model import ImageLike, Model
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Answer, Failed, good

MAX_TAKEN = 0.01
"""The share of foreign instructions that may pass the cross check."""
_MIN_FOREIGN = 200  # of fewer, 1 of 100 is two or less
_MAX_CROSS_NLL = 3.0  # above, an answer is less likely than 1 of 20 a token: no data can make that plausible
_GATES = (0.5, 0.6, 0.67, 0.75, 0.8, 0.9, 0.95)
# What people ask of any picture; each pair of them asks for another thing, so that the answer to one answers no other.
INSTRUCTIONS = (
    "Describe the picture in one short sentence.",
    "What colour is the background?",
    "How many objects are there?",
    "What is written in the picture?",
    "What shape is the largest object?",
    "Is there a person in the picture?",
    "What is to the left of the largest object?",
    "Is the picture taken outdoors?",
)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Thresholds that were found, and on what.

    Args:
        max_cross_nll: of the cross check, in nats.
        num_foreign: planted foreign instructions, answered otherwise than the user's.
        num_taken: of these, how many pass at that threshold.
        sure_above: of the gate; None where no labels were given.
        num_labelled: items that it was found on.
        scores: share of right answers by gate; at 0 nothing is optimized.
    """

    max_cross_nll: float
    num_foreign: int
    num_taken: int
    sure_above: float | None = None
    num_labelled: int = 0
    scores: tuple[tuple[float, float], ...] = ()

    def __str__(self) -> str:
        share = f"{self.num_taken} of {self.num_foreign} foreign instructions pass"
        lines = [f"cross check   --max-cross-nll {self.max_cross_nll:.2f}   {share}"]
        if self.sure_above is None:
            lines.append("gate          stays as it is: finding it needs answers (--data labelled.jsonl)")
        else:
            lines.append(f"gate          --sure-above {self.sure_above:g}   on {self.num_labelled} labelled items")
            lines += [f"  {gate:4.2f}  {100 * score:6.2f} % right" for gate, score in self.scores]
        return "\n".join(lines)

    def as_record(self) -> dict[str, Any]:
        """Returns it as one JSON object."""
        return {"schema": "vlinstruct.calibration/1", "status": "ok", **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class LabelledItem:
    """A picture with a question and its right answer."""

    image: ImageLike
    question: str
    answer: str


def calibrate(
    model: Model,
    images: Sequence[ImageLike],
    labelled: Iterable[LabelledItem] = (),
    *,
    batch_size: int = 16,
    on_item: Callable[[], None] = lambda: None,
) -> Calibration:
    """Finds the guard's thresholds for a model.

    Args:
        model: whose they are.
        images: pictures like those that it will be asked about; 30 and more say enough.
        labelled: items with right answers, for the gate.
        batch_size: pictures that go through the model together.
        on_item: called after each picture and each labelled item.

    Raises:
        InputError: too few pictures can be read, or the model answers all instructions alike.
    """
    cross = sorted(_foreign_cross_nll(model, images, batch_size, on_item))
    if len(cross) < _MIN_FOREIGN:
        raise InputError(
            f"{len(cross)} foreign instructions are answered otherwise; {_MIN_FOREIGN} are needed",
            advice="Give more pictures.",
        )
    # Just below the first one that must not pass.
    limit = cross[math.floor(MAX_TAKEN * len(cross))]
    max_cross_nll = min(limit, _MAX_CROSS_NLL)
    found = Calibration(
        max_cross_nll=max_cross_nll, num_foreign=len(cross), num_taken=sum(nll < max_cross_nll for nll in cross)
    )
    scores = _scores_by_gate(model, list(labelled), max_cross_nll, batch_size, on_item)
    if not scores:
        return found
    best = max(scores.values(), key=fmean)
    noise = stdev(best) / math.sqrt(len(best)) if len(best) > 1 else 0.0
    gate = min(gate for gate, values in scores.items() if fmean(values) >= fmean(best) - noise)
    shares = tuple((gate, fmean(values)) for gate, values in scores.items())
    return Calibration(
        **{**vars(found), "sure_above": gate, "num_labelled": len(best), "scores": shares},
    )


def _foreign_cross_nll(
    model: Model, images: Sequence[ImageLike], batch_size: int, on_item: Callable[[], None]
) -> list[float]:
    """Returns the cross check of every ordered pair of instructions that a picture answers differently."""
    values = []
    for start in range(0, len(images), batch_size):
        outcomes = model.see_each(images[start : start + batch_size])
        seen = [outcome for outcome in outcomes if not isinstance(outcome, Failed)]
        for own in INSTRUCTIONS:
            foreign = [text for text in INSTRUCTIONS if text != own]
            answers = [good(answer) for answer in answers_to_judge(model.backend, seen, [own] * len(seen), Answering())]
            judgements = judge(model.backend, seen, answers, [foreign] * len(seen), Answering())
            for given, of_picture in zip(answers, judgements, strict=True):
                judged = [judgement for judgement in of_picture if not isinstance(judgement, Failed)]
                values += [
                    judgement.cross_nll
                    for judgement in judged
                    if judgement.cross_nll is not None and not is_lavis_match(judgement.answer.text, given.text)
                ]
        for _ in outcomes:
            on_item()
    return values


def _scores_by_gate(
    model: Model,
    items: Sequence[LabelledItem],
    max_cross_nll: float,
    batch_size: int,
    on_item: Callable[[], None],
) -> dict[float, list[float]]:
    """Returns every item's score, by gate: every item is asked plainly and optimized, once for all gates."""
    scores: dict[float, list[float]] = {gate: [] for gate in (0.0, *_GATES)} if items else {}
    always = OptimizationSettings(when="always", max_cross_nll=max_cross_nll)
    for start in range(0, len(items), batch_size):
        chunk = items[start : start + batch_size]
        outcomes = model.see_each([item.image for item in chunk])
        readable = [(item, seen) for item, seen in zip(chunk, outcomes, strict=True) if not isinstance(seen, Failed)]
        answers = model.ask_each(
            [seen for _, seen in readable],
            [item.question for item, _ in readable],
            optimize=True,
            optimization=always,
        )
        for (item, _), answer in zip(readable, answers, strict=True):
            if not isinstance(answer, Answer) or answer.optimization is None:
                continue
            judgement = answer.optimization.initial.judgement
            plain = answer if judgement is None else judgement.answer
            for gate, values in scores.items():
                is_left_alone = plain.certainty is not None and plain.certainty > gate
                used = plain if is_left_alone else answer
                values.append(float(is_lavis_match(used.text, item.answer)))
        for _ in chunk:
            on_item()
    return scores if any(scores.values()) else {}
