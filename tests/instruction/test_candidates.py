"""Further candidates: the user's own, and sampled rewritings; and what every candidate must keep."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from vlinstruct.backend import Written
from vlinstruct.errors import TextError, UsageError
from vlinstruct.instruction import optimize
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Failed

from .conftest import FakeBackend

MODULE = sys.modules["vlinstruct.instruction.optimize"]  # the room has a function of that name
IAS, PAPER = OptimizationSettings(select="ias"), OptimizationSettings(select="paper")
TEXTS = ["what is it?", "How many 3?", "what is it?"]


class Drawing(FakeBackend):
    """Its sampled texts tell which draw they are, and its greedy ones none."""

    def write(self, rows, settings):
        written = super().write(rows, settings)
        if not settings.do_sample:
            return written
        return [replace(one, text=f"{one.text} Draw {row.draw}") for one, row in zip(written, rows, strict=True)]


def run(model, templates, texts, settings):
    return optimize(model, range(len(texts)), texts, templates=templates, settings=settings)


def judged(select="cross", **settings):
    return OptimizationSettings(select=select, when="always", **settings)


def test_the_users_own_variants_are_candidates(fake, templates):
    texts = ("Say what.", "what?", "Say what.", "Tell me: what?")
    model = fake(ias={"what?": 3.0, "Tell me: what?": 2.0, "Say what.": 1.0})
    (outcome,) = run(model, templates, ["what?"], replace(IAS, variants=texts))
    assert [variant.text for variant in outcome.variants] == [
        "Say what."
    ]  # each once, apart from what is there already
    assert (outcome.chosen, outcome.instruction) == ("variant 1", "Say what.")
    assert [call.images for call in model.called("score")] == [(0, 0, 0)]
    # The paper compares two instructions, however many there are.
    assert "Say what." not in model.called("compare")[0].prompts[0]


def test_a_variant_is_the_users_own_words_so_its_answer_alone_is_judged(fake, templates):
    model = fake(
        ias={"what is 3?": 3.0, "Tell me: what is 3?": 2.5, "Say what.": 2.0, "Say 3.": 0.5},
        cross={"no": 9.0, "yes": 0.1},
    )
    model.answers |= {"Say what.": "yes", "Say 3.": "no"}
    settings = judged(variants=("Say what.", "Say 3."))
    (outcome,) = run(model, templates, ["what is 3?"], settings)
    assert outcome.chosen == "variant 1"  # though it loses the number
    assert "variant 2 is answered by what hardly answers yours (9.0 nats)" in outcome.reason


def test_rewritings_are_sampled_beside_the_greedy_one(templates):
    plain, several = Drawing(), Drawing()
    (alone,) = run(plain, templates, ["what?"], IAS)
    (outcome,) = run(several, templates, ["what?"], replace(IAS, num_rewritings=4))
    assert [variant.text for variant in outcome.variants] == [f"Tell me: what? Draw {draw}" for draw in range(3)]
    assert outcome.rewritten == alone.rewritten
    greedy, sampled = several.called("rewrite")
    assert (greedy.generation.do_sample, sampled.generation.do_sample) == (False, True)
    assert [row.draw for row in sampled.rows] == [0, 1, 2]
    assert len(plain.called("rewrite")) == 1


def test_sampled_rewritings_are_the_same_in_a_batch_and_alone(templates):
    settings = replace(IAS, num_rewritings=3)
    together = run(Drawing(), templates, TEXTS, settings)
    for row, text in enumerate(TEXTS):
        assert optimize(Drawing(), [row], [text], templates=templates, settings=settings) == [together[row]]


def test_rewritings_can_be_sampled_with_the_picture_before_the_model(templates):
    model, settings = Drawing(), replace(IAS, num_rewritings=3, rewrite_seeing=True)
    run(model, templates, TEXTS, settings)
    greedy, sampled = model.called("rewrite")
    assert greedy.images == ()
    assert sampled.images == (0, 0, 1, 1, 2, 2)  # equal instructions are rewritten for each picture
    assert [row.draw for row in sampled.rows] == [0, 1, 0, 1, 0, 1]
    assert sampled.prompts[::2] == tuple(map(templates.rewrite_seeing_prompt, TEXTS))
    with pytest.raises(UsageError, match="num_rewritings of 2 or more"):
        replace(IAS, rewrite_seeing=True)


def test_blank_and_failed_samples_are_left_out(templates):
    class Silent(Drawing):
        def write(self, rows, settings):
            if settings.do_sample:
                failed = Failed(error=TextError("too long", code="text_too_long"))
                return [failed, Written(text=" \u200b"), Written(text=" Really? ")]
            return super().write(rows, settings)

    (outcome,) = run(Silent(), templates, ["what?"], replace(IAS, num_rewritings=4))
    assert [variant.text for variant in outcome.variants] == ["Really?"]


def test_words_to_keep_are_asked_of_what_the_model_wrote(fake, templates, monkeypatch):
    def changes(initial, candidate, keep=()):
        return [f"loses {word}" for word in keep if word in initial and word not in candidate]

    monkeypatch.setattr(MODULE, "content_changes", changes)
    model = fake(
        rewritten=lambda _: "the shape?", look=lambda *row: "left thing?", ias={"the shape?": 0.1, "left thing?": 0.2}
    )
    settings = replace(IAS, keep=("left", "absent"), variants=("other",))
    (outcome,) = run(model, templates, ["left shape?"], settings)
    assert (outcome.rewritten.faults, outcome.optimized.faults) == (("loses left",), ())
    assert outcome.variants[0].faults == ()
    assert outcome.optimized.faults == ()
    assert outcome.chosen == "optimized"


def test_what_stands_around_the_question_is_put_back(fake, templates, monkeypatch):
    monkeypatch.setattr(MODULE, "frame", lambda text: ("OCR: a. ", text[8:-8], " Answer:"))
    model = fake(look=lambda image, prompt, text: f"{text} Look")
    for settings in (IAS, judged(), judged("agree")):
        (outcome,) = run(model, templates, ["OCR: a. what? Answer:"], settings)
        texts = [scored.text for scored in outcome.by_role().values()]
        assert texts == [f"OCR: a. {text} Answer:" for text in ("what?", "Tell me: what?", "what? Look")]
    # The model rewrites and scores the question alone; answers are to all of it.
    assert {text for call in model.called("score") for text in call.texts} == {"what?", "Tell me: what?"}
    assert {prompt for call in model.called("judge") for prompt in call.prompts} == set(texts)
    (paper,) = run(model, templates, ["OCR: a. what? Answer:"], PAPER)
    assert paper.rewritten.text == "Tell me: OCR: a. what? Answer:"
