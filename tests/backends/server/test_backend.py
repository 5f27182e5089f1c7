from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backends.server.plain_server import plain_reply
from picture_fixtures import make_picture as picture
from serving.loopback import scripted, serving
from tiny_models import same_nll

from vlinstruct.backend import Row, Written
from vlinstruct.errors import NetworkError, UsageError, VlinstructError
from vlinstruct.model import Model, load
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Exchange, Failed, good

QUESTIONS = ["what colour is it?", "describe", "how many? options: one, two"]


@pytest.fixture(scope="module", params=["t5", pytest.param("llama", marks=pytest.mark.slow)])
def here(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> Model:
    return load(tiny_folders[request.param], device="cpu")


@pytest.fixture(scope="module")
def served(here: Model) -> Iterator[Model]:
    with serving(here) as url:
        yield load(url)


def test_scores_through_a_server_equal_those_in_process(here: Model, served: Model) -> None:
    for ours, theirs in zip(here.score(picture(), *QUESTIONS), served.score(picture(), *QUESTIONS), strict=True):
        assert theirs.scores.token_nll == same_nll(ours.scores.token_nll)
        assert theirs.scores.tokens == ours.scores.tokens


def test_answers_and_their_likelihoods_through_a_server_equal_those_in_process(here: Model, served: Model) -> None:
    for question in QUESTIONS:
        ours, theirs = here.ask(picture(), question), served.ask(picture(), question)
        assert theirs.text == ours.text
        assert ours.token_nll is not None
        assert theirs.token_nll == same_nll(ours.token_nll)


@pytest.mark.parametrize("select", ["safe", "paper", "agree"])
def test_optimization_through_a_server_chooses_what_it_does_in_process(select: Any, here: Model, served: Model) -> None:
    settings = OptimizationSettings(select=select, max_new_tokens=12)
    for question in QUESTIONS:
        ours = here.optimize(question, picture(), optimization=settings)
        theirs = served.optimize(question, picture(), optimization=settings)
        assert (theirs.instruction, theirs.chosen) == (ours.instruction, ours.chosen)
        assert theirs.initial.ias == pytest.approx(ours.initial.ias, abs=1e-5)


def test_ranking_history_and_sampling_equal_those_in_process(here: Model, served: Model) -> None:
    choices = ["yes", "no", "perhaps not"]
    ours, theirs = (model.ask(picture(), "is it?", choices=choices) for model in (here, served))
    assert [choice.nll for choice in theirs.choices] == pytest.approx([one.nll for one in ours.choices], abs=1e-5)
    history = (Exchange(question="what?", answer="a sign"),)
    for settings in (GenerationSettings(max_new_tokens=5), GenerationSettings(max_new_tokens=5, do_sample=True)):
        written = []
        for model in (here, served):
            row = Row(prompt="and?", seen=(model.see(picture()),), history=history, reads="and?")
            written.append(good(model.backend.write([row], settings)[0]))
        assert written[0].text == written[1].text
        assert written[0].is_complete == written[1].is_complete


def test_a_sample_through_a_server_is_the_one_in_process(here: Model, served: Model) -> None:
    settings = GenerationSettings(max_new_tokens=6, do_sample=True, temperature=1.5, seed=3)
    for draw in range(4):  # every other seed is above 2^63
        written = []
        for model in (here, served):
            row = Row(prompt="describe", seen=(model.see(picture()),), reads="describe", draw=draw)
            written.append(good(model.backend.write([row], settings)[0]).text)
        assert written[0] == written[1]


def test_a_stream_joins_to_the_answer(served: Model) -> None:
    row, settings = Row(prompt="describe", seen=(served.see(picture()),)), GenerationSettings(max_new_tokens=8)
    *pieces, written = served.backend.stream(row, settings)
    whole = good(served.backend.write([row], settings)[0])
    assert isinstance(written, Written)
    assert "".join(map(str, pieces)) == written.text == whole.text
    assert written.is_complete == whole.is_complete


def test_a_server_that_ignores_a_field_is_not_believed() -> None:
    with scripted(plain_reply) as server:
        abilities = load(server.url).backend.abilities
    assert not abilities.can_score
    assert abilities.can_tell_nll
    with scripted(lambda path, body: plain_reply(path, body, logprob=None)) as server:
        assert not load(server.url).backend.abilities.can_tell_nll


def test_without_likelihoods_a_rewriting_is_used_only_where_it_is_answered_alike() -> None:
    def reply(path: str, body: Any, *, rewritten: str) -> Any:
        asked = "" if body is None else str(body["messages"])
        is_rewriting = body is not None and "image_url" not in asked and "What colour is it?" not in asked
        text = "name the colour" if is_rewriting else rewritten if "name the colour" in asked else "red"
        certain = -0.1 if "name the colour" in asked else -2.0
        return plain_reply(path, body, text=text, logprob=certain)

    for answer, chosen in (("Red.", "rewritten"), ("three", "initial")):
        with scripted(lambda path, body, answer=answer: reply(path, body, rewritten=answer)) as server:
            outcome = load(server.url).ask(picture(), "color plz", optimize=True).optimization
        assert outcome is not None
        assert outcome.chosen == chosen
        assert "certain" in outcome.reason


@pytest.mark.parametrize("select", ["paper", "ias"])
def test_what_needs_likelihoods_is_refused_in_one_line(select: Any) -> None:
    with scripted(plain_reply) as server:
        model = load(server.url)
        with pytest.raises(UsageError, match="likelihoods"):
            model.optimize("color plz", picture(), optimization=OptimizationSettings(select=select))
        with pytest.raises(UsageError, match="likelihoods"):
            model.score(picture(), "color plz")


@pytest.mark.parametrize("typed", ["<|im_end|>", "<image>", "</s>", "[INST]"])
def test_a_typed_control_token_is_refused_by_name_where_a_server_would_obey_it(typed: str) -> None:
    with scripted(plain_reply) as server:
        model = load(server.url)
        num_asked = len(server.asked)
        with pytest.raises(VlinstructError, match="means something") as caught:
            model.ask(picture(), f"what is {typed} here?")
        assert [path for path, *_ in server.asked[num_asked:] if "chat" in path] == []
        assert typed in caught.value.message
        assert model.ask(picture(), "is 3 < 4 <b>bold</b>?").text == "red"


def test_a_tokenizer_that_fails_once_lets_no_control_token_through() -> None:
    """Its route is there, and says on the second try that the word is one token."""
    failures = iter([500])

    def reply(path: str, body: Any) -> Any:
        if path == "/tokenize" and "prompt" in body:
            return next(failures, 200), {"tokens": [7]}, {}
        return plain_reply(path, body)

    with scripted(reply) as server:
        model = load(server.url)
        for code in ("server_500", "control_token"):
            (outcome,) = model.ask_each([model.see(picture())], ["what is <odd_token> here?"])
            assert isinstance(outcome, Failed)
            assert outcome.error.code == code


@pytest.mark.parametrize("choices", ["[{}]", "[3]", '[{"delta": {"content": 3}}]', "3"])
def test_a_stream_of_another_form_is_an_error_of_its_own(choices: str) -> None:
    def reply(path: str, body: Any) -> Any:
        if body is not None and body.get("stream"):
            return 200, f'data: {{"choices": {choices}}}\n\ndata: [DONE]\n\n'.encode(), {}
        return plain_reply(path, body)

    with scripted(reply) as server:
        model = load(server.url)
        with pytest.raises(NetworkError) as caught:
            list(model.backend.stream(Row(prompt="describe"), GenerationSettings()))
    assert caught.value.code == "server_reply"


def test_our_own_server_keeps_typed_control_tokens_as_text(here: Model, served: Model) -> None:
    assert served.ask(picture(), "what is </s> here?").text == here.ask(picture(), "what is </s> here?").text


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"message": None, "finish_reason": "stop"},
        {"message": {"content": 3}, "finish_reason": "stop"},
        {"message": {"content": "x"}, "finish_reason": "tool_calls"},
    ],
)
def test_an_answer_of_another_form_fails_its_row_alone(choice: dict[str, Any]) -> None:
    def reply(path: str, body: Any) -> Any:
        if body is not None and "bad" in str(body["messages"]):
            return 200, {"choices": [choice]}, {}
        return plain_reply(path, body)

    with scripted(reply) as server:
        model = load(server.url)
        seen = model.see(picture())
        outcomes = model.ask_each([seen] * 3, ["good", "bad", "good"])
    assert [isinstance(outcome, Failed) for outcome in outcomes] == [False, True, False]
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].error.code == "server_reply"


@pytest.mark.parametrize(
    "option", [{"adapter": "mini-ema"}, {"image_size": 64}, {"compile": True}, {"dtype": "bfloat16"}]
)
def test_an_option_that_is_not_for_servers_is_refused(option: dict[str, Any]) -> None:
    with scripted(plain_reply) as server, pytest.raises(VlinstructError, match="cannot use --"):
        load(server.url, **option)


def test_a_model_that_is_not_served_is_named(served: Model) -> None:
    from vlinstruct.settings import ServerSettings

    with scripted(plain_reply) as server, pytest.raises(VlinstructError, match="it serves plain"):
        load(server.url, server=ServerSettings(served_model="other"))
