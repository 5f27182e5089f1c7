"""A server that can do what every OpenAI-compatible server can, and nothing else."""

from __future__ import annotations

from typing import Any

from serving.loopback import Reply


def plain_reply(path: str, body: Any, *, text: str = "red", logprob: float | None = -0.5) -> Reply:
    """Answers as a server without prompt log-probabilities does: it ignores what it does not know."""
    if path == "/v1/models":
        return 200, {"data": [{"id": "plain", "owned_by": "somebody"}]}, {}
    if path != "/v1/chat/completions":
        return 404, {"error": {"message": "no such route"}}, {}
    told = None
    if logprob is not None and body.get("logprobs"):
        told = {"content": [{"token": text, "logprob": logprob}]}
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": told}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}, {}
