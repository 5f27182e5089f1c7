"""Likelihoods of given texts through a chat route.

The target is what an assistant has begun to say: its tokens are the last of the prompt. Where they begin is told by
the same conversation without a picture, since nothing in front of the seam moves it: so no picture is sent for that.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from vlinstruct.backend import Row
from vlinstruct.backends.server.connection import Connection, Request
from vlinstruct.backends.server.contract import (
    CHAT,
    TOKENIZE,
    Contract,
    bad_reply,
    ids_of,
    is_logprob,
    logprobs_of,
    score_of,
    scoring_body,
)
from vlinstruct.backends.server.messages import messages_of, pictures_of
from vlinstruct.errors import TextError, VlinstructError
from vlinstruct.values import Failed, TokenScores, good

_MARKER = {"role": "user", "content": "a"}
_MAX_REMEMBERED = 16_384


class ChatScoring:
    """Scores targets through vLLM's chat route, or through our own server's.

    Args:
        connection: to the server.
        contract: with `can_score`.
    """

    def __init__(self, connection: Connection, contract: Contract) -> None:
        self.connection, self.contract = connection, contract
        self._head: list[int] = []
        self._target_ids: OrderedDict[str, list[int]] = OrderedDict()
        self._lock = threading.Lock()

    def request(self, row: Row, target: str, *, with_end: bool) -> Request:
        """Returns the request that scores a target."""
        pictures = pictures_of(row)
        key = pictures[0].key if pictures else ""
        if self.contract.kind == "vlinstruct":
            extra: dict[str, Any] = {"vlinstruct": {"reads": row.reads, "with_end": with_end}}
        else:
            extra = {"logprob_token_ids": [self.contract.end_id]}
        messages = messages_of(row, with_uuid=self.contract.kind == "vllm")
        return Request(path=CHAT, body=scoring_body(self.contract.model, messages, target, extra), key=key)

    def scores(self, reply: Any, *, target: str, with_end: bool, num_first: int | None) -> TokenScores:
        """Reads the scores of a target from the answer to its request.

        Raises:
            VlinstructError: the answer does not tell them.
        """
        rows = _rows_of(reply, self.connection.urls[0])
        if self.contract.kind == "vlinstruct":
            rows = [row for row in rows if row[0] is not None]
        else:
            ids = self.target_ids(target)
            rows = rows[len(rows) - len(ids) :]
            if [token for _, token in rows] != ids:
                raise bad_reply(self.connection.urls[0])
        scores = [score_of(told, token, self.connection.urls[0]) for told, token in rows]
        if with_end and self.contract.kind != "vlinstruct":
            scores.append(self._end_score(reply))
        scores = scores[:num_first]
        return TokenScores(tokens=tuple(text for text, _ in scores), token_nll=tuple(nll for _, nll in scores))

    def target_ids(self, target: str) -> list[int]:
        """Returns a target's tokens as they stand behind a prompt.

        Raises:
            VlinstructError: the server does not tell, or its template changes the text.
        """
        with self._lock:
            if target in self._target_ids:
                self._target_ids.move_to_end(target)
                return self._target_ids[target]
        head = self._head or self._tokenize([_MARKER], add_generation_prompt=True)
        if not target:
            return []
        said = {"role": "assistant", "content": target}
        whole = self._tokenize([_MARKER, said], add_generation_prompt=False, continue_final_message=True)
        stripped = target.strip()
        is_trimmed = target != stripped and whole == self._tokenize(
            [_MARKER, {"role": "assistant", "content": stripped}],
            add_generation_prompt=False,
            continue_final_message=True,
        )
        if whole[: len(head)] != head or is_trimmed:
            raise TextError(
                "the server's chat template changes this text, so it cannot be scored",
                advice="Leave out the spaces around it.",
                code="chat_template",
            )
        with self._lock:
            self._head = head
            self._target_ids[target] = whole[len(head) :]
            while len(self._target_ids) > _MAX_REMEMBERED:
                self._target_ids.popitem(last=False)
        return whole[len(head) :]

    def _tokenize(self, messages: Sequence[Mapping[str, Any]], **options: bool) -> list[int]:
        body = {"model": self.contract.model, "messages": messages, **options}
        ids = ids_of(self.connection.call(Request(path=TOKENIZE, body=body)))
        if not ids:
            raise bad_reply(self.connection.urls[0])
        return ids

    def _end_score(self, reply: Any) -> tuple[str, float]:
        """Returns the end token's score: one of those told of the one token that was written."""
        told = logprobs_of(reply) or []
        wanted = f"token_id:{self.contract.end_id}"
        candidates = [*told[:1], *(told[0].get("top_logprobs") or () if told else ())]
        for one in candidates:
            if isinstance(one, Mapping) and one.get("token") == wanted and is_logprob(one.get("logprob")):
                return wanted, -float(one["logprob"])
        raise bad_reply(self.connection.urls[0])


def outcome_of(reply: Any, read: Any) -> Any:
    """Returns what `read` makes of an answer, or why there is none."""
    try:
        return read(good(reply))
    except VlinstructError as error:
        return Failed(error=error)


def _rows_of(reply: Any, url: str) -> list[tuple[Mapping[str, Any] | None, int]]:
    """Returns what is told of every token of a prompt, with the token's id."""
    rows = reply.get("prompt_logprobs") if isinstance(reply, Mapping) else None
    ids = reply.get("prompt_token_ids") if isinstance(reply, Mapping) else None
    if not isinstance(rows, list) or not isinstance(ids, list) or len(rows) != len(ids):
        raise bad_reply(url)
    if not all(row is None or isinstance(row, Mapping) for row in rows):
        raise bad_reply(url)
    return list(zip(rows, ids, strict=True))
