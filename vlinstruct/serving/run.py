"""The process of a server: its address, its log, its end."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vlinstruct.errors import ResourceError, UsageError
from vlinstruct.serving.app import Service
from vlinstruct.serving.gate import is_loopback

_FIRST_REQUEST_S = 15.0
_NEXT_REQUEST_S = 30.0
_UNREAD_S = 30.0
_LAST_WORDS_S = 1.0
_MAX_HEADER_BYTES = 32 * 1024
_GRACE_S = 10


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that ends connections on which nothing goes on; uvicorn itself waits for ever.

    For the head of a request to come as a whole, and for a client to read what it was sent.
    """

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head = self.loop.call_later(_FIRST_REQUEST_S, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except h11.ProtocolError:  # of a body that nobody reads
            self._end()
            return
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            # A refused body goes on: what was said is sent, and nothing more is read.
            self.flow.pause_reading()
            self.loop.call_later(_LAST_WORDS_S, self._end)
        else:
            self._watch()

    def _watch(self) -> None:
        """Gives the next head its time; bytes that come meanwhile do not lengthen it."""
        is_busy = self.cycle is not None and not self.cycle.response_complete
        if is_busy and self._head is not None:
            self._head.cancel()
            self._head = None
        elif not is_busy and self._head is None:
            self._head = self.loop.call_later(_NEXT_REQUEST_S, self._end)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(_UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _end(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def listen(host: str, port: int, *, has_key: bool) -> socket.socket:
    """Binds a server's address.

    Args:
        host: whose interface; this machine's alone unless told.
        port: 0 for any that is free.
        has_key: clients must show a key.

    Raises:
        UsageError: others could come in without a key.
        ResourceError: the address cannot be had.
    """
    if not is_loopback(host) and not has_key:
        raise UsageError(
            f"others could use this model through {host}",
            advice="Put a key into $VLINSTRUCT_SERVE_KEY, or use 127.0.0.1.",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = f"{host}:{port}"
    # asyncio switches Nagle's algorithm off, which costs 40 ms an answer, where it is told that this is TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        is_used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "another program listens there" if is_used else "there is no such address here"
        raise ResourceError.at("cannot listen", place, why, "Choose another --port or --host", code="port") from error
    return listener


def server_of(service: Service) -> uvicorn.Server:
    """Returns the HTTP server of a service; it is not started."""
    return uvicorn.Server(
        uvicorn.Config(
            service.app(),
            http=ImpatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            timeout_keep_alive=int(_NEXT_REQUEST_S),
            timeout_graceful_shutdown=_GRACE_S,
            proxy_headers=False,
        )
    )


def serve(
    service: Service,
    server: uvicorn.Server,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves until the process, or `should_exit`, says to stop; requests that are at work may end.

    Args:
        service: what is served.
        server: its own.
        listener: where.
        on_ready: called when requests are answered.

    Raises:
        ResourceError: the accelerator failed, which no later request survives.
    """

    def end() -> None:
        server.should_exit = True

    service.on_broken = end

    async def run() -> None:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        on_ready()
        await serving

    with listener:
        asyncio.run(run())
    if service.is_broken:
        raise ResourceError("the accelerator failed over a request", advice="Start the server again.", code="device")
