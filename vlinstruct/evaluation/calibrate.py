"""Calibrate: thresholds of the guard for a model that nobody has measured, from a user's own pictures.

The cross check's needs no labels: it is the largest at which at most 1 of 100 foreign instructions is taken, that is,
at which the answer to another question about the same picture still passes for an answer. Everyday instructions stand
in for the user's and for the foreign ones; answers that are alike do no harm and do not count.

The gate's needs to know which answers are right: of labelled items it is the lowest certainty above which leaving the
user's words alone costs less than their noise.

Legend: N pictures, B of a chunk, K instructions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_DOWN, Context
from functools import cache
from statistics import fmean, stdev
from typing import Any, TypeVar

from vlinstruct.backend import Backend, Seen
from vlinstruct.errors import InputError, NetworkError, UsageError, VlinstructError, shortened
from vlinstruct.instruction.judge import Answering, answers_to_judge, cross_nlls
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLimits, LoadedImage
from vlinstruct.media.inputs import ImageInput, load_source
from vlinstruct.media.read_ahead import read_ahead
from vlinstruct.metrics.vqa_accuracy import is_lavis_match
from vlinstruct.model import Model
from vlinstruct.records.items import ItemError
from vlinstruct.records.labelled import LabelledItem
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Answer, Failed

T = TypeVar("T", ImageInput, LabelledItem)
SCHEMA = "vlinstruct.calibration/1"
MAX_TAKEN = 0.01
"""The share of foreign instructions that may pass the cross check."""
MIN_LABELLED = 30
"""Of fewer items the gate would follow their noise."""
_MIN_FOREIGN = 200  # of fewer, 1 of 100 is two or less
_MAX_CROSS_NLL = 3.0  # above, an answer is less likely than 1 of 20 a token: no data can make that plausible
_THREE_DIGITS_DOWN = Context(prec=3, rounding=ROUND_DOWN)
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
_NUM_PAIRS = len(INSTRUCTIONS) * (len(INSTRUCTIONS) - 1)
MIN_PICTURES = math.ceil(_MIN_FOREIGN / _NUM_PAIRS)
"""Of fewer there cannot be enough foreign instructions, however they are answered."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Thresholds that were found, and on what.

    Args:
        max_cross_nll: of the cross check, in nats.
        num_pictures: that could be read.
        num_foreign: planted foreign instructions, answered otherwise than the user's.
        num_taken: of these, how many pass at that threshold.
        sure_above: of the gate; None where no labels were given.
        num_labelled: items that it was found on.
        scores: share of right answers by gate; at 0 nothing is optimized.
        failed: what could not be read, by name.
    """

    max_cross_nll: float
    num_pictures: int
    num_foreign: int
    num_taken: int
    sure_above: float | None = None
    num_labelled: int = 0
    scores: tuple[tuple[float, float], ...] = ()
    failed: tuple[tuple[str, VlinstructError], ...] = ()

    def __str__(self) -> str:
        options = f"--max-cross-nll {self.max_cross_nll:g}"
        share = f"{self.num_taken} of {self.num_foreign} foreign instructions pass"
        lines = [f"cross check  {self.max_cross_nll:g} nats: {share}, on {self.num_pictures} pictures"]
        if self.sure_above is None:
            lines.append("gate         stays as it is: finding it needs items with right answers (--data FILE)")
        else:
            options += f" --sure-above {self.sure_above:g}"
            optimizes = "" if self.sure_above else ": optimizing gains no more than noise, all is asked as typed"
            lines.append(f"gate         {self.sure_above:g}, on {self.num_labelled} labelled items{optimizes}")
            lines += [f"  {gate:4.2f}     {100 * score:6.2f} % right" for gate, score in self.scores]
        return "\n".join([*lines, f"options      {options}"])

    def as_record(self) -> dict[str, Any]:
        """Returns it as one JSON object."""
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "id": "calibration",
            "status": "ok",
            "max_cross_nll": self.max_cross_nll,
            "pictures": self.num_pictures,
            "foreign": self.num_foreign,
            "taken": self.num_taken,
        }
        if self.sure_above is not None:
            scores = [{"sure_above": gate, "score": round(score, 5)} for gate, score in self.scores]
            record |= {"sure_above": self.sure_above, "labelled": self.num_labelled, "scores": scores}
        if self.failed:
            record["failed"] = [
                {"id": name, "code": error.code, "message": error.message} for name, error in self.failed
            ]
        return record


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """How pictures are read and seen: by a model that is loaded when the first one could be read.

    Args:
        load: gives the model.
        limits: how large a picture may be.
        batch_size: pictures that go through the model together.
        on_item: called after each one.
        notify: is told what a user should know of one.
        failed: gets what cannot be read, by name.
    """

    load: Callable[[], Model]
    limits: ImageLimits
    batch_size: int
    on_item: Callable[[], None]
    notify: Callable[[str], None]
    failed: list[tuple[str, VlinstructError]] = field(default_factory=list)

    def chunks(self, items: Sequence[T]) -> Iterator[tuple[list[T], list[Seen]]]:
        """Yields the items whose pictures can be read, with what was seen of them, a chunk at a time."""

        def read(item: T) -> LoadedImage | VlinstructError:
            source = item.source if isinstance(item, ImageInput) else item.image
            try:
                return load_source(source, name=str(item.id), limits=self.limits)
            except (InputError, NetworkError) as error:
                return error

        chunk: list[tuple[T, LoadedImage]] = []
        num_left = len(items)
        for item, picture in zip(items, read_ahead(items, read, num_ahead=self.batch_size), strict=True):
            num_left -= 1
            if isinstance(picture, VlinstructError):
                self.failed.append((str(item.id), picture))
                self.on_item()
            else:
                for notice in picture.notices:
                    self.notify(notice)
                chunk.append((item, picture))
            if chunk and (len(chunk) == self.batch_size or not num_left):
                outcomes = self.load().see_each([loaded.image for _, loaded in chunk])
                looked_at = list(zip([item for item, _ in chunk], outcomes, strict=True))
                good = [(item, seen) for item, seen in looked_at if not isinstance(seen, Failed)]
                self.failed.extend((str(item.id), seen.error) for item, seen in looked_at if isinstance(seen, Failed))
                yield [item for item, _ in good], [seen for _, seen in good]
                for _ in chunk:
                    self.on_item()
                chunk = []


def calibrate(
    load: Callable[[], Model],
    images: Sequence[ImageInput],
    labelled: Sequence[LabelledItem | ItemError] = (),
    *,
    batch_size: int = 16,
    limits: ImageLimits = DEFAULT_LIMITS,
    on_item: Callable[[], None] = lambda: None,
    notify: Callable[[str], None] = lambda notice: None,
) -> Calibration:
    """Finds the guard's thresholds for a model.

    What cannot be read does not count; the outcome names it.

    Args:
        load: gives the model whose thresholds they are; called when the first picture could be read.
        images: pictures like those that it will be asked about; 30 and more say enough.
        labelled: items with questions and right answers, for the gate, as `read_labelled` gives them.
        batch_size: pictures that go through the model together.
        limits: how large a picture may be, and how whole it must be.
        on_item: called after each picture and each labelled item.
        notify: is told what a user should know of a picture.

    Raises:
        UsageError: the backend scores no texts.
        InputError: too few pictures or labelled items, or the model cannot tell foreign instructions from others.
    """
    if len(images) < MIN_PICTURES:
        raise _too_few(f"{len(images)} pictures are named, at least {MIN_PICTURES} are needed")
    bad = [(str(item.id), item.error) for item in labelled if isinstance(item, ItemError)]
    items = [item for item in labelled if isinstance(item, LabelledItem)]
    if labelled and len(items) < MIN_LABELLED:
        why = f"{len(items)} labelled items can be used, at least {MIN_LABELLED} are needed"
        first = f"; the first that cannot: {bad[0][1].problem}" if bad else ""
        raise InputError(why + shortened(first, 150), advice="Label more, or leave --data out.", code="too_few_items")
    if any(item.question is None for item in items):
        raise InputError(
            "the labelled items have no questions, and the gate is about answers to them",
            advice="Add them, or say which field they are: --columns question=NAME.",
        )
    reading = _Reading(load=cache(load), limits=limits, batch_size=batch_size, on_item=on_item, notify=notify)
    cross: list[float] = []
    num_pictures = 0
    for _, seen in reading.chunks(images):
        cross += foreign_cross_nlls(reading.load().backend, seen)
        num_pictures += len(seen)
    num_bad_pictures = len(reading.failed)
    if not num_pictures:
        raise reading.failed[0][1]
    if num_pictures < MIN_PICTURES:
        raise _too_few(f"{num_pictures} pictures can be read, at least {MIN_PICTURES} are needed")
    if len(cross) < _MIN_FOREIGN:
        why = f"of {num_pictures * _NUM_PAIRS} foreign instructions {len(cross)} are answered otherwise"
        raise _too_few(f"{why}, {_MIN_FOREIGN} are needed")
    max_cross_nll = largest_threshold(cross)
    calibration = Calibration(
        max_cross_nll=max_cross_nll,
        num_pictures=num_pictures,
        num_foreign=len(cross),
        num_taken=sum(nll < max_cross_nll for nll in cross),
    )
    scores = _scores_by_gate(reading, items, max_cross_nll)
    if scores:
        best = max(scores.values(), key=fmean)
        noise = stdev(best) / math.sqrt(len(best)) if len(best) > 1 else 0.0
        calibration = replace(
            calibration,
            sure_above=min(gate for gate, values in scores.items() if fmean(values) >= fmean(best) - noise),
            num_labelled=len(best),
            scores=tuple((gate, fmean(values)) for gate, values in scores.items()),
        )
    return replace(calibration, failed=(*reading.failed[:num_bad_pictures], *bad, *reading.failed[num_bad_pictures:]))


def _too_few(problem: str) -> InputError:
    return InputError(problem, advice="Give more pictures, 30 and more say enough.", code="too_few_pictures")


def foreign_cross_nlls(backend: Backend, seen: Sequence[Seen]) -> list[float]:
    """Returns the cross check of every ordered pair of instructions that a picture answers differently.

    Args:
        backend: answers and scores.
        seen: the pictures, B.
    """
    if not backend.abilities.can_score:
        raise UsageError("this backbone does not score texts: there is no cross check to calibrate.")
    # Every picture answers every instruction once, K times B rows; each answer is foreign to all other instructions.
    texts = [text for text in INSTRUCTIONS for _ in seen]
    pictures = list(seen) * len(INSTRUCTIONS)
    outcomes = answers_to_judge(backend, pictures, texts, Answering())
    given = [(row, answer) for row, answer in enumerate(outcomes) if isinstance(answer, Answer)]
    foreign: dict[tuple[int, str], Answer | Failed] = {
        (place, texts[other]): theirs
        for place, (row, answer) in enumerate(given)
        for other, theirs in given
        if other % len(seen) == row % len(seen) and not is_lavis_match(theirs.text, answer.text)
    }
    scored = cross_nlls(backend, [pictures[row] for row, _ in given], [answer for _, answer in given], foreign)
    values = [scored.get(pair, math.inf) for pair in foreign]
    # What is no number passes no check.
    return [math.inf if math.isnan(nll) else nll for nll in values if not isinstance(nll, Failed)]


def largest_threshold(cross: Sequence[float]) -> float:
    """Returns the largest threshold at which at most `MAX_TAKEN` of foreign instructions pass, to three digits.

    Raises:
        InputError: there is none above 0.

    >>> largest_threshold([0.12345, *[2.5] * 199]), largest_threshold([9.0] * 200)
    (2.5, 3.0)
    """
    # What passes lies below the threshold, so the first value that must not pass is the largest one.
    limit = min(sorted(cross)[math.floor(MAX_TAKEN * len(cross))], _MAX_CROSS_NLL)
    if limit <= 0:
        raise InputError(
            "more than 1 of 100 foreign instructions are answered by what the model is certain of for the others",
            advice="No threshold guards this model: ask it as you type.",
        )
    # Down and not to the nearest: what is printed is typed, and must let no more pass.
    return float(_THREE_DIGITS_DOWN.create_decimal(repr(limit)))


def _scores_by_gate(reading: _Reading, items: Sequence[LabelledItem], max_cross_nll: float) -> dict[float, list[float]]:
    """Returns every item's score, by gate: every item is asked plainly and optimized, once for all gates."""
    scores: dict[float, list[float]] = {gate: [] for gate in (0.0, *_GATES)}
    always = OptimizationSettings(when="always", max_cross_nll=max_cross_nll)
    for chunk, seen in reading.chunks(items):
        questions = [item.question or "" for item in chunk]
        answers = reading.load().ask_each(seen, questions, optimize=True, optimization=always)
        for item, answer in zip(chunk, answers, strict=True):
            if not isinstance(answer, Answer) or answer.optimization is None:
                continue
            judgement = answer.optimization.initial.judgement
            plain = answer if judgement is None else judgement.answer
            for gate, values in scores.items():
                is_left_alone = plain.certainty is not None and plain.certainty > gate
                used = plain if is_left_alone else answer
                values.append(float(any(is_lavis_match(used.text, right) for right in item.answers)))
    return scores if scores[0.0] else {}
