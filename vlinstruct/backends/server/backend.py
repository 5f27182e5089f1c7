"""An OpenAI-compatible server behind `vlinstruct.backend.Backend`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vlinstruct.backend import Backend, Row, Seen, Written, not_taken
from vlinstruct.backends.server.connection import Connection, Request
from vlinstruct.backends.server.contract import (
    CHAT,
    GENERATE,
    TOKENIZE,
    Contract,
    bad_reply,
    choice_of,
    ids_of,
    logprobs_of,
    usage_of,
)
from vlinstruct.backends.server.messages import (
    CONTROL_TOKEN,
    SentPicture,
    is_known_control,
    messages_of,
    not_literal,
    pictures_of,
    sampling_of,
    suspects_in,
    texts_of,
)
from vlinstruct.backends.server.scoring import ChatScoring, outcome_of
from vlinstruct.backends.server.token_route import find_token_route
from vlinstruct.errors import NetworkError, UsageError, VlinstructError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Abilities, Clip, Failed, Identity, Sound, TokenScores, Usage

if TYPE_CHECKING:
    from vlinstruct.values import Media

_THOUGHT_END = "</think>"


class ServerBackend(Backend):
    """A model that a server runs.

    Args:
        connection: to the server, or to several of the same model.
        contract: what it can do.
        identity: its name and address.
        think: whether the model may think before it answers.
    """

    def __init__(self, connection: Connection, contract: Contract, *, identity: Identity, think: bool = False) -> None:
        self.connection, self.contract, self.identity, self.think = connection, contract, identity, think
        self.scoring = ChatScoring(connection, contract)
        self.route = find_token_route(connection, contract)
        self.abilities = Abilities(
            media=frozenset({"picture"}),
            can_score=contract.can_score,
            can_tell_nll=contract.can_tell_nll,
            can_write_alone=contract.can_write_alone,
            can_stream=True,
            keeps_typed_tokens=contract.kind == "vlinstruct" or self.route is not None,
            num_in_flight=connection.limits.num_in_flight,
        )
        self._known_tokens: dict[str, bool] = {}
        self._lock = threading.Lock()

    def see(self, media: Sequence[Media]) -> list[Seen | Failed]:
        return [
            Failed(error=not_taken("clip" if isinstance(medium, Clip) else "sound", self.abilities))
            if isinstance(medium, Clip | Sound)
            else SentPicture.of(medium)
            for medium in media
        ]

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        requests = [self._write_request(row, settings) for row in rows]
        return [
            outcome_of(
                reply,
                self.route.written
                if self.route is not None and isinstance(request, Request) and request.path == GENERATE
                else self._written,
            )
            for request, reply in zip(requests, self._call_each(requests), strict=True)
        ]

    def stream(self, row: Row, settings: GenerationSettings) -> Iterator[str | Written]:
        request = self._write_request(row, settings)
        # What is thought cannot be told from the answer before it ends; a row by ids comes as a whole.
        if self.think or isinstance(request, Failed) or request.path != CHAT:
            yield from super().stream(row, settings)
            return
        body = {**(request.body or {}), "stream": True}
        text, reason, told = "", None, list[float]()
        for event in self.connection.stream(replace(request, body=body)):
            choices = event.get("choices") if isinstance(event, Mapping) else None
            if choices == []:  # the usage, at the end
                continue
            # A piece has the form of an answer, with a `delta` in place of its message.
            delta = choices[0].get("delta") if isinstance(choices, list) and isinstance(choices[0], Mapping) else None
            piece = (delta.get("content") or "") if isinstance(delta, Mapping) else None
            if not isinstance(choices, list) or not isinstance(piece, str):
                raise bad_reply(self.connection.urls[0])
            reason = choices[0].get("finish_reason") or reason
            told += [-float(one["logprob"]) for one in logprobs_of(event) or ()]
            # White space around an answer is no part of it: what ends a piece waits for the next one.
            new = (text + piece).strip()[len(text.strip()) :]
            text += piece
            if new:
                yield new
        yield Written(text=text.strip(), token_nll=tuple(told) or None, is_complete=reason != "length", usage=Usage())

    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        pairs = [(row, target) for row, of_row in zip(rows, targets, strict=True) for target in of_row]
        score = self._score_chat if self.route is None else self._score_tokens
        scored = iter(score(pairs, with_end, num_first))
        outcomes: list[list[TokenScores] | Failed] = []
        for of_row in targets:
            of_targets = [next(scored) for _ in of_row]
            failed = next((one for one in of_targets if isinstance(one, Failed)), None)
            outcomes.append(failed or [one for one in of_targets if not isinstance(one, Failed)])
        return outcomes

    def _score_chat(
        self, pairs: Sequence[tuple[Row, str]], with_end: bool, num_first: int | None
    ) -> list[TokenScores | Failed]:
        requests = [
            self._refused(row, target) or self.scoring.request(row, target, with_end=with_end) for row, target in pairs
        ]
        read = partial(self.scoring.scores, with_end=with_end, num_first=num_first)
        return [
            outcome_of(reply, partial(read, target=target))
            for reply, (_, target) in zip(self._call_each(requests), pairs, strict=True)
        ]

    def _score_tokens(
        self, pairs: Sequence[tuple[Row, str]], with_end: bool, num_first: int | None
    ) -> list[TokenScores | Failed]:
        """Scores by token ids; what was scored before may be cached itself, and is asked for anew."""
        route = self.route
        assert route is not None
        prompts: dict[int, tuple[Row, list[int], list[int]]] = {}
        scored: dict[int, TokenScores | Failed] = {}
        for place, (row, target) in enumerate(pairs):
            try:
                ids = route.text_ids(target, self._control_tokens(target))
                ids = [*ids, route.tokens.end_id] if with_end else ids
                prompt = route.prompt_ids(row, self._control_tokens(*texts_of(row)), think=False)
                prompts[place] = row, prompt, ids[:num_first]
            except VlinstructError as error:
                scored[place] = Failed(error=error)
        for reads_cache in (True, False) if route.tokens.tells_cached else (False,):
            places = [place for place in prompts if place not in scored]
            requests = [
                route.scoring(row, prompt, ids, reads_cache=reads_cache)
                for row, prompt, ids in map(prompts.__getitem__, places)
            ]
            for place, reply in zip(places, self.connection.call_each(requests), strict=True):
                read = partial(route.scores, target=prompts[place][2], reads_cache=reads_cache)
                outcome = outcome_of(reply, read)
                if outcome is not None:
                    scored[place] = outcome
        return [scored.get(place) or Failed(error=bad_reply(self.connection.urls[0])) for place in range(len(pairs))]

    def _call_each(self, requests: Sequence[Request | Failed]) -> list[Any | Failed]:
        replies = iter(self.connection.call_each([one for one in requests if isinstance(one, Request)]))
        return [one if isinstance(one, Failed) else next(replies) for one in requests]

    def _write_request(self, row: Row, settings: GenerationSettings) -> Request | Failed:
        """Returns the request that continues a row; by ids where the row spells a control token."""
        refused = self._refused(row)
        if refused is None or self.route is None or refused.error.code != CONTROL_TOKEN:
            return refused or self._request(row, settings)
        try:
            ids = self.route.prompt_ids(row, self._control_tokens(*texts_of(row)), think=self.think)
        except VlinstructError as error:
            return Failed(error=error)
        return self.route.writing(row, ids, settings)

    def _request(self, row: Row, settings: GenerationSettings) -> Request:
        pictures = pictures_of(row)
        body: dict[str, Any] = {
            "model": self.contract.model,
            "messages": messages_of(row, with_uuid=self.contract.kind == "vllm"),
            **sampling_of(row, settings, seed_bits=64 if self.contract.kind == "vlinstruct" else 63),
        }
        if self.contract.can_tell_nll:
            body["logprobs"] = True
        if self.contract.kind == "vllm":
            body |= {
                "repetition_penalty": settings.repetition_penalty,
                "top_k": -1,
                "return_token_ids": True,
                "chat_template_kwargs": {"enable_thinking": self.think},
            }
        elif self.contract.kind == "vlinstruct":
            body |= {"repetition_penalty": settings.repetition_penalty, "vlinstruct": {"reads": row.reads}}
        elif settings.repetition_penalty != 1.0:
            raise UsageError("this server takes no --repetition-penalty.")
        return Request(path=CHAT, body=body, key=pictures[0].key if pictures else row.prompt)

    def _written(self, reply: Any) -> Written:
        url = self.connection.urls[0]
        choice = choice_of(reply, url)
        text, reason = choice["message"].get("content") or "", choice.get("finish_reason")
        if not isinstance(text, str) or reason not in ("stop", "length", "eos", None):
            raise bad_reply(url)
        told = logprobs_of(reply)
        token_nll = None if told is None else tuple(-float(one["logprob"]) for one in told)
        if _THOUGHT_END in text:  # the likelihoods are those of the thoughts, too
            text, token_nll = text.rpartition(_THOUGHT_END)[2], None
        return Written(text=text.strip(), token_nll=token_nll, is_complete=reason != "length", usage=usage_of(reply))

    def _refused(self, row: Row, *targets: str) -> Failed | None:
        """Returns why a row cannot be sent through a chat route: it spells a control token."""
        try:
            control_tokens = self._control_tokens(*texts_of(row), *targets)
        except VlinstructError as error:
            return Failed(error=error)
        return Failed(error=not_literal(control_tokens[0])) if control_tokens else None

    def _control_tokens(self, *texts: str) -> list[str]:
        """Returns the control tokens of the model that texts spell."""
        if self.contract.kind == "vlinstruct":  # ours keeps them apart
            return []
        return [suspect for text in texts for suspect in suspects_in(text) if self._is_control_token(suspect)]

    def _is_control_token(self, text: str) -> bool:
        """Says whether a text is a control token of the served model: one token, where its letters would be several.

        A server without a tokenizer's route is taken to have every token of the known families.

        Raises:
            NetworkError: the server failed over the question.
        """
        with self._lock:
            if text in self._known_tokens:
                return self._known_tokens[text]
        body = {"model": self.contract.model, "prompt": text, "add_special_tokens": False}
        (reply,) = self.connection.call_each([Request(path=TOKENIZE, body=body)])
        if isinstance(reply, Failed) and isinstance(reply.error, NetworkError):
            raise reply.error  # not an answer: remembered, it would let the token through for good
        ids = ids_of(reply)
        is_control = len(ids) == 1 if ids else is_known_control(text)
        with self._lock:
            self._known_tokens[text] = is_control
        return is_control
