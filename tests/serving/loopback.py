"""Servers on 127.0.0.1 for tests: ours, and one that says what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from starlette.types import ASGIApp

from vlinstruct.errors import ResourceError
from vlinstruct.model import Model
from vlinstruct.serving.app import ServeSettings, Service
from vlinstruct.serving.run import listen, serve, server_of


@contextmanager
def serving(
    model: Model, settings: ServeSettings | None = None, *, wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app
) -> Iterator[str]:
    """Serves a model while it is entered; gives the address of its routes.

    Args:
        model: loaded.
        settings: how it is served.
        wrap: puts something around the application.
    """
    listener = listen("127.0.0.1", 0, has_key=False)
    port = listener.getsockname()[1]
    service, ready = Service(lambda: model, settings or ServeSettings(name="tiny")), threading.Event()
    server = server_of(service)
    server.config.app = wrap(server.config.app)

    def run() -> None:
        with suppress(ResourceError):  # raised for the process, where the model cannot recover
            serve(service, server, listener, on_ready=ready.set)

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        thread.join(30)
        service.close()
        assert not thread.is_alive()


Reply = tuple[int, Any, Mapping[str, str]]
"""Status, JSON or bytes, headers."""


class Scripted:
    """What a scripted server was asked, and where it is.

    Attributes:
        url: of its routes.
        asked: every request: its path, its JSON, its headers.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, Any, Mapping[str, str]]] = []


@contextmanager
def scripted(reply: Callable[[str, Any], Reply]) -> Iterator[Scripted]:
    """Runs a server that answers every request with what a function returns for its path and JSON."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(None)

        def do_POST(self) -> None:
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def answer(self, body: Any) -> None:
            server.asked.append((self.path, body, dict(self.headers)))
            status, said, headers = reply(self.path, body)
            content = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            with suppress(BrokenPipeError):  # who asked has given up
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Scripted(f"http://127.0.0.1:{http.server_address[1]}/v1")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
