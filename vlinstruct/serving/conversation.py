"""A chat request's JSON -> what to write or to score, and about which picture. Every field is checked by its name.

What OpenAI's clients send and this server does not do is refused where it would change the answer, and ignored where it
would not: a client that asks for two choices must not believe that it got them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlinstruct.errors import InputError, NetworkError, VlinstructError, shortened
from vlinstruct.media.fetch import Url, fetch
from vlinstruct.media.load import LoadedMedium, MediaSettings, load_medium
from vlinstruct.settings import MAX_NEW_TOKENS, GenerationSettings
from vlinstruct.text import MAX_INSTRUCTION_CHARACTERS, check_instruction
from vlinstruct.values import Abilities, Exchange

MAX_MESSAGES = 128
MAX_STOPS = 4
_MAX_STOP_CHARACTERS = 64

# What changes no answer here.
_IGNORED = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
    | {"chat_template_kwargs", "logprob_token_ids", "mm_processor_kwargs", "priority", "request_id", "verbosity"}
)
# What would change one, with the values at which it does not.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "top_logprobs": (None, 0),
    "top_k": (None, -1, 0),
    "min_p": (None, 0),
    "min_tokens": (None, 0),
    "ignore_eos": (None, False),
    "echo": (None, False),
    "skip_special_tokens": (None, True),
    "reasoning_effort": (None, "none"),
}
_KNOWN = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "stream"}
    | {"stream_options", "logprobs", "prompt_logprobs", "continue_final_message", "add_generation_prompt"}
    | {"return_token_ids", "return_tokens_as_token_ids", "repetition_penalty", "vlinstruct"}
)


_DATA = re.compile(r"data:(image/[\w.+-]{1,40})?(;[\w=.-]{1,40})*;base64,", re.ASCII)


class BadRequest(Exception):
    """A request that is refused.

    Args:
        message: why, in one line of our own words.
        param: the field at fault; None where it is the whole.
        status: HTTP's.
        code: a stable word for machines.
    """

    def __init__(
        self, message: str, param: str | None = None, *, status: int = 400, code: str = "invalid_request"
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """What a client asks for.

    Args:
        prompt: the last thing that the user said.
        history: what was said before it.
        system: what stands in front.
        pictures: their URLs, as sent.
        target: what an assistant has begun to say, to be scored; None to write.
        settings: how the answer is generated.
        stop: the answer ends in front of the first of these.
        streams: piece by piece.
        tells_usage: a stream ends with the usage.
        logprobs: tell the likelihood of every token that is written.
        prompt_logprobs: tell the likelihoods of the target.
        reads: what a Q-Former reads; the prompt if None.
        with_end: the end token belongs to the target.
        optimize: whether the instruction is optimized first; as the server was started if None.
    """

    prompt: str
    history: tuple[Exchange, ...]
    system: str
    pictures: tuple[str, ...]
    target: str | None
    settings: GenerationSettings
    stop: tuple[str, ...]
    streams: bool
    tells_usage: bool
    logprobs: bool
    prompt_logprobs: bool
    reads: str | None
    with_end: bool
    optimize: bool | None


def parse_chat(body: object) -> ChatRequest:
    """Reads the body of a chat request.

    Raises:
        BadRequest: it is none, with the field at fault.
    """
    fields = object_of(body, "the body")
    for name, value in fields.items():
        if name in _NEUTRAL:
            if value not in _NEUTRAL[name] or (isinstance(value, bool) and not isinstance(_NEUTRAL[name][-1], bool)):
                raise BadRequest("this server does not do that", name)
        elif name not in _KNOWN | _IGNORED:
            raise BadRequest("unknown field", shortened(name, 60))
    own = object_of(fields.get("vlinstruct") or {}, "vlinstruct")
    unknown = [name for name in own if name not in ("reads", "with_end", "optimize")]
    if unknown:
        raise BadRequest("unknown field", f"vlinstruct.{shortened(unknown[0], 60)}")
    system, turns, pictures = _turns_of(fields.get("messages"))
    target = None
    if boolean(fields, "continue_final_message"):
        if not turns or turns[-1][0] != "assistant":
            raise BadRequest("the last message must be the assistant's", "messages")
        if boolean(fields, "add_generation_prompt"):
            raise BadRequest("it excludes continue_final_message", "add_generation_prompt")
        target = turns.pop()[1]
    asks = fields.get("prompt_logprobs")
    if asks is not None and (isinstance(asks, bool) or asks not in (0, 1)):
        raise BadRequest("it must be 0 or 1: only the likelihood of each token itself is told", "prompt_logprobs")
    if asks is None and target is not None:
        raise BadRequest("it needs prompt_logprobs: this server scores what was begun, and does not go on with it")
    if asks is not None and target is None:
        target = ""
    prompt, history = _conversation_of(turns)
    options = object_of(fields.get("stream_options") or {}, "stream_options")
    streams = boolean(fields, "stream")
    if streams and asks is not None:
        raise BadRequest("it excludes prompt_logprobs", "stream")
    reads = own.get("reads")
    if reads is not None and not isinstance(reads, str):
        raise BadRequest("it must be a text", "vlinstruct.reads")
    return ChatRequest(
        prompt=_text(prompt, "messages"),
        history=history,
        system=system,
        pictures=pictures,
        target=target,
        settings=settings_of(fields),
        stop=_stops_of(fields.get("stop")),
        streams=streams,
        tells_usage=boolean(options, "include_usage"),
        logprobs=boolean(fields, "logprobs"),
        prompt_logprobs=asks is not None,
        reads=None if reads is None else _usable(reads, "vlinstruct.reads"),
        with_end=boolean(own, "with_end"),
        optimize=None if own.get("optimize") is None else boolean(own, "optimize"),
    )


def object_of(value: object, param: str) -> Mapping[str, Any]:
    """Returns a JSON object, or refuses what is none."""
    if not isinstance(value, dict):
        raise BadRequest("it must be a JSON object", param)
    return value


def boolean(fields: Mapping[str, Any], name: str) -> bool:
    """Returns a field that is true or false; false where it is missing."""
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest("it must be true or false", name)
    return bool(value)


def settings_of(fields: Mapping[str, Any]) -> GenerationSettings:
    """Reads how an answer is generated; OpenAI's temperature of 1 is sampling, and 0 is greedy.

    A client that says nothing gets a greedy answer, as every command here gives: the same question, the same words.
    """
    most = fields.get("max_completion_tokens") if fields.get("max_tokens") is None else fields.get("max_tokens")
    temperature = number(fields, "temperature", 0.0, 2.0, default=0.0)
    top_p = number(fields, "top_p", 0.0, 1.0, default=1.0)
    penalty = number(fields, "repetition_penalty", 0.0, 10.0, default=1.0)
    samples = temperature > 0 and top_p > 0
    try:
        return GenerationSettings(
            max_new_tokens=64 if most is None else _integer(most, "max_tokens", 1, MAX_NEW_TOKENS),
            do_sample=samples,
            temperature=temperature if samples else 1.0,
            top_p=top_p if samples else 1.0,
            repetition_penalty=penalty,
            seed=_integer(0 if fields.get("seed") is None else fields["seed"], "seed", 0, 2**64 - 1),
        )
    except VlinstructError as error:
        raise BadRequest(error.message) from error


def number(fields: Mapping[str, Any], name: str, least: float, most: float, *, default: float) -> float:
    """Returns a field that is a number in a range."""
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest("it must be a number", name)
    if not least <= value <= most:  # of any length: a whole number of 400 digits is no float
        raise BadRequest(f"it must be {least:g} to {most:g}", name)
    return float(value)


def _integer(value: object, name: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadRequest(f"it must be a whole number, {least} to {most}", name)
    return value


def _stops_of(value: object) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise BadRequest(f"it must be at most {MAX_STOPS} texts", "stop")
    if not all(isinstance(stop, str) and 0 < len(stop) <= _MAX_STOP_CHARACTERS for stop in stops):
        raise BadRequest(f"each must be a text of 1 to {_MAX_STOP_CHARACTERS} characters", "stop")
    return tuple(stops)


def _turns_of(value: object) -> tuple[str, list[tuple[str, str]], tuple[str, ...]]:
    """Returns what the system says, who says what after that, and the pictures."""
    if not isinstance(value, list) or not value:
        raise BadRequest("it must be a list of messages", "messages")
    if len(value) > MAX_MESSAGES:
        raise BadRequest(f"it must be at most {MAX_MESSAGES} messages", "messages")
    system, turns, pictures = "", [], []
    for place, item in enumerate(value):
        param = f"messages[{place}]"
        message = object_of(item, param)
        role = message.get("role")
        text, urls = _content_of(message.get("content"), param)
        if role in ("system", "developer") and place == 0 and not urls:
            system = text
        elif role in ("user", "assistant") and not (urls and role == "assistant"):
            turns.append((role, text))
            pictures += urls
        else:
            raise BadRequest("it must be the user's or the assistant's; one of the system may come first", param)
    return system, turns, tuple(pictures)


def _content_of(content: object, param: str) -> tuple[str, list[str]]:
    """Returns a message's text, its parts joined by line breaks as vLLM joins them, and the URLs of its pictures."""
    if isinstance(content, str):
        return _usable(content, param), []
    if not isinstance(content, list) or not content:
        raise BadRequest("its content must be a text or a list of parts", param)
    texts, urls = [], []
    for place, part in enumerate(content):
        name = f"{param}.content[{place}]"
        fields = object_of(part, name)
        if fields.get("type") == "text" and isinstance(fields.get("text"), str):
            texts.append(_usable(fields["text"], name))
        elif fields.get("type") == "image_url":
            picture = fields.get("image_url")
            url = picture.get("url") if isinstance(picture, dict) else picture
            if not isinstance(url, str):
                raise BadRequest("image_url must have a url", name)
            urls.append(url)
        else:
            raise BadRequest("a part must be a text or an image_url", name)
    return "\n".join(texts), urls


def _usable(text: str, param: str) -> str:
    if "\0" in text:
        raise BadRequest("its text holds a NUL", param)
    if len(text) > MAX_INSTRUCTION_CHARACTERS:
        raise BadRequest(f"its text may have at most {MAX_INSTRUCTION_CHARACTERS:,} characters", param)
    return text


def _conversation_of(turns: Sequence[tuple[str, str]]) -> tuple[str, tuple[Exchange, ...]]:
    """Returns the last question, and the exchanges before it."""
    roles = [role for role, _ in turns]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise BadRequest("user and assistant must take turns, the user first and last", "messages")
    texts = [text for _, text in turns]
    pairs = zip(texts[:-1:2], texts[1::2], strict=True)
    return texts[-1], tuple(Exchange(question=question, answer=answer) for question, answer in pairs)


def _text(text: str, param: str) -> str:
    try:
        return check_instruction(text, what="text")
    except VlinstructError as error:
        raise BadRequest(error.message, param) from error


def load_picture(url: str, *, allow_urls: bool, settings: MediaSettings, abilities: Abilities) -> LoadedMedium:
    """Reads a picture that a client sent, or named.

    Args:
        url: a data URI; or an http(s) URL of a public host where `allow_urls`.
        allow_urls: open connections for clients.
        settings: limits.
        abilities: of the backend.

    Raises:
        BadRequest: it cannot be read, or may not be.
    """
    try:
        return load_medium(_content(url, allow_urls), settings=settings, abilities=lambda: abilities)
    except (InputError, NetworkError) as error:
        raise BadRequest(error.message, "image_url", code=error.code) from error


def _content(url: str, allow_urls: bool) -> bytes:
    if (head := _DATA.match(url)) is not None:
        try:
            return base64.b64decode(url[head.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest("its base64 is damaged", "image_url") from error
    if url.lower().startswith(("http://", "https://")):
        if not allow_urls:
            raise BadRequest("pictures must be data URIs: this server fetches none", "image_url", code="url_refused")
        # Not typed by this machine's user: public hosts only, also behind redirects.
        return fetch(Url(address=url))
    raise BadRequest("a picture must be a data URI of an image in base64", "image_url")
