"""Thresholds of the guard: at most 1 of 100 planted foreign instructions is taken, and no larger one would do."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.errors import ImageError, InputError, UsageError
from vlinstruct.evaluation.calibrate import (
    INSTRUCTIONS,
    MAX_TAKEN,
    MIN_LABELLED,
    MIN_PICTURES,
    Calibration,
    calibrate,
    largest_threshold,
)
from vlinstruct.instruction.choose import Candidate, cross
from vlinstruct.instruction.judge import Answering, answers_to_judge, judge
from vlinstruct.media.inputs import ImageInput
from vlinstruct.metrics.vqa_accuracy import is_lavis_match
from vlinstruct.model import Model
from vlinstruct.records.labelled import LabelledItem
from vlinstruct.settings import GenerationSettings, Thresholds
from vlinstruct.values import Abilities, Answer, Failed, Judgement, TokenScores

NUM_PICTURES = 12


def draw(*content: object) -> float:
    """A number from 0 to 1 that depends on the content alone."""
    return zlib.crc32("|".join(map(str, content)).encode()) / 2**32


@dataclass(kw_only=True)
class Fake(Backend):
    """A backend whose rows are functions of their own content; a picture is seen as its width.

    Args:
        answer: to a picture and a prompt.
        nll: of an answer after a prompt.
        certainty: of an answer.
    """

    answer: Callable[[Any, str], str] = lambda picture, prompt: f"thing {draw(picture, prompt):.1f}"
    nll: Callable[[Any, str, str], float] = lambda picture, prompt, target: 5 * draw(picture, prompt, target)
    certainty: Callable[[Any, str], float] = lambda picture, prompt: 0.5
    abilities: Abilities = field(default_factory=Abilities)

    def see(self, media: Sequence[Any]) -> list[Seen | Failed]:
        return [picture.width for picture in media]

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        written: list[Written | Failed] = []
        for row in rows:
            picture = row.seen[0] if row.seen else None
            nll = -math.log(self.certainty(picture, row.prompt))
            written.append(Written(text=self.answer(picture, row.prompt), token_nll=(nll,)))
        return written

    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        return [
            [TokenScores(tokens=(text,), token_nll=(self.nll(row.seen[0], row.prompt, text),)) for text in texts]
            for row, texts in zip(rows, targets, strict=True)
        ]


@pytest.fixture
def images(tmp_path: Path) -> list[ImageInput]:
    """Pictures that the fake tells apart by their width."""
    paths = [tmp_path / f"{width}.png" for width in range(1, NUM_PICTURES + 1)]
    for width, path in enumerate(paths, start=1):
        Image.new("RGB", (width, 2)).save(path)
    return [ImageInput(id=path.name, source=path) for path in paths]


def labelled(images: Sequence[ImageInput], answer: Callable[[int], str], count: int = MIN_LABELLED) -> list[Any]:
    """Items whose question holds their number."""
    return [
        LabelledItem(
            id=number,
            image=images[number % len(images)].source,  # type: ignore[arg-type]
            question=f"question {number}",
            answers=(answer(number),),
            line=number,
        )
        for number in range(count)
    ]


def share_taken(backend: Backend, threshold: float) -> float:
    """Plants every instruction in place of every other one, and counts what the guard itself takes."""
    taken = []
    for picture in range(1, NUM_PICTURES + 1):
        for own in INSTRUCTIONS:
            foreign = [text for text in INSTRUCTIONS if text != own]
            answers = answers_to_judge(backend, [picture], [own], Answering())
            (given,) = [answer for answer in answers if isinstance(answer, Answer)]
            (judgements,) = judge(backend, [picture], [given], [foreign], Answering())
            for judgement in judgements:
                assert isinstance(judgement, Judgement)
                if is_lavis_match(judgement.answer.text, given.text):
                    continue
                typed = Candidate(role="initial", ias=2.0, answer=given.text)
                planted = Candidate(
                    role="rewritten", ias=1.0, answer=judgement.answer.text, cross_nll=judgement.cross_nll
                )
                taken.append(cross([typed, planted], Thresholds(max_cross_nll=threshold)).chosen == "rewritten")
    return sum(taken) / len(taken)


@pytest.mark.parametrize("scale", [0.001, 1, 7])
def test_it_is_the_largest_threshold_at_which_the_guard_takes_1_of_100_foreign_instructions(
    images: list[ImageInput], scale: float
) -> None:
    backend = Fake(nll=lambda *content: scale * draw(*content))
    found = calibrate(lambda: Model(backend), images)
    assert share_taken(backend, found.max_cross_nll) <= MAX_TAKEN
    # To three digits: the next number that has as many would take more.
    unit = 10.0 ** (math.floor(math.log10(found.max_cross_nll)) - 2)
    assert share_taken(backend, found.max_cross_nll + unit) > MAX_TAKEN


def test_what_it_prints_is_what_it_found(images: list[ImageInput]) -> None:
    found = calibrate(lambda: Model(Fake()), images)
    assert f"options      --max-cross-nll {found.max_cross_nll:g}" in str(found).splitlines()
    assert float(f"{found.max_cross_nll:g}") == found.max_cross_nll
    record = found.as_record()
    assert (record["max_cross_nll"], record["pictures"]) == (found.max_cross_nll, NUM_PICTURES)
    assert "sure_above" not in record
    assert found.num_taken <= MAX_TAKEN * found.num_foreign


@pytest.mark.parametrize("batch_size", [1, 5])
def test_who_shares_a_batch_changes_nothing(images: list[ImageInput], batch_size: int) -> None:
    together = calibrate(lambda: Model(Fake()), images)
    assert calibrate(lambda: Model(Fake()), images, batch_size=batch_size) == together


@pytest.mark.parametrize("not_finite", [math.nan, math.inf])
def test_what_is_no_number_passes_no_check(images: list[ImageInput], not_finite: float) -> None:
    def nll(picture: Any, prompt: str, target: str) -> float:
        return not_finite if draw(target, picture, prompt) < 0.5 else 5 * draw(picture, prompt, target)

    backend = Fake(nll=nll)
    found = calibrate(lambda: Model(backend), images)
    assert 0 < share_taken(backend, found.max_cross_nll) <= MAX_TAKEN


def test_answers_that_are_alike_are_not_foreign(images: list[ImageInput]) -> None:
    with pytest.raises(InputError, match=f"of {NUM_PICTURES * 56} foreign instructions 0 are answered otherwise"):
        calibrate(lambda: Model(Fake(answer=lambda picture, prompt: "yes")), images)


def test_a_model_that_is_certain_of_foreign_answers_has_no_threshold(images: list[ImageInput]) -> None:
    with pytest.raises(InputError, match="more than 1 of 100 foreign instructions"):
        calibrate(lambda: Model(Fake(nll=lambda *content: 0.0)), images)


def test_a_threshold_that_nothing_reaches_is_capped() -> None:
    assert largest_threshold([9.0] * 300) == largest_threshold([math.inf] * 300) == 3.0


def test_too_few_pictures_are_refused_before_the_model_is_loaded(images: list[ImageInput]) -> None:
    def load() -> Model:
        pytest.fail("the model was loaded")

    with pytest.raises(InputError, match=f"at least {MIN_PICTURES} are needed"):
        calibrate(load, images[: MIN_PICTURES - 1])
    with pytest.raises(InputError, match=f"29 labelled items can be used, at least {MIN_LABELLED}"):
        calibrate(load, images, labelled(images, str, 29))
    nowhere = [ImageInput(id=f"no{place}.png", source=Path(f"no{place}.png")) for place in range(NUM_PICTURES)]
    with pytest.raises(ImageError, match="no0"):
        calibrate(load, nowhere)


def test_pictures_that_cannot_be_read_do_not_count(images: list[ImageInput]) -> None:
    bad = [ImageInput(id=f"no{place}.png", source=Path(f"no{place}.png")) for place in range(2)]
    steps: list[None] = []
    found = calibrate(
        lambda: Model(Fake()), [bad[0], *images, bad[1]], batch_size=4, on_item=lambda: steps.append(None)
    )
    assert [name for name, _ in found.failed] == ["no0.png", "no1.png"]
    assert len(steps) == NUM_PICTURES + 2
    good = calibrate(lambda: Model(Fake()), images, batch_size=4)
    assert (found.max_cross_nll, found.num_foreign) == (good.max_cross_nll, good.num_foreign)


def test_a_backend_that_cannot_score_has_nothing_to_calibrate(images: list[ImageInput]) -> None:
    with pytest.raises(UsageError, match="does not score texts"):
        calibrate(lambda: Model(Fake(abilities=Abilities(can_score=False))), images)


# The gate


def gate_of(
    images: list[ImageInput],
    certainty: Callable[[int], float],
    is_right: Callable[[int], bool],
    is_hopeless: Callable[[int], bool] = lambda number: False,
) -> Calibration:
    """Calibrates on items whose words as typed are right or not, and whose rewritings are, but for the hopeless."""

    def number_in(prompt: str) -> int:
        return int("".join(filter(str.isdigit, prompt.partition("question ")[2][:2])) or 0)

    def answer(picture: Any, prompt: str) -> str:
        if picture is None:
            return f"Please: question {number_in(prompt)}?"
        if prompt in INSTRUCTIONS:
            return f"{draw(picture, prompt):.2f}"
        if "Score" in prompt:  # the comparison
            return f"Please: question {number_in(prompt)}?"
        number = number_in(prompt)
        return f"right {number}" if prompt.startswith("Please") or is_right(number) else "wrong"

    def right_answer(number: int) -> str:
        return "nobody knows" if is_hopeless(number) else f"right {number}"

    backend = Fake(
        answer=answer,
        certainty=lambda picture, prompt: certainty(number_in(prompt)) if prompt.startswith("question") else 0.99,
        # Every rewriting is fluent, and what answers it passes.
        nll=lambda picture, prompt, target: (
            4.0 if prompt in INSTRUCTIONS else 0.1 if target.startswith(("Please", "right")) else 2.0
        ),
    )
    return calibrate(lambda: Model(backend), images, labelled(images, right_answer, 60))


def test_the_gate_leaves_alone_what_is_right_and_optimizes_what_is_not(images: list[ImageInput]) -> None:
    found = gate_of(images, certainty=lambda n: 0.97 if n % 2 else 0.72, is_right=lambda n: n % 2 == 1)
    assert found.sure_above == 0.75  # the lowest one above the certainty of wrong answers
    assert found.num_labelled == 60
    scores = dict(found.scores)
    assert scores[0.0] == scores[0.67] == 0.5  # all is left alone
    assert scores[0.75] == scores[0.95] == 1.0
    assert f"--sure-above {found.sure_above:g}" in str(found)
    assert found.as_record()["sure_above"] == 0.75


def test_where_optimizing_gains_nothing_all_is_asked_as_typed(images: list[ImageInput]) -> None:
    found = gate_of(images, certainty=lambda n: 0.72, is_right=lambda n: True)
    assert found.sure_above == 0
    assert "asked as typed" in str(found)


def test_what_optimizing_gains_within_noise_is_no_gain(images: list[ImageInput]) -> None:
    found = gate_of(images, certainty=lambda n: 0.72, is_right=lambda n: n != 1, is_hopeless=lambda n: n % 10 == 0)
    scores = dict(found.scores)
    assert scores[0.95] == pytest.approx(scores[0.0] + 1 / 60)
    assert found.sure_above == 0


def test_items_without_questions_are_refused(images: list[ImageInput]) -> None:
    (first, *others) = labelled(images, str, 40)
    bare = LabelledItem(id=first.id, image=first.image, question=None, answers=first.answers, line=1)
    with pytest.raises(InputError, match="no questions"):
        calibrate(lambda: Model(Fake()), images, [bare, *others])
