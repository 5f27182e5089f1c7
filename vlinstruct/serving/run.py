"""The process of a server: its address, its log, its end."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vlinstruct.errors import ResourceError, UsageError
from vlinstruct.serving.app import Service
from vlinstruct.serving.gate import is_loopback

_FIRST_REQUEST_S = 15.0
_MAX_HEADER_BYTES = 32 * 1024
_GRACE_S = 10


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that ends a connection whose request's head does not come: uvicorn itself waits for ever."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(_FIRST_REQUEST_S, self._end_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def _end_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
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
    listener = socket.socket(family, socket.SOCK_STREAM)
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
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_GRACE_S,
            proxy_headers=False,
        )
    )


def serve(server: uvicorn.Server, listener: socket.socket, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Serves until the process, or `should_exit`, says to stop; requests that are at work may end.

    Args:
        server: of a service.
        listener: where.
        on_ready: called when requests are answered.
    """

    async def run() -> None:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        on_ready()
        await serving

    with listener:
        asyncio.run(run())
