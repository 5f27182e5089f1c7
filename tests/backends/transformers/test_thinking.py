"""What a model thinks is never its answer, nor scored: tiny models whose weights are set to say a given text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from picture_fixtures import make_picture

import vlinstruct as vli
from vlinstruct.backend import Row, Written
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import good

PICTURE = make_picture(80, 60, seed=1)
QUESTION = "How many red dogs are there?"
THOUGHT = ("<think>", "Ġred", "Ġdo", "</think>")
ANSWER = ("Ġtwo", "Ġone", "<|im_end|>")


@pytest.mark.parametrize("think", [True, False])
def test_the_answer_is_what_stands_behind_the_thought(think: bool, saying: Callable[..., Path]) -> None:
    model = vli.load(saying(*THOUGHT, *ANSWER), device="cpu", think=think)
    rows = [Row(prompt=QUESTION, seen=(model.see(PICTURE),)), Row(prompt=QUESTION)]
    for outcome in model.backend.write(rows, GenerationSettings(max_new_tokens=10)):
        written = good(outcome)
        assert written.text == "two one"
        assert written.is_complete
        assert written.token_nll is not None
        assert len(written.token_nll) == len(ANSWER), "the likelihoods are those of the answer"
        assert written.usage.written == len(THOUGHT) + len(ANSWER), "what was thought was paid for"


def test_a_thought_takes_nothing_from_the_room_of_the_answer(saying: Callable[..., Path]) -> None:
    model = vli.load(saying(*THOUGHT, *ANSWER), device="cpu", think=True)
    (written,) = model.backend.write([Row(prompt=QUESTION)], GenerationSettings(max_new_tokens=1))
    assert good(written).text == "two"
    assert not good(written).is_complete


def test_a_thought_that_was_cut_is_no_answer(saying: Callable[..., Path]) -> None:
    model = vli.load(saying(*THOUGHT, *ANSWER), device="cpu")
    (written,) = model.backend.write([Row(prompt=QUESTION)], GenerationSettings(max_new_tokens=2))
    assert good(written).text == ""
    assert good(written).token_nll == ()
    assert not good(written).is_complete


@pytest.mark.parametrize("think", [True, False])
def test_no_thought_is_shown_while_it_is_written(think: bool, saying: Callable[..., Path]) -> None:
    model = vli.load(saying(*THOUGHT, *ANSWER), device="cpu", think=think)
    *pieces, written = model.backend.stream(Row(prompt=QUESTION), GenerationSettings(max_new_tokens=10))
    assert isinstance(written, Written)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == written.text == "two one"


def test_a_model_that_does_not_think_when_it_may_has_answered(saying: Callable[..., Path]) -> None:
    model = vli.load(saying(*ANSWER), device="cpu", think=True)
    (written,) = model.backend.write([Row(prompt=QUESTION)], GenerationSettings(max_new_tokens=10))
    assert good(written).text == "two one"
    assert good(written).is_complete


def test_a_thought_that_the_template_opens_is_no_answer(saying: Callable[..., Path]) -> None:
    # Without a switch, as that of Qwen3-VL-Thinking.
    folder = saying(*THOUGHT[1:], *ANSWER)
    template = folder / "chat_template.jinja"
    text = template.read_text()
    start = text.index("{% if enable_thinking")
    template.write_text(text[:start] + "<think>\n" + text[text.index("{% endif %}", start) + len("{% endif %}") :])
    settings = GenerationSettings(max_new_tokens=10)
    model = vli.load(folder, device="cpu", think=True)
    (written,) = model.backend.write([Row(prompt=QUESTION)], settings)
    assert good(written).text == "two one"
    assert good(written).is_complete
    assert len(good(written).token_nll or ()) == len(ANSWER)
    *pieces, streamed = model.backend.stream(Row(prompt=QUESTION), settings)
    assert streamed == written
    assert "".join(map(str, pieces)) == "two one"
    # Told not to think, its thought is closed for it before it begins, and nothing it writes is cut off.
    model = vli.load(folder, device="cpu")
    (written,) = model.backend.write([Row(prompt=QUESTION)], settings)
    assert good(written).text == "red do two one"


@pytest.mark.parametrize("think", [True, False])
def test_targets_are_scored_behind_a_closed_thought(think: bool, saying: Callable[..., Path]) -> None:
    # After any line break it says the answer, so that the answer is likely where nothing else stands before it.
    model = vli.load(saying(*ANSWER), device="cpu", think=think)
    ((scores,),) = [good(outcome) for outcome in model.backend.score([Row(prompt=QUESTION)], [[" two one"]])]
    assert len(scores.token_nll) == len(ANSWER)
    assert max(scores.token_nll) < 1e-3
