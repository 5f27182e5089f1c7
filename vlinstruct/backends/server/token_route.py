"""vLLM's route for token ids (`--enable-scale-out`): our own literal tokens in, one picture read once for all of AIO.

A conversation is tokenized by the server with a stand-in for its picture, since a picture's content moves no token;
then each run of picture tokens becomes the one placeholder that the route expands itself. So a picture goes out with
the request that needs it, never to be tokenized, and what a user types stays text.

The prefix cache is read, which vLLM does not do by itself for requests that ask for a prompt's likelihoods: rows of
cached tokens hold whatever was in memory (vLLM issue 42019), so only rows behind them are used.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from vlinstruct.backend import Row, Written
from vlinstruct.backends.server.connection import Connection, Request
from vlinstruct.backends.server.contract import (
    CHAT,
    GENERATE,
    TOKENIZE,
    Contract,
    bad_reply,
    cached_tokens_of,
    ids_of,
    logprobs_of,
    score_of,
    scoring_body,
    usage_of,
)
from vlinstruct.backends.server.messages import SentPicture, messages_of, not_literal, pictures_of, sampling_of
from vlinstruct.errors import NetworkError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed, TokenScores

_GUARD = "\ue0f0"  # a private character, so that no word of a vocabulary holds it
_STAND_IN = SentPicture.of(Image.new("RGB", (112, 112), "grey"))
_MAX_REMEMBERED = 16_384
_MOST_APART = 0.02  # nats a token, in bfloat16


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What the route needs to know of a model.

    Args:
        placeholder_id: of a picture.
        end_id: the token that ends an answer.
        guard_ids: of the character that keeps a typed control token apart.
        tells_cached: the server says how much of a prompt came from its cache; else nothing is read of that.
    """

    placeholder_id: int
    end_id: int
    guard_ids: tuple[int, ...]
    tells_cached: bool = False


class TokenRoute:
    """Writes and scores by token ids.

    Args:
        connection: to the server.
        model: what it calls the model.
        tokens: of the model.
    """

    def __init__(self, connection: Connection, model: str, tokens: Tokens) -> None:
        self.connection, self.model, self.tokens = connection, model, tokens
        self._guard_ids = list(tokens.guard_ids)
        self._ids: OrderedDict[object, list[int]] = OrderedDict()
        self._lock = threading.Lock()

    def writing(self, row: Row, ids: Sequence[int], settings: GenerationSettings) -> Request:
        """Returns the request that continues a row's prompt."""
        sampling: dict[str, Any] = {
            **sampling_of(row, settings),
            "top_k": 0,
            "repetition_penalty": settings.repetition_penalty,
            "logprobs": 0,
        }
        return self._request(row, ids, sampling, output_mode="text")

    def scoring(self, row: Row, ids: Sequence[int], target: Sequence[int], *, reads_cache: bool) -> Request:
        """Returns the request that scores a target's ids behind a row's prompt."""
        sampling = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, "detokenize": False}
        if reads_cache:
            sampling["skip_reading_prefix_cache"] = False
        return self._request(row, [*ids, *target], sampling)

    def _request(self, row: Row, ids: Sequence[int], sampling: Mapping[str, Any], **options: Any) -> Request:
        pictures = pictures_of(row)
        parts = [{"type": "image_url", "url": picture.uri, "uuid": picture.key} for picture in pictures]
        body = {
            "model": self.model,
            "token_ids": list(ids),
            **({"content_parts": parts} if parts else {}),
            "sampling_params": sampling,
            **options,
        }
        return Request(path=GENERATE, body=body, key=pictures[0].key if pictures else row.prompt)

    def scores(self, reply: Any, target: Sequence[int], *, reads_cache: bool = False) -> TokenScores | None:
        """Reads the scores of a target from the answer to its request; None where they may have come from the cache.

        Args:
            reply: the answer.
            target: its ids.
            reads_cache: whether the request allowed it.

        Raises:
            NetworkError: the answer does not tell them.
        """
        url = self.connection.urls[0]
        rows = reply.get("prompt_logprobs") if isinstance(reply, Mapping) else None
        if not isinstance(rows, list) or len(rows) <= len(target):
            raise bad_reply(url)
        first = len(rows) - len(target)
        cached = cached_tokens_of(reply)
        # The row of a token tells what the one before it predicts: that one must not be of the cache either.
        if reads_cache and (cached is None or cached > first - 1):
            return None
        scores = [score_of(row, token, url) for row, token in zip(rows[first:], target, strict=True)]
        return TokenScores(tokens=tuple(text for text, _ in scores), token_nll=tuple(nll for _, nll in scores))

    def written(self, reply: Any) -> Written:
        """Reads what was written.

        Raises:
            NetworkError: the answer is of another form.
        """
        choices = reply.get("choices") if isinstance(reply, Mapping) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        text = choice.get("text") if isinstance(choice, Mapping) else None
        if not isinstance(choice, Mapping) or not isinstance(text, str):
            raise bad_reply(self.connection.urls[0])
        told = logprobs_of(reply)
        return Written(
            text=text.strip(),
            token_nll=None if told is None else tuple(-float(one["logprob"]) for one in told),
            is_complete=choice.get("finish_reason") != "length",
            usage=usage_of(reply),
        )

    def prompt_ids(self, row: Row, control_tokens: Sequence[str], *, think: bool = False) -> list[int]:
        """Returns the ids of a row's prompt, one placeholder for its picture.

        Args:
            row: the row.
            control_tokens: those that it spells, which are to stay text.
            think: leave the model room to think.

        Raises:
            TextError: one of them cannot be kept apart.
        """
        stand_ins = tuple(_STAND_IN for _ in pictures_of(row))
        plain = Row(prompt=row.prompt, seen=stand_ins, history=row.history, system=row.system)
        key = (plain.prompt, len(stand_ins), plain.history, plain.system, think)
        return self._remembered(key, lambda: self._conversation_ids(plain, control_tokens, think))

    def text_ids(self, text: str, control_tokens: Sequence[str]) -> list[int]:
        """Returns the ids of a text by itself, in which control tokens stay text."""
        if not text:
            return []
        return self._remembered(text, lambda: self._alone_ids(text, control_tokens))

    def _remembered(self, key: object, make: Any) -> list[int]:
        with self._lock:
            if key in self._ids:
                self._ids.move_to_end(key)
                return self._ids[key]
        ids: list[int] = make()
        with self._lock:
            self._ids[key] = ids
            while len(self._ids) > _MAX_REMEMBERED:
                self._ids.popitem(last=False)
        return ids

    def _conversation_ids(self, row: Row, control_tokens: Sequence[str], think: bool) -> list[int]:
        messages, num_guards = _guarded(messages_of(row), control_tokens)
        body = {
            "model": self.model,
            "messages": messages,
            "add_generation_prompt": True,
            "chat_template_kwargs": {"enable_thinking": think},
        }
        ids = ids_of(self.connection.call(Request(path=TOKENIZE, body=body)))
        if not ids:
            raise bad_reply(self.connection.urls[0])
        return self._unguarded(collapsed(ids, self.tokens.placeholder_id), num_guards, control_tokens)

    def _alone_ids(self, text: str, control_tokens: Sequence[str]) -> list[int]:
        guarded, num_guards = _guarded(text, control_tokens)
        body = {"model": self.model, "prompt": guarded, "add_special_tokens": False}
        ids = ids_of(self.connection.call(Request(path=TOKENIZE, body=body)))
        if not ids:
            raise bad_reply(self.connection.urls[0])
        return self._unguarded(ids, num_guards, control_tokens)

    def _unguarded(self, ids: list[int], num_guards: int, control_tokens: Sequence[str]) -> list[int]:
        """Leaves the guards out; where one has become a part of another token, the text cannot be kept literal."""
        kept, place, num_found = [], 0, 0
        while place < len(ids):
            if num_guards and ids[place : place + len(self._guard_ids)] == self._guard_ids:
                place += len(self._guard_ids)
                num_found += 1
            else:
                kept.append(ids[place])
                place += 1
        if num_found != num_guards:
            raise not_literal(control_tokens[0])
        return kept


def find_token_route(connection: Connection, contract: Contract) -> TokenRoute | None:
    """Returns the route where the server has it, and where it says of a picture's prompt what its chat route says.

    Some families expand a picture into more than a run of one token; then the two differ, and the chat route is used.
    """
    if contract.kind != "vllm" or contract.end_id is None:
        return None
    row, target = Row(prompt="What colour is it?", seen=(_STAND_IN,)), "It is green"
    asked: list[dict[str, Any]] = [
        {"messages": messages_of(row), "add_generation_prompt": True},
        {"messages": messages_of(Row(prompt=row.prompt)), "add_generation_prompt": True},
        {"prompt": target, "add_special_tokens": False},
        {"prompt": _GUARD, "add_special_tokens": False},
    ]
    replies = connection.call_each([Request(path=TOKENIZE, body={"model": contract.model, **body}) for body in asked])
    seeing, blind, target_ids, guard_ids = map(ids_of, replies)
    placeholder_id = placeholder_of(seeing, blind)
    if placeholder_id is None or not target_ids or not guard_ids:
        return None
    tokens = Tokens(placeholder_id=placeholder_id, end_id=contract.end_id, guard_ids=tuple(guard_ids))
    route = TokenRoute(connection, contract.model, tokens)
    body = scoring_body(contract.model, messages_of(row), target, {"logprob_token_ids": [contract.end_id]})
    by_ids, by_chat = connection.call_each(
        [
            route.scoring(row, collapsed(seeing, placeholder_id), target_ids, reads_cache=False),
            Request(path=CHAT, body=body),
        ]
    )
    if isinstance(by_ids, Failed) or isinstance(by_chat, Failed):
        return None
    try:
        one, other = (route.scores(reply, target_ids) for reply in (by_ids, by_chat))
    except NetworkError:
        return None
    if one is None or other is None or abs(one.mean_nll - other.mean_nll) > _MOST_APART:
        return None
    tells_cached = cached_tokens_of(by_ids) is not None
    return TokenRoute(connection, contract.model, replace(tokens, tells_cached=tells_cached))


def collapsed(ids: Sequence[int], placeholder_id: int) -> list[int]:
    """Makes one of each run of a picture's tokens.

    >>> collapsed([1, 6, 6, 6, 2, 2], 6)
    [1, 6, 2, 2]
    """
    made: list[int] = []
    for id, run in itertools.groupby(ids):
        made += [id] if id == placeholder_id else list(run)
    return made


def placeholder_of(with_picture: Sequence[int], without: Sequence[int]) -> int | None:
    """Returns the id that a picture's tokens have: the one that a picture brings most often.

    >>> placeholder_of([1, 5, 6, 6, 6, 7, 2], [1, 2])
    6
    """
    counts: dict[int, int] = {}
    for id in with_picture:
        counts[id] = counts.get(id, 0) + 1
    for id in without:
        counts[id] = counts.get(id, 0) - 1
    most = max(counts, key=lambda id: counts[id], default=None)
    return most if most is not None and counts[most] > 1 else None


def _guarded(content: Any, control_tokens: Sequence[str]) -> tuple[Any, int]:
    """Puts a guard into every control token that texts spell; returns how many."""
    if isinstance(content, str):
        number = 0
        for word in sorted(control_tokens, key=len, reverse=True):
            number += content.count(word)
            content = content.replace(word, word[0] + _GUARD + word[1:])
        return content, number
    if isinstance(content, list):
        made = [_guarded(item, control_tokens) for item in content]
        return [item for item, _ in made], sum(number for _, number in made)
    if isinstance(content, dict):
        # Not what stands in a picture's address, nor the roles.
        texts = {name: _guarded(content[name], control_tokens) for name in ("content", "text") if name in content}
        return {**content, **{name: item for name, (item, _) in texts.items()}}, sum(n for _, n in texts.values())
    return content, 0
