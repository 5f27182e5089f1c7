"""The routes: OpenAI's chat completions, what is ours (`/v1/optimize`, `/v1/score`), health and metrics.

Work is done in threads, so that a slow client never holds the model: their calls meet in `MergingBackend`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from asyncio import FIRST_COMPLETED
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.errors import InputError, NetworkError, ResourceError, UsageError, VlinstructError
from vlinstruct.instruction.follow_up import whole_last
from vlinstruct.instruction.judge import Answering
from vlinstruct.instruction.optimize import left_as_typed
from vlinstruct.media.load import MediaSettings
from vlinstruct.model import Model
from vlinstruct.operations import optimization_fields, scored_fields
from vlinstruct.serving.conversation import BadRequest, ChatRequest, load_picture, object_of, parse_chat
from vlinstruct.serving.gate import Gate, GateSettings
from vlinstruct.serving.merging import LEFT, LeftError, MergingBackend
from vlinstruct.serving.replies import (
    END,
    chunk,
    completion,
    cut_at_stop,
    error_body,
    event,
    logprobs_fields,
    new_id,
    scored_completion,
)
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Failed, Optimization, Usage, good

T = TypeVar("T")

_NUM_SEEN = 32
_NUM_DECODED = 4  # pictures at the same time: one of 50 megapixels takes 150 MB
_MAX_INSTRUCTIONS = 64
_DEVICE_FAILED = "device-side assert"  # CUDA's; nothing computes in this process after it


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How a model is served.

    Args:
        name: what clients call the model; the backbone's if empty.
        gate: who may come in.
        optimize: optimize a client's last instruction before it is answered.
        optimization: how it is chosen.
        batch_size: most requests that go through the model together.
        allow_urls: fetch pictures that clients name by URL.
        timeout_s: most seconds of a request.
        media: limits of pictures.
    """

    name: str = ""
    gate: GateSettings = field(default_factory=GateSettings)
    optimize: bool = False
    optimization: OptimizationSettings = OptimizationSettings()
    batch_size: int = 32
    allow_urls: bool = False
    timeout_s: float = 300.0
    media: MediaSettings = MediaSettings()


class Service:
    """A model behind the routes.

    Args:
        load: returns the model; its backend's calls are merged.
        settings: how it is served.
        log: is told one line per request.
    """

    def __init__(
        self, load: Callable[[], Model], settings: ServeSettings, log: Callable[[str], None] = lambda line: None
    ) -> None:
        models: list[Model] = []

        def load_backend() -> Backend:
            models.append(load())
            return models[0].backend

        merging = MergingBackend(load_backend, batch_size=settings.batch_size)
        (model,) = models
        self.settings, self.log = replace(settings, name=settings.name or model.backend.identity.name), log
        # What works on several calls itself, as a server does, needs no batches of ours.
        self.merging = merging if model.backend.abilities.num_in_flight == 1 else None
        if self.merging is None:
            merging.close()
        self.backend = self.merging or model.backend
        self.model = Model(
            self.backend, templates=model.templates, thresholds=model.thresholds, limits=settings.media.images
        )
        self.threads = CapacityLimiter(settings.gate.max_requests)
        self.seen: OrderedDict[bytes, Seen] = OrderedDict()
        self.lock = threading.Lock()
        self.decoding = threading.BoundedSemaphore(_NUM_DECODED)
        self.is_broken = False
        self.on_broken: Callable[[], None] = lambda: None
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vlinstruct_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "vlinstruct_request_seconds", "Seconds of a request.", ["route"], registry=self.registry
        )
        self.tokens = Counter("vlinstruct_tokens", "Tokens read and written.", ["kind"], registry=self.registry)
        self.chosen = Counter(
            "vlinstruct_optimizations",
            "Optimized instructions by which was chosen.",
            ["chosen"],
            registry=self.registry,
        )
        waiting = Gauge("vlinstruct_calls_waiting", "Calls that wait for the model.", registry=self.registry)
        waiting.set_function(lambda: 0 if self.merging is None else self.merging.num_waiting)

    def close(self) -> None:
        """Ends the calls that wait."""
        if self.merging is not None:
            self.merging.close()

    def app(self) -> Gate:
        """Returns the ASGI application."""
        routes = [
            Route("/health", self.health, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.one_model, methods=["GET"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/optimize", self.optimize, methods=["POST"]),
            Route("/v1/score", self.score, methods=["POST"]),
        ]
        inner = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})
        inner.router.redirect_slashes = False
        return Gate(inner, self.settings.gate, self.log)

    async def health(self, request: Request) -> Response:
        """Says that the process answers, and can."""
        if self.is_broken:
            return _refusal(503, "the accelerator failed", "device")
        return JSONResponse({"status": "ok", "model": self.settings.name})

    async def metrics(self, request: Request) -> Response:
        """Tells numbers in Prometheus' format."""
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(self, request: Request) -> Response:
        """Lists the one model."""
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def one_model(self, request: Request) -> Response:
        """Tells of a model by its name."""
        if request.path_params["name"] != self.settings.name:
            return JSONResponse(error_body("no such model", code="model_not_found"), status_code=404)
        return JSONResponse(self._card())

    async def chat(self, request: Request) -> Response:
        """Answers, or scores what was begun."""

        def parsed(body: object) -> ChatRequest:
            self._require_model(object_of(body, "the body"))
            return parse_chat(body)

        return await self._run(request, "chat", parsed, self._chat)

    async def optimize(self, request: Request) -> Response:
        """Optimizes an instruction for a picture: `{"image": URL, "instruction": TEXT}` -> a record's fields."""
        return await self._run(request, "optimize", lambda body: self._fields(body, "instruction"), self._optimize)

    async def score(self, request: Request) -> Response:
        """Scores instructions for a picture: `{"image": URL, "instructions": [TEXT...]}` -> a record's fields."""
        return await self._run(request, "score", lambda body: self._fields(body, "instructions"), self._score)

    def _card(self) -> dict[str, Any]:
        return {"id": self.settings.name, "object": "model", "created": 0, "owned_by": "vlinstruct"}

    async def _run(
        self, request: Request, route: str, parse: Callable[[object], T], work: Callable[[T], Any]
    ) -> Response:
        """Reads a request, works on it in a thread, and answers in time, whatever happens."""
        began = time.perf_counter()
        try:
            asked = parse(_json(await request.body()))
            if isinstance(asked, ChatRequest) and asked.streams:
                response: Response = await self._streamed(asked)
            else:
                body, headers = await self._waited_for(request, partial(work, asked))
                response = JSONResponse(body, headers=headers)
        except Exception as error:
            response = self._explained(error)
        seconds = time.perf_counter() - began
        self.requests.labels(route, str(response.status_code)).inc()
        self.seconds.labels(route).observe(seconds)
        self.log(f"{route} {response.status_code} {1000 * seconds:.0f} ms")
        return response

    async def _waited_for(self, request: Request, work: Callable[[], T]) -> T:
        """Works in a thread as long as somebody waits for it.

        Raises:
            TimeoutError: it took too long.
            LeftError: its client went away.
        """
        left = threading.Event()
        LEFT.set(left)
        working = asyncio.ensure_future(anyio.to_thread.run_sync(work, limiter=self.threads, abandon_on_cancel=True))
        leaving = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({working, leaving}, timeout=self.settings.timeout_s, return_when=FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise LeftError if leaving.done() else TimeoutError
        finally:
            leaving.cancel()
            if not working.done():
                working.cancel()
                self._leave(left)

    def _leave(self, left: threading.Event) -> None:
        """Drops what was asked of the model for a client that waits no more."""
        left.set()
        if self.merging is not None:
            self.merging.forget_left()

    def _explained(self, error: Exception) -> Response:
        match error:
            case BadRequest():
                return _refusal(error.status, error.message, error.code, error.param)
            case TimeoutError():
                return _refusal(504, f"not ready after {self.settings.timeout_s:g} s", "timeout")
            case LeftError():  # nobody reads it, unless the server ends
                return _refusal(503, "the server ends", "ending")
            case InputError() | UsageError():
                return _refusal(400, error.message, error.code)
            case NetworkError():  # of the server that this one stands before
                return _refusal(502, error.message, error.code)
            case ResourceError():
                self.log(f"out of resources: {error.code}")
                return _refusal(503, "resources are missing", error.code)
            case VlinstructError():  # of the model: its message may name files
                self.log(f"the model failed: {error.code}")
                return _refusal(500, "the model failed", error.code)
            case _:  # its text may hold paths, addresses or a library's words
                self.log(f"internal error: {type(error).__name__}")
                if _DEVICE_FAILED in str(error):
                    self.is_broken = True
                    self.on_broken()
                return _refusal(500, "internal error", "internal")

    def _require_model(self, fields: Mapping[str, Any]) -> None:
        if fields.get("model") not in (None, self.settings.name):
            raise BadRequest(f"no such model: this server has {self.settings.name}", "model", status=404)

    def _fields(self, body: object, texts: str) -> Mapping[str, Any]:
        fields = object_of(body, "the body")
        self._require_model(fields)
        unknown = [name for name in fields if name not in ("model", "image", texts)]
        if unknown:
            raise BadRequest("unknown field", unknown[0][:60])
        if not isinstance(fields.get("image"), str):
            raise BadRequest("it must be a data URI", "image")
        return fields

    def see(self, url: str) -> Seen:
        """Looks at a picture, or remembers it: a client's requests about one picture come one after another."""
        key = hashlib.sha256(url.encode()).digest()
        with self.lock:
            if key in self.seen:
                self.seen.move_to_end(key)
                return self.seen[key]
        settings = self.settings
        with self.decoding:
            loaded = load_picture(
                url, allow_urls=settings.allow_urls, settings=settings.media, abilities=self.backend.abilities
            )
            prepared = self.backend.prepare(loaded.medium)
        (outcome,) = self.backend.see([prepared])
        seen = good(outcome)
        if url.startswith("data:"):
            with self.lock:
                self.seen[key] = seen
                while len(self.seen) > _NUM_SEEN:
                    self.seen.popitem(last=False)
        return seen

    def _row(self, request: ChatRequest) -> Row:
        if len(request.pictures) > 1:
            raise BadRequest(f"one picture a conversation is supported, got {len(request.pictures)}", "messages")
        if not request.pictures and not self.backend.abilities.can_write_alone:
            raise BadRequest("a picture is needed", "messages")
        prompt = request.prompt
        # As `chat` asks it. Who scores, or says what a Q-Former reads, wants just that.
        if request.reads is None and request.target is None and not self.backend.identity.is_chat_model:
            prompt = whole_last([*(turn.question for turn in request.history), prompt])
        return Row(
            prompt=prompt,
            seen=tuple(self.see(url) for url in request.pictures),
            history=request.history,
            system=request.system,
            reads=prompt if request.reads is None else request.reads,
        )

    def _chat(self, request: ChatRequest) -> tuple[dict[str, Any], dict[str, str]]:
        row = self._row(request)
        if request.target is not None:
            return self._scored(row, request), {}
        written, outcome = self._written(row, request)
        self.tokens.labels("read").inc(written.usage.prompt)
        self.tokens.labels("written").inc(written.usage.written)
        extra = None if outcome is None else optimization_fields(outcome)
        return completion(new_id(), self.settings.name, written, request, extra), _headers(outcome)

    def _scored(self, row: Row, request: ChatRequest) -> dict[str, Any]:
        if not self.backend.abilities.can_score:
            raise BadRequest("this model tells no likelihood of a given text", "prompt_logprobs")
        assert request.target is not None
        (outcome,) = self.backend.score([row], [[request.target]], with_end=request.with_end)
        (count,) = self.backend.num_tokens([row])
        num_prompt = 1 if count is None else max(count.prompt, 1)
        return scored_completion(new_id(), self.settings.name, good(outcome)[0], num_prompt)

    def _written(self, row: Row, request: ChatRequest) -> tuple[Written, Optimization | None]:
        outcome = self._optimized(row, request)
        if outcome is not None:
            judged = outcome.used.judgement
            answer = None if judged is None else judged.answer
            nll = None if answer is None else answer.token_nll
            # What was judged is what would be answered, the same text generated alike; one that used all its tokens
            # may have been cut, and is written again, so that the client is told.
            if nll is not None and len(nll) < request.settings.max_new_tokens and not row.history and not row.system:
                assert answer is not None
                return Written(text=answer.text, token_nll=nll, usage=Usage(written=len(nll))), outcome
            row = _asking(row, outcome.instruction)
        (written,) = self.backend.write([row], request.settings)
        return good(written), outcome

    def _optimized(self, row: Row, request: ChatRequest) -> Optimization | None:
        """Optimizes the last instruction where that is asked for; what stands around it is not looked at."""
        is_wanted = self.settings.optimize if request.optimize is None else request.optimize
        if not is_wanted or not row.seen or request.reads is not None:
            return None
        (outcome,) = self.model.optimize_each(
            [row.seen[0]],
            [row.prompt],
            optimization=self.settings.optimization,
            answering=Answering(generation=request.settings),
        )
        if isinstance(outcome, Failed):  # an answer to the client's own words is better than none
            self.log(f"not optimized: {outcome.error.code}")
            outcome = left_as_typed(row.prompt, f"it could not be optimized ({outcome.error.code})")
        self.chosen.labels(outcome.chosen).inc()
        return outcome

    async def _streamed(self, request: ChatRequest) -> Response:
        """Answers piece by piece: a thread takes pieces from the model, and the client takes them when it can."""
        loop, left = asyncio.get_running_loop(), threading.Event()
        LEFT.set(left)
        until = loop.time() + self.settings.timeout_s
        pieces: asyncio.Queue[str | Written | Exception] = asyncio.Queue()
        try:
            async with asyncio.timeout_at(until):
                row = await anyio.to_thread.run_sync(self._row, request, limiter=self.threads, abandon_on_cancel=True)
                outcome = await anyio.to_thread.run_sync(
                    self._optimized, row, request, limiter=self.threads, abandon_on_cancel=True
                )
        except BaseException:
            self._leave(left)
            raise
        if outcome is not None:
            row = _asking(row, outcome.instruction)

        def put(piece: str | Written | Exception) -> None:
            with suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def produce() -> None:
            try:
                for piece in self._pieces(row, request):
                    put(piece)
                    if left.is_set():
                        return
            except Exception as error:
                put(error)

        async def events() -> AsyncIterator[bytes]:
            id, name = new_id(), self.settings.name
            # The thread keeps its place among the threads until it ends, whoever leaves before.
            producing = asyncio.ensure_future(anyio.to_thread.run_sync(produce, limiter=self.threads))
            try:
                yield chunk(id, name, {"role": "assistant", "content": ""})
                while True:
                    try:
                        async with asyncio.timeout_at(until):
                            piece = await pieces.get()
                    except TimeoutError as error:
                        piece = error
                    if isinstance(piece, Exception):
                        yield event(json.loads(bytes(self._explained(piece).body)))
                        break
                    if isinstance(piece, Written):
                        told = logprobs_fields(piece) if request.logprobs else None
                        extra = None if outcome is None else optimization_fields(outcome)
                        reason = "stop" if piece.is_complete else "length"
                        yield chunk(id, name, {}, finish_reason=reason, logprobs=told, extra=extra)
                        if request.tells_usage:
                            yield chunk(id, name, None, usage=piece.usage)
                        break
                    yield chunk(id, name, {"content": piece})
                yield END
            finally:
                if not producing.done():
                    self._leave(left)

        return StreamingResponse(events(), media_type="text/event-stream", headers=_headers(outcome))

    def _pieces(self, row: Row, request: ChatRequest) -> Iterator[str | Written]:
        """Yields an answer as it comes; as a whole where it may have to end in front of a stop."""
        if not request.stop:
            yield from self.backend.stream(row, request.settings)
            return
        (outcome,) = self.backend.write([row], request.settings)
        written = good(outcome)
        text = cut_at_stop(written.text, request.stop)
        yield text
        yield replace(written, text=text, is_complete=written.is_complete or text != written.text)

    def _optimize(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        text = fields.get("instruction")
        if not isinstance(text, str):
            raise BadRequest("it must be a text", "instruction")
        (outcome,) = self.model.optimize_each(
            [self.see(fields["image"])], [text], optimization=self.settings.optimization
        )
        optimization = good(outcome)
        return optimization_fields(optimization), _headers(optimization)

    def _score(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        texts = fields.get("instructions")
        if not isinstance(texts, list) or not 0 < len(texts) <= _MAX_INSTRUCTIONS:
            raise BadRequest(f"it must be a list of 1 to {_MAX_INSTRUCTIONS} texts", "instructions")
        if not all(isinstance(text, str) for text in texts):
            raise BadRequest("each must be a text", "instructions")
        (outcome,) = self.model.score_each([self.see(fields["image"])], [texts])
        return {"scores": [scored_fields(scored) for scored in good(outcome)]}, {}


def _asking(row: Row, instruction: str) -> Row:
    return Row(prompt=instruction, seen=row.seen, history=row.history, system=row.system, reads=instruction)


def _headers(outcome: Optimization | None) -> dict[str, str]:
    return {} if outcome is None else {"x-vlinstruct-chosen": outcome.chosen}


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(content: bytes) -> object:
    def refuse(name: str) -> None:
        raise BadRequest(f"{name} is no JSON")

    try:
        value = json.loads(content, parse_constant=refuse)
        if b"\\ud" in content.lower():  # half a character cannot be written on, and nothing is one
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is no JSON") from error
    return value


def _refusal(status: int, message: str, code: str, param: str | None = None) -> JSONResponse:
    return JSONResponse(error_body(message, code=code, param=param, status=status), status_code=status)


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _refusal(status, "no such route" if status == 404 else "this route takes another method", "not_found")
