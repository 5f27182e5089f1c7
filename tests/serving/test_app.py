from __future__ import annotations

import base64
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from picture_fixtures import make_picture as picture
from serving.loopback import scripted, serving
from tiny_models import same_nll

from vlinstruct.errors import ScoreError
from vlinstruct.model import Model, load
from vlinstruct.operations import Optimize
from vlinstruct.serving.app import ServeSettings
from vlinstruct.serving.gate import GateSettings
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Failed


@pytest.fixture(scope="module")
def here(tiny_folders: dict[str, Path]) -> Model:
    return load(tiny_folders["t5"], device="cpu")


@pytest.fixture(scope="module")
def url(here: Model) -> Iterator[str]:
    with serving(here) as url:
        yield url


def uri(seed: int = 0) -> str:
    buffer = io.BytesIO()
    picture(seed=seed).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def asking(question: str = "describe", *, seed: int = 0) -> list[Any]:
    parts = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": uri(seed)}}]
    return [{"role": "user", "content": parts}]


def post(url: str, body: Any, headers: Mapping[str, str] | None = None) -> tuple[int, Any, Mapping[str, str]]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply), reply.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


def test_an_unmodified_client_gets_the_answer_of_the_model(here: Model, url: str) -> None:
    client = openai.OpenAI(base_url=url, api_key="none")
    reply = client.chat.completions.create(model="tiny", messages=asking(), max_tokens=8, logprobs=True)
    ours = here.ask(picture(), "describe", generation=GenerationSettings(max_new_tokens=8))
    assert reply.choices[0].message.content == ours.text
    assert reply.choices[0].logprobs is not None
    told = [-one.logprob for one in reply.choices[0].logprobs.content or []]
    assert ours.token_nll is not None
    assert told == same_nll(ours.token_nll)
    assert reply.usage is not None
    assert reply.usage.completion_tokens == len(ours.token_nll)
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_an_unmodified_client_streams_the_answer(here: Model, url: str) -> None:
    client = openai.OpenAI(base_url=url, api_key="none")
    stream = client.chat.completions.create(
        model="tiny", messages=asking(), max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == here.ask(picture(), "describe", generation=GenerationSettings(max_new_tokens=8)).text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")
    assert chunks[-1].usage is not None


def test_an_optimized_answer_is_that_of_the_instruction_that_is_chosen(here: Model) -> None:
    optimization = OptimizationSettings(max_new_tokens=12)
    settings = ServeSettings(name="tiny", optimize=True, optimization=optimization)
    with serving(here, settings) as url:
        status, reply, headers = post(
            f"{url}/chat/completions", {"model": "tiny", "messages": asking(), "max_tokens": 8}
        )
    ours = here.ask(
        picture(), "describe", optimize=True, optimization=optimization, generation=GenerationSettings(max_new_tokens=8)
    )
    assert status == 200
    assert reply["choices"][0]["message"]["content"] == ours.text
    assert ours.optimization is not None
    assert reply["vlinstruct"]["instruction"] == ours.instruction
    assert headers["x-vlinstruct-chosen"] == ours.optimization.chosen == reply["vlinstruct"]["chosen"]


def test_an_optimized_answer_is_sampled_where_that_is_asked_for(here: Model) -> None:
    sampled = GenerationSettings(max_new_tokens=12, do_sample=True, temperature=1.5, seed=3)
    with serving(here, ServeSettings(name="tiny", optimize=True)) as url:
        body = {"messages": asking(), "max_tokens": 12, "temperature": 1.5, "seed": 3}
        _, reply, _ = post(f"{url}/chat/completions", body)
    ours = here.ask(picture(), "describe", optimize=True, generation=sampled)
    greedy = here.ask(picture(), "describe", optimize=True, generation=GenerationSettings(max_new_tokens=12))
    assert reply["choices"][0]["message"]["content"] == ours.text != greedy.text


def test_optimizing_a_conversation_answers_within_it(here: Model) -> None:
    settings = ServeSettings(name="tiny", optimize=True)
    first, *_ = asking("what is it?")
    messages = [{"role": "system", "content": "be short"}, first, {"role": "assistant", "content": "a sign"}]
    with serving(here, settings) as url:
        body = {"messages": [*messages, {"role": "user", "content": "which colour?"}], "max_tokens": 6}
        status, reply, _ = post(f"{url}/chat/completions", body)
        assert (status, reply["vlinstruct"]["initial"]["text"]) == (200, "which colour?")
        plain = post(f"{url}/chat/completions", {**body, "vlinstruct": {"optimize": False}})
    assert "vlinstruct" not in plain[1]


def test_a_follow_up_is_answered_as_a_whole_question(url: str) -> None:
    first, *_ = asking("what colour is the circle?")
    messages = [first, {"role": "assistant", "content": "red"}]

    def ask(question: str, **fields: Any) -> tuple[str, int]:
        body = {"messages": [*messages, {"role": "user", "content": question}], "max_tokens": 6, **fields}
        _, reply, _ = post(f"{url}/chat/completions", body)
        return reply["choices"][0]["message"]["content"], reply["usage"]["prompt_tokens"]

    assert ask("and the square?") == ask("what colour is the square?")
    # Who says what a Q-Former reads is asked just that.
    assert ask("and the square?", vlinstruct={"reads": "and the square?"})[1] < ask("and the square?")[1]


def test_a_server_before_one_that_scores_nothing_never_fails() -> None:
    from backends.server.plain_server import plain_reply

    with scripted(plain_reply) as plain, serving(load(plain.url), ServeSettings(name="plain", optimize=True)) as url:
        client = openai.OpenAI(base_url=url, api_key="none")
        reply = client.chat.completions.create(model="plain", messages=asking("color plz"))
        assert reply.choices[0].message.content == "red"
        status, refused, _ = post(f"{url}/score", {"image": uri(), "instructions": ["a"]})
    assert (status, refused["error"]["code"]) == (400, "usage")


def test_what_cannot_be_optimized_is_answered_as_typed(here: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Failed(error=ScoreError("the model gave no finite score"))
    monkeypatch.setattr(Model, "optimize_each", lambda self, seen, *rest, **more: [failed for _ in seen])
    with serving(here, ServeSettings(name="tiny", optimize=True)) as url:
        status, reply, headers = post(f"{url}/chat/completions", {"messages": asking(), "max_tokens": 8})
    ours = here.ask(picture(), "describe", generation=GenerationSettings(max_new_tokens=8))
    assert (status, reply["choices"][0]["message"]["content"]) == (200, ours.text)
    assert (headers["x-vlinstruct-chosen"], reply["vlinstruct"]["instruction"]) == ("initial", "describe")
    assert "non_finite_score" in reply["vlinstruct"]["reason"]


def test_ours_are_the_numbers_of_the_command_line(here: Model, url: str) -> None:
    status, reply, _ = post(f"{url}/score", {"model": "tiny", "image": uri(), "instructions": ["describe", "what?"]})
    scored = here.score(picture(), "describe", "what?")
    assert status == 200
    assert [one["ias"] for one in reply["scores"]] == pytest.approx([one.ias for one in scored], abs=2e-5)
    status, reply, headers = post(f"{url}/optimize", {"image": uri(), "instruction": "describe"})
    assert (status, reply["chosen"]) == (200, headers["x-vlinstruct-chosen"])


def test_one_request_answers_the_words_as_typed_and_as_chosen(here: Model, url: str) -> None:
    body = {"image": uri(), "instruction": "describe", "answer": True}
    status, record, headers = post(f"{url}/optimize", body)
    assert post(f"{url}/optimize", {**body, "answer": "yes"})[0] == 400
    (ours,) = Optimize(answer=True).run(here, here.see_each([picture()]), [["describe"]])
    assert (status, record, headers["x-vlinstruct-chosen"]) == (200, ours, record["chosen"])
    assert {"initial_answer", "initial_certainty", "answer", "certainty"} <= record.keys()


def test_many_clients_get_what_each_would_get_alone(here: Model, url: str) -> None:
    alone = {seed: here.ask(picture(seed=seed), "describe").text for seed in range(6)}

    def ask(seed: int) -> tuple[int, str]:
        reply = post(f"{url}/chat/completions", {"messages": asking(seed=seed)})[1]
        return seed, reply["choices"][0]["message"]["content"]

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, [seed for seed in alone for _ in range(6)]))
    assert all(alone[seed] == text for seed, text in answers)


def test_more_requests_than_allowed_are_told_to_come_back(here: Model) -> None:
    busy, free = threading.Event(), threading.Event()

    class Held(type(here.backend)):  # type: ignore[misc]
        def see(self, media: Any) -> Any:
            busy.set()
            free.wait(10)
            return here.backend.see(media)

    held = Held.__new__(Held)
    held.__dict__.update(vars(here.backend))
    settings = ServeSettings(name="tiny", gate=GateSettings(max_requests=1))
    with serving(Model(held), settings) as url, ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, f"{url}/chat/completions", {"messages": asking()})
        assert busy.wait(10)
        status, reply, headers = post(f"{url}/chat/completions", {"messages": asking()})
        free.set()
        assert first.result()[0] == 200
    assert (status, reply["error"]["code"], headers["Retry-After"]) == (429, "busy", "1")


def test_metrics_count_requests_by_route_and_status(here: Model) -> None:
    with serving(here) as url:
        post(f"{url}/chat/completions", {"messages": asking(), "max_tokens": 4})
        post(f"{url}/chat/completions", {"messages": []})
        with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=10) as reply:
            text = reply.read().decode()
    assert 'vlinstruct_requests_total{route="chat",status="200"} 1.0' in text
    assert 'vlinstruct_requests_total{route="chat",status="400"} 1.0' in text
    assert 'vlinstruct_tokens_total{kind="written"}' in text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"stop": ["a"] * 1000}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user", "content": "hi"}] * 2}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0]"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"model": "../../x"}, "model"),
        ({"prompt_logprobs": 5}, "prompt_logprobs"),
        ({"vlinstruct": {"shell": 1}}, "vlinstruct.shell"),
    ],
)
def test_a_field_at_fault_is_named(fields: Mapping[str, Any], param: str, url: str) -> None:
    status, reply, _ = post(f"{url}/chat/completions", {"messages": asking(), **fields})
    assert (status, reply["error"]["param"]) == (404 if param == "model" else 400, param)


def test_a_field_that_changes_nothing_is_taken(url: str) -> None:
    body = {"messages": asking(), "n": 1, "user": "me", "frequency_penalty": 0, "response_format": {"type": "text"}}
    assert post(f"{url}/chat/completions", {**body, "max_tokens": 2})[0] == 200


def test_an_answer_ends_in_front_of_a_stop(here: Model, url: str) -> None:
    text = here.ask(picture(), "describe").text
    stop = text[3:6]
    reply = post(f"{url}/chat/completions", {"messages": asking(), "stop": stop})[1]
    assert reply["choices"][0]["message"]["content"] == text[: text.index(stop)].rstrip()
