"""What was written or scored -> the JSON of OpenAI's chat completions, with vLLM's likelihoods of a prompt."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vlinstruct.backend import Written
from vlinstruct.serving.conversation import ChatRequest
from vlinstruct.values import TokenScores, Usage

_FIRST_TARGET_ID = 0
"""Ids in our answers count tokens: a client needs them to match rows, and our vocabularies are nobody's business."""


def new_id() -> str:
    """Names an answer."""
    return f"chatcmpl-{secrets.token_hex(12)}"


def error_body(message: str, *, code: str, param: str | None = None, status: int = 400) -> dict[str, Any]:
    """Returns OpenAI's JSON of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """Returns a text up to the first of some words.

    >>> cut_at_stop("red, blue", (",",)), cut_at_stop("red", ())
    ('red', 'red')
    """
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)].rstrip() if places else text


def completion(
    id: str, model: str, written: Written, request: ChatRequest, extra: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns the answer to a request that writes."""
    text = cut_at_stop(written.text, request.stop)
    is_stopped = written.is_complete or text != written.text
    told = logprobs_fields(written) if request.logprobs else None
    body = {
        "id": id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "logprobs": told,
                "finish_reason": "stop" if is_stopped else "length",
            }
        ],
        "usage": usage_fields(written.usage),
    }
    return body if extra is None else {**body, "vlinstruct": extra}


def logprobs_fields(written: Written) -> dict[str, Any] | None:
    """Returns the likelihood of every token that was written; None where the backend cannot tell."""
    if written.token_nll is None:
        return None
    # The spelling of single tokens stays with the backend: a client gets their likelihoods.
    return {"content": [{"token": "", "logprob": -nll, "bytes": None, "top_logprobs": []} for nll in written.token_nll]}


def scored_completion(id: str, model: str, scores: TokenScores, num_prompt_tokens: int) -> dict[str, Any]:
    """Returns the answer to a request that scores: rows of the prompt are null, those of the target are told.

    The form is vLLM's, `{id: {"logprob", "rank", "decoded_token"}}`, row by row; ids count the target's tokens.
    """
    ids = list(range(_FIRST_TARGET_ID, _FIRST_TARGET_ID + len(scores.tokens)))
    rows = [
        {str(id): {"logprob": -nll, "rank": None, "decoded_token": token}}
        for id, token, nll in zip(ids, scores.tokens, scores.token_nll, strict=True)
    ]
    return {
        "id": id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": usage_fields(Usage(prompt=num_prompt_tokens + len(ids), written=0)),
        "prompt_token_ids": [-1] * num_prompt_tokens + ids,
        "prompt_logprobs": [None] * num_prompt_tokens + rows,
    }


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Returns tokens read and written as OpenAI counts them."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.written,
        "total_tokens": usage.prompt + usage.written,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }


def chunk(
    id: str,
    model: str,
    delta: Mapping[str, Any] | None,
    *,
    finish_reason: str | None = None,
    logprobs: Mapping[str, Any] | None = None,
    usage: Usage | None = None,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Returns one event of a stream."""
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    body: dict[str, Any] = {
        "id": id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": [] if delta is None else [choice],
    }
    if usage is not None:
        body["usage"] = usage_fields(usage)
    if extra is not None:
        body["vlinstruct"] = extra
    return event(body)


def event(body: Mapping[str, Any]) -> bytes:
    """Returns JSON as one server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, allow_nan=False).encode() + b"\n\n"


END = b"data: [DONE]\n\n"
