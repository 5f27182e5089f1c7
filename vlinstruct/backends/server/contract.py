"""What a server can do: asked once, before the first item, and believed only where the answer shows it.

Servers ignore fields they do not know: llama.cpp scores every `echo` 0.0, `transformers serve` drops `logprobs` with a
line in its own log, SGLang's chat knows no `prompt_logprobs`. So an ability is what came back, never what was accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vlinstruct.backends.server.connection import Connection, Request
from vlinstruct.errors import InputError, NetworkError, shortened
from vlinstruct.values import Failed, Usage

CHAT = "/chat/completions"
TOKENIZE = "//tokenize"
GENERATE = "//inference/v1/generate"

_QUESTION = {"role": "user", "content": "What colour is it?"}
_ANSWER = {"role": "assistant", "content": "It is green"}

_NUM_TRIES = 3

Kind = Literal["vllm", "vlinstruct", "other"]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a server can do.

    Args:
        kind: which extra fields it understands: vLLM's, ours, or none.
        model: what it calls the model.
        max_tokens: of prompt and answer together; None where it does not say.
        can_score: it tells the likelihood of a given text.
        can_tell_nll: it tells the likelihood of what it wrote.
        can_write_alone: it answers without a picture.
        tells_usage: it counts tokens.
        end_id: the token that ends an answer; None where it is not known.
    """

    kind: Kind = "other"
    model: str
    max_tokens: int | None = None
    can_score: bool = False
    can_tell_nll: bool = False
    can_write_alone: bool = True
    tells_usage: bool = False
    end_id: int | None = None

    def describe(self, url: str) -> str:
        """Returns one line about it, for the user.

        >>> Contract(model="tiny").describe("http://a/v1")
        'http://a/v1 serves tiny; it tells no likelihoods, so instructions are chosen by their texts and answers alone'
        """
        if self.can_score and self.can_tell_nll:
            tells = "it scores given texts and tells the likelihoods of its answers"
        elif self.can_tell_nll:
            tells = "it tells the likelihoods of its answers but scores no given text, so there is no IAS"
        else:
            tells = "it tells no likelihoods, so instructions are chosen by their texts and answers alone"
        return f"{shortened(url, 80)} serves {shortened(self.model, 60)}; {tells}"


def find_contract(connection: Connection, served_model: str | None) -> Contract:
    """Asks a server what it can do.

    Args:
        connection: to it.
        served_model: what it calls the model; the only one that it serves if None.

    Raises:
        NetworkError: it does not answer.
        InputError: it is no such server, or does not serve that model.
    """
    model, listed = _model_of(connection, served_model)
    kind: Kind = "other"
    if listed.get("owned_by") == "vlinstruct":
        kind = "vlinstruct"
    elif listed.get("owned_by") == "vllm":
        kind = "vllm"
    length = listed.get("max_model_len")
    written = _probe_writing(connection, model, kind)
    can_score, end_id = _probe_scoring(connection, model, kind)
    return Contract(
        kind=kind,
        model=model,
        max_tokens=length if isinstance(length, int) else None,
        can_score=can_score,
        can_tell_nll=written is not None and bool(logprobs_of(written)),
        can_write_alone=written is not None,
        tells_usage=written is not None and isinstance(written.get("usage"), Mapping),
        end_id=end_id,
    )


def _model_of(connection: Connection, served_model: str | None) -> tuple[str, Mapping[str, Any]]:
    """Returns the model's name, and what the server lists about it."""
    url = connection.urls[0]
    (listed,) = connection.call_each([Request(path="/models")])
    if isinstance(listed, Failed):
        # A list that fails is no obstacle where the model is named: `transformers serve` answers 500 without a cache.
        if listed.error.code not in ("server_500", "server_404", "server_405", "server_501"):
            raise listed.error
        listed = {}
    data = listed.get("data") if isinstance(listed, Mapping) else None
    models = {
        one["id"]: one
        for one in (data if isinstance(data, list) else [])
        if isinstance(one, Mapping) and isinstance(one.get("id"), str)
    }
    if served_model is not None:
        if models and served_model not in models:
            why = f"it serves {shortened(', '.join(models), 100)}"
            raise InputError.at("no such model", served_model, why, "Give --served-model one of these")
        return served_model, models.get(served_model, {})
    if len(models) == 1:
        return next(iter(models.items()))
    why = f"it serves {shortened(', '.join(models), 100)}" if models else "it lists no models"
    advice = "Name one with --served-model"
    if not models and not url.endswith("/v1"):
        advice += f", or give {url.partition('/v1/')[0].rstrip('/')}/v1, where such servers answer"
    raise InputError.at("which model", url, why, advice, code="served_model")


def _probe_writing(connection: Connection, model: str, kind: Kind) -> Mapping[str, Any] | None:
    """Lets the server write two tokens without a picture; returns its answer, or None where it refuses."""
    plain = {"model": model, "messages": [_QUESTION], "max_tokens": 2, "temperature": 0}
    for extra in ({"logprobs": True}, {}):  # some refuse a field, others ignore it
        reply = _definite(connection, {**plain, **extra})
        if not isinstance(reply, Failed):
            return dict(reply)
        if reply.error.code in ("server_key", "server_404"):
            raise reply.error
    return None


def _definite(connection: Connection, body: Mapping[str, Any]) -> Any | Failed:
    """Returns a chat's answer, or that the server refuses it; what merely failed is asked again.

    A server that fails once while it is asked what it can do must not count as one that cannot.

    Raises:
        NetworkError: it goes on failing.
    """
    for place in range(_NUM_TRIES):
        (reply,) = connection.call_each([Request(path=CHAT, body=body)])
        try:
            if not isinstance(reply, Failed):
                choice_of(reply, connection.urls[0])
                return reply
            if not isinstance(reply.error, NetworkError):
                return reply
            raise reply.error
        except NetworkError:
            if place + 1 == _NUM_TRIES:
                raise
    raise AssertionError


def _probe_scoring(connection: Connection, model: str, kind: Kind) -> tuple[bool, int | None]:
    """Returns whether the server scores given texts, and the token that ends an answer."""
    if kind == "vlinstruct":
        body = scoring_body(model, [_QUESTION], str(_ANSWER["content"]), {"vlinstruct": {"with_end": True}})
        reply = _definite(connection, body)
        return not isinstance(reply, Failed) and isinstance(reply.get("prompt_logprobs"), list), None
    asked = [
        {"messages": [_QUESTION], "add_generation_prompt": True},
        {"messages": [_QUESTION, _ANSWER], "add_generation_prompt": False, "continue_final_message": True},
        {"messages": [_QUESTION, _ANSWER], "add_generation_prompt": False},
    ]
    replies = connection.call_each([Request(path=TOKENIZE, body={"model": model, **body}) for body in asked])
    for reply in replies:
        if isinstance(reply, Failed) and isinstance(reply.error, NetworkError):
            raise reply.error
    head, opened, closed = map(ids_of, replies)
    # What stands behind an answer begins with the token that ends it.
    if not head or opened[: len(head)] != head or closed[: len(opened)] != opened or len(closed) <= len(opened):
        return False, None
    end_id, target = closed[len(opened)], opened[len(head) :]
    body = scoring_body(model, [_QUESTION], _ANSWER["content"], {"logprob_token_ids": [end_id]})
    reply = _definite(connection, body)
    if isinstance(reply, Failed):
        return False, None
    rows, read = reply.get("prompt_logprobs"), reply.get("prompt_token_ids")
    if not isinstance(rows, list) or not isinstance(read, list):
        return False, None
    return read[-len(target) :] == target and any(rows[-len(target) :]), end_id


def scoring_body(
    model: str, messages: Sequence[Mapping[str, Any]], target: str, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the request that scores a target as what an assistant has begun to say (vLLM's chat route).

    One token is generated, since vLLM refuses to generate none; its own likelihoods are those of the end token.
    """
    said = [{"role": "assistant", "content": target}] if target else []
    return {
        "model": model,
        "messages": [*messages, *said],
        "add_generation_prompt": not said,
        "continue_final_message": bool(said),
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "logprobs": True,
        **extra,
    }


def choice_of(reply: Any, url: str) -> Mapping[str, Any]:
    """Returns the first choice of a chat's answer.

    Raises:
        NetworkError: it is none.
    """
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        raise bad_reply(url)
    return choice


def logprobs_of(reply: Any) -> list[Mapping[str, Any]] | None:
    """Returns what an answer tells of each of its tokens; None where it tells nothing, or not of all of them."""
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    told = choice.get("logprobs") if isinstance(choice, Mapping) else None
    content = told.get("content") if isinstance(told, Mapping) else None
    if not isinstance(content, list) or not content:
        return None
    if not all(isinstance(one, Mapping) and is_logprob(one.get("logprob")) for one in content):
        return None
    return content


def is_logprob(value: object) -> bool:
    """Says whether a value of JSON can be a log-probability; a whole number of 400 digits is no float.

    >>> is_logprob(-9999), is_logprob(True), is_logprob(-(10**400)), is_logprob(None)
    (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9


def score_of(row: object, token: int, url: str) -> tuple[str, float]:
    """Returns a token's spelling and its nats from what is told of it: `{id: {logprob, rank, decoded_token}}`.

    Raises:
        NetworkError: nothing is.
    """
    told = row.get(str(token)) if isinstance(row, Mapping) else None
    if not isinstance(told, Mapping) or not is_logprob(told.get("logprob")):
        raise bad_reply(url)
    return str(told.get("decoded_token") or ""), -float(told["logprob"])


def cached_tokens_of(reply: Any) -> int | None:
    """Returns how many tokens of a prompt were not computed anew; None where the server does not say."""
    usage = reply.get("usage") if isinstance(reply, Mapping) else None
    details = usage.get("prompt_tokens_details") if isinstance(usage, Mapping) else None
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    return cached if isinstance(cached, int) else None


def usage_of(reply: Any) -> Usage:
    """Returns the tokens of a call; 0 where the server does not count."""
    usage = reply.get("usage") if isinstance(reply, Mapping) else None
    counts = usage if isinstance(usage, Mapping) else {}
    prompt, written = (counts.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return Usage(
        prompt=prompt if isinstance(prompt, int) else 0,
        cached=cached_tokens_of(reply) or 0,
        written=written if isinstance(written, int) else 0,
    )


def ids_of(reply: Any) -> list[int]:
    """Returns the ids of a `/tokenize`; none where the server does not know it."""
    tokens = reply.get("tokens") if isinstance(reply, Mapping) else None
    return tokens if isinstance(tokens, list) and all(isinstance(token, int) for token in tokens) else []


def bad_reply(url: str) -> NetworkError:
    """Returns the error of an answer that is JSON and yet not what was asked for."""
    why = "its answer is not that of an OpenAI-compatible server"
    return NetworkError.at("the server failed", url, why, "Check the URL", code="server_reply")
