"""Attacks on the server: what comes in uninvited is refused in words, tells nothing, and costs nobody else anything.

After each abuse of a shared server, health and a normal request must succeed, and no traceback may have been logged:
the fixtures see to it. Nothing here sends a packet beyond 127.0.0.0/8.
"""

from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import random
import re
import resource
import select
import signal
import socket
import string
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import vli
from picture_fixtures import make_picture, make_png, make_png_chunk
from serving.attacks import (
    CHAT,
    MESSAGES,
    MORE_SITES,
    NAMES,
    OTHER_URLS,
    PICTURE,
    PRIVATE_URLS,
    PROXIED_HOSTS,
    REDIRECTS,
    SITES,
    URI,
    Network,
    Puppet,
    Reply,
    Target,
    Wire,
    asking,
    attacked,
    drip_by_byte,
    drip_head,
    endless,
    endless_interim,
    misbehaving,
    soon,
    uri_of,
)
from serving.loopback import Scripted, scripted
from starlette.routing import Route

from vlinstruct.backend import Row
from vlinstruct.errors import CheckpointError, ResourceError, UsageError
from vlinstruct.media import fetch as fetching
from vlinstruct.media.load import LoadedMedium
from vlinstruct.model import Model, load
from vlinstruct.serving import conversation
from vlinstruct.serving import gate as gates
from vlinstruct.serving import run as running
from vlinstruct.serving.app import ServeSettings
from vlinstruct.serving.gate import PAGE, GateSettings, loopback_hosts
from vlinstruct.serving.run import listen
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.text import MAX_INSTRUCTION_CHARACTERS
from vlinstruct.values import Abilities

pytestmark = pytest.mark.slow

KEY = "correct-horse-battery-staple"
MIB = 1024 * 1024
POSTS = (CHAT, "/v1/optimize", "/v1/score")
LINE = re.compile(r"(chat|optimize|score) \d{3} \d+ ms|internal error: \w+")


@pytest.fixture(scope="module")
def here(tiny_folders: dict[str, Path]) -> Model:
    return load(tiny_folders["t5"], device="cpu")


@pytest.fixture(scope="module")
def open_server(here: Model) -> Iterator[Target]:
    gate = GateSettings(hosts=loopback_hosts("127.0.0.1"), max_body_bytes=2 * MIB, body_timeout_s=1.5)
    with attacked(here, ServeSettings(name="tiny", gate=gate)) as target:
        yield target


@pytest.fixture(scope="module")
def keyed_server(here: Model) -> Iterator[Target]:
    gate = GateSettings(api_key=KEY, max_body_bytes=MIB, body_timeout_s=1.5)
    with attacked(here, ServeSettings(name="tiny", gate=gate)) as target:
        yield target


@pytest.fixture(scope="module")
def fetching_server(here: Model) -> Iterator[Target]:
    with attacked(here, ServeSettings(name="tiny", allow_urls=True)) as target:
        yield target


def is_left_sound(target: Target, caplog: pytest.LogCaptureFixture) -> Iterator[Target]:
    """Gives a shared server to one test, and looks at it afterwards."""
    yield target
    target.assert_sound()
    assert [record.getMessage() for record in caplog.get_records("call") if record.exc_info] == []


@pytest.fixture
def target(open_server: Target, caplog: pytest.LogCaptureFixture) -> Iterator[Target]:
    yield from is_left_sound(open_server, caplog)


@pytest.fixture
def keyed(keyed_server: Target, caplog: pytest.LogCaptureFixture) -> Iterator[Target]:
    yield from is_left_sound(keyed_server, caplog)


@pytest.fixture
def fetcher(fetching_server: Target, caplog: pytest.LogCaptureFixture) -> Iterator[Target]:
    yield from is_left_sound(fetching_server, caplog)


@pytest.fixture(scope="module")
def sentinel() -> Iterator[Scripted]:
    """Stands in the private network: nobody may ask it anything."""
    with scripted(lambda path, body: (200, PICTURE, {"Content-Type": "image/png"})) as server:
        yield server


LOCATIONS: list[str] = []
"""Where `/to/N` of the public site redirects to."""


@pytest.fixture(scope="module")
def public() -> Iterator[Scripted]:
    """Stands for a site of the public Internet: pictures, and redirects."""

    def reply(path: str, body: object) -> tuple[int, Any, Mapping[str, str]]:
        if (redirect := re.fullmatch(r"/to/(\d+)(?:/(\d+))?", path)) is None:
            return 200, PICTURE, {"Content-Type": "image/png"}
        return int(redirect[2] or 302), b"", {"Location": LOCATIONS[int(redirect[1])]}

    with scripted(reply) as server:
        yield server


def port_of(server: Scripted) -> int:
    return int(server.url.split(":")[2].split("/")[0])


@pytest.fixture
def network(
    fetching_server: Target,
    open_server: Target,
    public: Scripted,
    sentinel: Scripted,
    monkeypatch: pytest.MonkeyPatch,
) -> Network:
    sentinel.asked.clear()
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    made = Network(NAMES, public_port=port_of(public), known_ports=[fetching_server.port, open_server.port])
    made.install(monkeypatch)
    return made


def about(url: str) -> dict[str, Any]:
    return {"messages": asking("describe", url), "max_tokens": 2}


def refused(reply: Reply | None, *statuses: int) -> Mapping[str, Any]:
    """Checks that a request was refused in our own form, and returns the error."""
    assert reply is not None, "the connection ended without an answer"
    assert reply.status in statuses, (reply.status, reply.body[:300])
    return reply.error


# S01, S02, S03: who may come in


METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE")


def paths_of(target: Target) -> list[str]:
    """Returns a path for every route of the application, in several spellings, and some that have none."""
    paths = []
    for route in target.gate.app.routes:
        assert type(route) is Route, "a new kind of route: say here what asks it for the key"
        path = re.sub(r"\{name:path\}", "tiny", route.path)
        assert "{" not in path, "a new kind of parameter: say here what stands for it"
        paths += [path, f"{path}/", f"/{path}", f"{path}?api_key={KEY}", path.upper()]
    assert len(paths) >= 35
    strangers = ["/", "/docs", "/openapi.json", "/redoc", "/favicon.ico", "*", "/%2e%2e/health", "//", "/v1/../health"]
    return [*paths, *strangers]


@pytest.mark.parametrize("method", METHODS)
def test_every_route_but_the_page_asks_for_the_key(method: str, keyed: Target) -> None:
    for path in paths_of(keyed):
        if method in ("GET", "HEAD") and path.partition("?")[0] == PAGE:
            continue
        reply = keyed.ask(method, path, headers={"Authorization": None})
        assert (path, reply.status) == (path, 401)
        assert reply.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            assert reply.error["code"] == "key"


def test_with_the_key_no_route_says_that_it_is_missing(keyed: Target) -> None:
    paths = paths_of(keyed)
    statuses = {path: keyed.ask("GET", path).status for path in paths}
    assert 401 not in statuses.values()
    assert [statuses[path] for path in ("/health", "/metrics", "/v1/models", "/v1/models/tiny")] == [200] * 4
    assert {statuses[path] for path in POSTS} == {405}


WRONG_KEYS = (
    "",
    "Bearer",
    "Bearer ",
    f"Bearer {KEY[:-1]}",
    f"Bearer {KEY[:1]}",
    f"Bearer {KEY}x",
    f"Bearer {KEY} {KEY}",
    f"Bearer {KEY.upper()}",
    f"Bearer x{KEY}",
    f"Bearer {KEY},",
    f"Bearer '{KEY}'",
    f"Bearer{KEY}",
    f"Basic {KEY}",
    f"Token {KEY}",
    KEY,
    "Bearer null",
    "Bearer None",
    "Bearer *",
    "Bearer " + "a" * 20_000,
    "Bearer correct\xa0horse",
    "Bearer \xff\xfe",
    "Bearer \u017fecret",
)


@pytest.mark.parametrize("shown", WRONG_KEYS, ids=range(len(WRONG_KEYS)))
def test_only_the_whole_key_opens(shown: str, keyed: Target) -> None:
    for path in ("/health", "/v1/models"):
        assert refused(keyed.ask("GET", path, headers={"Authorization": shown}), 401)["code"] == "key"
    assert refused(keyed.post(CHAT, {"messages": asking()}, {"Authorization": shown}), 401)["code"] == "key"


def test_a_key_elsewhere_does_not_open(keyed: Target) -> None:
    for name in ("Api-Key", "X-Api-Key", "Cookie", "Proxy-Authorization", "X-Forwarded-For", "X-Original-URL"):
        assert keyed.ask("GET", "/health", headers={"Authorization": None, name: f"Bearer {KEY}"}).status == 401


def test_a_client_may_spell_bearer_as_it_likes(keyed: Target) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert keyed.ask("GET", "/health", headers={"Authorization": f"{scheme} {KEY}"}).status == 200


def test_keys_are_compared_in_constant_time(keyed: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    compared, real = [], gates.hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append({bytes(one), bytes(other)})
        return real(one, other)

    monkeypatch.setattr(gates.hmac, "compare_digest", compare)
    for shown in (KEY[:-1], "wrong", KEY):
        keyed.ask("GET", "/health", headers={"Authorization": f"Bearer {shown}"})
    assert compared == [{KEY[:-1].encode(), KEY.encode()}, {b"wrong", KEY.encode()}, {KEY.encode()}]


def test_a_key_of_other_letters_opens_for_who_shows_it() -> None:
    key = "schlüssel-鍵"
    with attacked(Model(Puppet()), ServeSettings(name="tiny", gate=GateSettings(api_key=key))) as target:
        assert target.ask("GET", "/health", headers={"Authorization": "Bearer schlussel"}).status == 401
        assert target.ask("GET", "/health", headers={"Authorization": f"Bearer {key}"}).status == 200


def test_an_upgrade_to_a_web_socket_asks_for_the_key_and_gets_none(keyed: Target) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    for path in ("/health", CHAT):
        assert keyed.ask("GET", path, headers={**upgrade, "Authorization": None}).status == 401
        assert keyed.ask("GET", path, headers=upgrade).status in (200, 400, 405, 426)
        assert keyed.ask("GET", path, headers={**upgrade, "Upgrade": "h2c"}).status in (200, 400, 405, 426)


def test_of_two_pipelined_requests_each_needs_the_key(keyed: Target) -> None:
    with keyed.wire() as wire:
        with_key, without = (keyed.request("GET", "/health", headers=more) for more in ({}, {"Authorization": None}))
        wire.send(with_key + without + with_key)
        assert [getattr(wire.reply(), "status", None) for _ in range(3)] == [200, 401, None]


def test_the_key_is_in_no_error_body_and_no_log_line(keyed: Target, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with keyed.wire() as wire:
        for body in (b"{", b"[]", b'{"messages": []}', b'{"model": "x"}', b'{"unheard": 1}', b"\0", b'{"messages": 1}'):
            for path in POSTS:
                wire.send(keyed.request("POST", path, body))
                reply = wire.reply()
                assert reply is not None
                assert reply.status >= 400
                assert KEY not in str(reply.headers) + reply.body.decode()
        for path in ("/nowhere", "/v1/models/other"):
            wire.send(keyed.request("GET", path))
            reply = wire.reply()
            assert reply is not None
            assert KEY not in str(reply.headers) + reply.body.decode()
        wire.send(keyed.request("GET", "/health", headers={"X": "a\rb"}))
        assert KEY.encode() not in wire.rest(5.0)[0]
    assert keyed.lines, "what is looked through"
    assert not [line for line in [*keyed.lines, caplog.text] if KEY in line]


def test_settings_do_not_show_their_key_where_they_are_printed() -> None:
    assert KEY not in repr(ServeSettings(name="tiny", gate=GateSettings(api_key=KEY)))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "*", "192.168.1.1", "localhost.evil.test", "127.0.0.1.test"])
def test_an_address_that_others_reach_needs_a_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(*_: object) -> None:
        raise AssertionError("an address was bound")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(UsageError, match="others could use this model"):
        listen(host, 0, has_key=False)


@pytest.mark.parametrize("key", [None, "", "  \t "])
def test_the_command_does_not_start_for_others_without_a_key(
    key: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLINSTRUCT_SERVE_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("VLINSTRUCT_SERVE_KEY", key)
    result = vli("serve", "--host", "0.0.0.0", "--port", 0, "--backbone", tmp_path / "none")
    assert "VLINSTRUCT_SERVE_KEY" in result.refusal(2)


def test_a_port_in_use_is_one_line(tiny_folders: dict[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = vli("serve", "--port", other.getsockname()[1], "--backbone", tiny_folders["t5"])
    assert "another program listens there" in result.refusal(6)
    assert len(result.lines) == 1


BAD_HOSTS = (
    "evil.test",
    "evil.test:{port}",
    "127.0.0.1.evil.test",
    "localhost.evil.test:{port}",
    "evil.test:127.0.0.1",
    "127.0.0.1@evil.test",
    "169.254.169.254",
    "0.0.0.0:{port}",
    "2130706433",
    "127.1",
    "[::1",
    "[::ffff:127.0.0.1]",
    "",
    "local host",
    "LOCALHOST.EVIL.TEST",
    None,
)


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_server_is_not_called_by_strange_names(host: str | None, target: Target) -> None:
    shown = None if host is None else host.format(port=target.port)
    for path, method in (("/health", "GET"), (f"http://127.0.0.1:{target.port}/health", "GET"), (CHAT, "POST")):
        request = target.request(method, path, headers={"Host": shown})
        with target.wire() as wire:
            wire.send(request if host is not None else request.replace(b"HTTP/1.1", b"HTTP/1.0"))
            assert refused(wire.reply(), 403)["code"] == "host"


def test_a_server_is_called_by_its_own_names(target: Target) -> None:
    for host in ("127.0.0.1", "localhost", "LOCALHOST", "localhost.", "[::1]", f"127.0.0.1:{target.port}"):
        assert target.ask("GET", "/health", headers={"Host": host}).status == 200


ORIGINS = (
    "https://evil.test",
    "http://evil.test:80",
    "null",
    "",
    "file://",
    "http://127.0.0.1.evil.test",
    "http://127.0.0.1@evil.test",
    "chrome-extension://abcdef",
    "http://[::1",
    "http://[",
    "http://]/",
    "http://a]b",
    "http://[v1.x]",
    "//",
    "http://evil.test http://127.0.0.1",
    "\xff",
    "http://ⅷ.test",
)


@pytest.mark.parametrize("origin", ORIGINS)
def test_pages_of_other_sites_are_refused_and_cors_is_off(origin: str, target: Target) -> None:
    for method, path in (("GET", "/health"), ("POST", CHAT), ("OPTIONS", CHAT)):
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        reply = target.ask(method, path, headers=asks)
        assert refused(reply, 403)["code"] == "origin"
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_no_answer_allows_another_origin(target: Target) -> None:
    own = {"Origin": f"http://127.0.0.1:{target.port}", "Access-Control-Request-Method": "POST"}
    for method, path in (("GET", "/health"), ("OPTIONS", CHAT), ("GET", "/v1/models")):
        reply = target.ask(method, path, headers=own)
        assert reply.status in (200, 405)
        assert not [name for name in reply.headers if name.startswith("access-control")]


# S04, S05: how much, and how slowly


@pytest.mark.parametrize("path", [*POSTS, "/health", "/nowhere"])
def test_a_gigabyte_that_is_announced_is_not_waited_for(path: str, target: Target) -> None:
    with target.wire() as wire:
        wire.send(target.request("POST", path, headers={"Content-Length": "1000000000"}))
        assert refused(wire.reply(), 413)["code"] == "too_large"
        assert wire.rest(5.0)[1], "the connection is closed"


def test_who_asks_whether_to_send_too_much_is_told_not_to(target: Target) -> None:
    with target.wire() as wire:
        wire.send(target.request("POST", CHAT, headers={"Content-Length": "1000000000", "Expect": "100-continue"}))
        assert refused(wire.reply(), 413)["code"] == "too_large"


def test_an_answer_on_an_open_connection_comes_at_once(target: Target) -> None:
    """Head and body are two packets: without TCP_NODELAY the second waits for the client's delayed acknowledgement."""
    seconds = []
    with target.wire() as wire:
        for _ in range(24):
            began = time.monotonic()
            wire.send(target.request("GET", "/health"))
            assert wire.reply() is not None
            seconds.append(time.monotonic() - began)
    assert sorted(seconds)[8] < 0.03, "a third of them are as fast as the machine; with the wait, each takes 0.04 s"


def chunks(num: int, size: int = 65_536) -> Iterator[bytes]:
    content = b"%x\r\n" % size + b"a" * size + b"\r\n"
    for _ in range(num):
        yield content


def send_until_answered(wire: Wire, parts: Iterator[bytes]) -> int:
    """Sends on until the server answers or hangs up; returns how many bytes were sent."""
    num_bytes = 0
    for part in parts:
        if select.select([wire.socket], [], [], 0)[0] or not wire.send(part):
            break
        num_bytes += len(part)
    return num_bytes


def chunked(target: Target, path: str = CHAT, **headers: str | None) -> bytes:
    return target.request("POST", path, headers={"Content-Length": None, "Transfer-Encoding": "chunked", **headers})


def test_of_40_megabytes_in_chunks_no_more_than_the_limit_is_kept(target: Target) -> None:
    with target.wire() as wire:
        wire.send(chunked(target))
        num_bytes = send_until_answered(wire, chunks(640))
        assert refused(wire.reply(), 413)["code"] == "too_large"
        assert wire.rest(5.0)[1]
    assert num_bytes < 20 * MIB, "what lies in the kernel's buffers, and the limit of 2 MiB"


def test_a_body_of_the_largest_size_comes_in(target: Target) -> None:
    body = json.dumps({"messages": asking(), "max_tokens": 2}).encode()
    assert target.post(CHAT, body + b" " * (2 * MIB - len(body))).status == 200
    assert target.post(CHAT, body + b" " * (2 * MIB - len(body) + 1)).status == 413


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "zstd", "br", "deflate", "gzip, gzip", "identity, gzip", "x"])
def test_a_compressed_body_is_not_unpacked(coding: str, target: Target) -> None:
    bomb = gzip.compress(bytes(20 * MIB))
    reply = target.post(CHAT, bomb, {"Content-Encoding": coding})
    assert refused(reply, 413, 415)["code"] in ("encoding", "too_large")


@pytest.mark.parametrize("refusal", ["no key", "coding"])
def test_of_a_refused_request_the_body_is_not_read_on_and_on(refusal: str, keyed: Target) -> None:
    headers = {"Authorization": None} if refusal == "no key" else {"Content-Encoding": "gzip"}
    with keyed.wire() as wire:
        wire.send(chunked(keyed, **headers))
        reply = wire.reply()
        num_sent = sum(1 for part in chunks(320) if wire.send(part))
        assert refused(reply, 401, 415)
    assert num_sent < 320, "20 MiB were read of a request that had been refused"


GARBAGE = (b"zz\r\n", b"-1\r\n", b"\xff" * 100 + b"\r\n", b"5\r\nabcdefgh\r\n", b"1" * 40 + b"\r\n")


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_behind_a_refused_request_ends_the_connection_and_logs_nothing(garbage: bytes, keyed: Target) -> None:
    with keyed.wire() as wire:
        wire.send(chunked(keyed, Authorization=None))
        assert refused(wire.reply(), 401)
        wire.send(garbage)
        assert wire.rest(5.0)[1]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_in_a_body_is_refused_and_logs_nothing(garbage: bytes, target: Target) -> None:
    with target.wire() as wire:
        wire.send(chunked(target) + b"2\r\n{}\r\n" + garbage)
        content, is_ended = wire.rest(5.0)
    assert is_ended
    assert re.match(rb"HTTP/1.1 40[08] ", content)
    assert content.count(b"HTTP/1.1 ") == 1


def test_half_a_body_is_not_worked_on(target: Target) -> None:
    num_lines = len(target.lines)
    body = json.dumps({"messages": asking(), "max_tokens": 2}).encode()
    for declared in ({"Content-Length": str(len(body) + 1)}, {"Content-Length": None, "Transfer-Encoding": "chunked"}):
        with target.wire() as wire:
            framed = body if declared["Content-Length"] else b"%x\r\n" % len(body) + body + b"\r\n"
            wire.send(target.request("POST", CHAT, headers=declared) + framed)
    time.sleep(0.3)
    assert not [line for line in target.lines[num_lines:] if " 200 " in line]


HEADS = {
    "10,000 headers": lambda: "\r\n".join(f"x-{place}: {place}" for place in range(10_000)),
    "a header of a megabyte": lambda: "x: " + "a" * MIB,
    "a name of a megabyte": lambda: "a" * MIB + ": x",
    "a folded header": lambda: "x: a\r\n" + " a\r\n" * 100_000 + "y: z",
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_that_is_too_large_ends_the_connection(kind: str, target: Target) -> None:
    content = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n{HEADS[kind]()}\r\n\r\n".encode()
    with target.wire() as wire:
        wire.send(content)
        answer, is_ended = wire.rest(5.0)
    assert is_ended, answer[:100]
    assert re.match(rb"HTTP/1.1 4\d\d |$", answer), answer[:100]


def test_a_path_of_a_megabyte_ends_the_connection(target: Target) -> None:
    with target.wire() as wire:
        wire.send(target.request("GET", "/" + "a" * MIB))
        answer, is_ended = wire.rest(5.0)
    assert is_ended
    assert re.match(rb"HTTP/1.1 4\d\d |$", answer), answer[:100]


def test_a_head_that_is_too_large_is_refused(target: Target) -> None:
    with target.wire() as wire:
        for _ in range(40):  # in pieces, as a network would bring it
            wire.send(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" if not _ else b"x: " + b"a" * 2_000 + b"\r\n")
            time.sleep(0.001)
        reply = wire.reply()
    assert reply is not None
    assert reply.status in (400, 431), reply.body  # h11 answers 400 in front of the application


def drip(wire: Wire, content: bytes, within_s: float) -> bool:
    """Sends one byte after the other; returns whether the server hangs up in time."""
    deadline = time.monotonic() + within_s
    for place in range(len(content)):
        if time.monotonic() > deadline:
            return False
        if select.select([wire.socket], [], [], 0.1)[0]:
            return wire.rest(0.5)[1]
        wire.send(content[place : place + 1])
    return wire.rest(max(deadline - time.monotonic(), 0.1))[1]


@pytest.mark.parametrize("num_before", [0, 1], ids=["first request", "second request"])
@pytest.mark.parametrize("way", ["silent", "half a head", "byte by byte", "only line ends"])
def test_a_head_that_does_not_come_ends_the_connection(
    way: str, num_before: int, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_FIRST_REQUEST_S", 0.5)
    monkeypatch.setattr(running, "_NEXT_REQUEST_S", 0.5)
    head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"x: y\r\n" * 100
    with target.wire() as wire:
        for _ in range(num_before):
            wire.send(target.request("GET", "/health"))
            reply = wire.reply()
            assert reply is not None
            assert reply.status == 200
        content = {"silent": b"", "half a head": head, "byte by byte": b"", "only line ends": b""}[way]
        wire.send(content)
        sent_slowly = {"byte by byte": head, "only line ends": b"\r\n" * 100}.get(way, b"")
        assert drip(wire, sent_slowly, 3.0), "still open after 3 s, and 0.5 s were given"


def test_who_was_refused_may_not_go_on_sending_slowly(keyed: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_FIRST_REQUEST_S", 0.5)
    with keyed.wire() as wire:
        wire.send(keyed.request("POST", CHAT, headers={"Authorization": None, "Content-Length": "1000"}))
        assert refused(wire.reply(), 401)
        assert drip(wire, b"a" * 900, 3.0), "a body that nobody wants has been read for 3 s"


@pytest.mark.parametrize("way", ["length", "chunked"])
def test_a_slow_body_is_given_up(way: str, target: Target) -> None:
    with target.wire() as wire:
        if way == "length":
            wire.send(target.request("POST", CHAT, headers={"Content-Length": "1000"}) + b"{")
        else:
            wire.send(chunked(target) + b"1\r\n{\r\n")
        began = time.monotonic()
        for _ in range(12):
            if select.select([wire.socket], [], [], 0.2)[0]:
                break
            wire.send(b" " if way == "length" else b"1\r\n \r\n")
        assert refused(wire.reply(), 408)["code"] == "slow"
        assert wire.rest(5.0)[1]
    assert time.monotonic() - began > 1.0, "1.5 s are given"


def test_slow_bodies_free_their_slots() -> None:
    gate = GateSettings(max_requests=3, body_timeout_s=0.5)
    with attacked(Model(Puppet()), ServeSettings(name="tiny", gate=gate)) as target, ExitStack() as wires:
        for _ in range(3):
            wire = wires.enter_context(target.wire())
            wire.send(target.request("POST", CHAT, headers={"Content-Length": "1000"}) + b"{")
        assert soon(lambda: target.gate.num_requests == 3)
        assert target.ask("GET", "/v1/models").status == 429
        assert soon(lambda: target.gate.num_requests == 0)
        target.assert_sound()


def test_two_thousand_idle_connections_keep_nobody_away(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_FIRST_REQUEST_S", 2.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, min(8_192, hard if hard != resource.RLIM_INFINITY else 8_192))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        num = min(2_000, (wanted - 400) // 2)  # both ends are ours
        assert num >= 300
        with ExitStack() as wires:
            opened = [wires.enter_context(target.wire()) for _ in range(num)]
            target.assert_sound()
            assert sum(wire.rest(10.0)[1] for wire in opened) == num, "silent ones are closed"
        assert soon(lambda: target.gate.num_requests == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# S06, S13, S14, S19: what a request says


BODIES = {
    "nothing": b"",
    "half an object": b"{",
    "a list": b"[]",
    "a text": b'"messages"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "NUL bytes": b"\0" * 100,
    "NUL in a text": b'{"messages": [{"role": "user", "content": "a\\u0000b"}]}',
    "raw NUL in a text": b'{"messages": [{"role": "user", "content": "a\0b"}]}',
    "no UTF-8": b'{"messages": "\xff\xfe"}',
    "half a character": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "NaN": b'{"messages": [], "temperature": NaN}',
    "Infinity": b'{"messages": [], "temperature": -Infinity}',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep and closed": b'{"metadata": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a number of 5,000 digits": b'{"seed": ' + b"9" * 5_000 + b"}",
    "no messages": b"{}",
    "empty messages": b'{"messages": []}',
    "two objects": b"{}{}",
    "comments": b'{"messages": [] /* */}',
    "a form": b"messages=hi&model=tiny",
    "a multipart form": b"--x\r\nContent-Disposition: form-data; name=messages\r\n\r\nhi\r\n--x--",
    "unheard-of field": b'{"messages": [], "__class__": 1}',
    "an unheard-of field of half a character": b'{"\\ud800": 1}',
    "an unheard-of field of 100,000 letters": b'{"' + b"a" * 100_000 + b'": 1}',
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_makes_no_sense_is_refused_in_words(kind: str, path: str, target: Target) -> None:
    assert refused(target.post(path, BODIES[kind]), 400)["type"] == "invalid_request_error"


BIG = 10**400  # more than a float holds
FIELDS: list[tuple[Mapping[str, Any], str]] = [
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens"),
    ({"max_tokens": BIG}, "max_tokens"),
    ({"max_tokens": "8"}, "max_tokens"),
    ({"max_tokens": 8.5}, "max_tokens"),
    ({"max_completion_tokens": 10**9}, "max_tokens"),
    ({"n": 10**6}, "n"),
    ({"n": 0}, "n"),
    ({"n": True}, "n"),
    ({"n": [1]}, "n"),
    ({"stop": ["a"] * 1000}, "stop"),
    ({"stop": "a" * 10_000}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"stop": {"a": 1}}, "stop"),
    ({"stop": [["a"]]}, "stop"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 1e308}, "temperature"),
    ({"temperature": BIG}, "temperature"),
    ({"temperature": -BIG}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": BIG}, "top_p"),
    ({"top_p": -1}, "top_p"),
    ({"repetition_penalty": BIG}, "repetition_penalty"),
    ({"repetition_penalty": 1e300}, "repetition_penalty"),
    ({"logit_bias": {str(token): 100 for token in range(10_000)}}, "logit_bias"),
    ({"logit_bias": {"-1": BIG}}, "logit_bias"),
    ({"top_logprobs": BIG}, "top_logprobs"),
    ({"min_tokens": 10**9}, "min_tokens"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**64}, "seed"),
    ({"seed": BIG}, "seed"),
    ({"stream": 1}, "stream"),
    ({"stream_options": [1]}, "stream_options"),
    ({"stream_options": {"include_usage": "yes"}}, "include_usage"),
    ({"logprobs": "yes"}, "logprobs"),
    ({"prompt_logprobs": BIG}, "prompt_logprobs"),
    ({"prompt_logprobs": {}}, "prompt_logprobs"),
    ({"vlinstruct": [1]}, "vlinstruct"),
    ({"vlinstruct": {"reads": 1}}, "vlinstruct.reads"),
    ({"vlinstruct": {"optimize": "yes"}}, "optimize"),
    ({"messages": None}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": [None]}, "messages[0]"),
    ({"messages": [[]]}, "messages[0]"),
    ({"messages": [{"role": "user"}]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": {"text": "a"}}]}, "messages[0]"),
    ({"messages": [{"role": ["user"], "content": "a"}]}, "messages[0]"),
    ({"messages": [{"role": "system", "content": "a"}] * 2}, "messages[1]"),
    ({"messages": [{"role": "user", "content": "a"}] * 1_000}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": "a" * 100_000}]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": " \u200b\n"}]}, "messages"),
    ({"continue_final_message": True}, "messages"),
]


@pytest.mark.parametrize(("fields", "param"), FIELDS, ids=range(len(FIELDS)))
def test_a_value_beyond_its_range_is_refused_by_its_name(fields: Any, param: str, target: Target) -> None:
    assert refused(target.post(CHAT, {"messages": asking(), **fields}), 400)["param"] == param


@pytest.mark.parametrize("spelling", ["1e999", "-1e999", "1e-999", "NaN", "Infinity", "-0.0000001", "1" + "0" * 4_000])
@pytest.mark.parametrize("name", ["temperature", "top_p", "repetition_penalty"])
def test_no_spelling_of_a_number_is_an_error_of_ours(name: str, spelling: str, target: Target) -> None:
    body = f'{{"messages": {json.dumps(asking())}, "max_tokens": 2, "{name}": {spelling}}}'.encode()
    reply = target.post(CHAT, body)
    assert reply.status in (200, 400), reply.body
    if reply.status == 400:
        assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("place", ["picture", "prompt", "system", "reads", "target", "stop", "model", "instruction"])
def test_half_a_character_is_refused_wherever_it_stands(place: str, target: Target) -> None:
    half = "a\ud800b"
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "picture": (CHAT, {"messages": asking("describe", f"{URI}{half}")}),
        "prompt": (CHAT, {"messages": asking(half)}),
        "system": (CHAT, {"messages": [{"role": "system", "content": half}, *asking()]}),
        "reads": (CHAT, {"messages": asking(), "vlinstruct": {"reads": half}}),
        "target": (
            CHAT,
            {
                "messages": [*asking(), {"role": "assistant", "content": half}],
                "continue_final_message": True,
                "prompt_logprobs": 0,
            },
        ),
        "stop": (CHAT, {"messages": asking(), "stop": half, "max_tokens": 2}),
        "model": (CHAT, {"messages": asking(), "model": half}),
        "instruction": ("/v1/score", {"image": URI, "instructions": [half]}),
    }
    path, body = bodies[place]
    reply = target.post(path, body)
    assert reply.status in ((200, 400) if place == "stop" else (400, 404)), reply.body


@pytest.mark.parametrize("path", ["/v1/optimize", "/v1/score"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"image": None},
        {"image": [URI]},
        {"image": {"url": URI}},
        {"image": "\ud800"},
        {"image": "x" * MIB},
        {"instruction": None, "instructions": None},
        {"instruction": 5, "instructions": []},
        {"instruction": "", "instructions": [""]},
        {"instruction": "a" * 100_000, "instructions": ["a" * 100_000]},
        {"instruction": "a\ud800", "instructions": ["a\ud800"]},
        {"instruction": ["a"], "instructions": ["a"] * 65},
        {"instruction": {}, "instructions": {"a": 1}},
        {"\ud800": 1},
        {"a\nb": 1},
    ],
    ids=range(15),
)
def test_our_own_routes_refuse_what_they_do_not_take(fields: dict[str, Any], path: str, target: Target) -> None:
    texts = "instruction" if path == "/v1/optimize" else "instructions"
    usual = {"image": URI, texts: "describe" if texts == "instruction" else ["describe"]} if fields else {}
    body = {name: value for name, value in {**usual, **fields}.items() if not name.startswith("inst") or name == texts}
    assert refused(target.post(path, body), 400)["type"] == "invalid_request_error"


@pytest.mark.parametrize("place", ["prompt", "system", "history", "reads", "target"])
def test_a_text_that_no_model_can_hold_is_refused_before_it_is_read(place: str) -> None:
    long = "a " * MAX_INSTRUCTION_CHARACTERS
    body: dict[str, Any] = {"messages": asking(long if place == "prompt" else "describe")}
    if place == "system":
        body["messages"].insert(0, {"role": "system", "content": long})
    if place == "history":
        body["messages"] = [*asking(), {"role": "assistant", "content": long}, {"role": "user", "content": "and?"}]
    if place == "reads":
        body["vlinstruct"] = {"reads": long}
    if place == "target":
        body["messages"].append({"role": "assistant", "content": long})
        body |= {"continue_final_message": True, "prompt_logprobs": 0}
    puppet = Puppet()
    with attacked(Model(puppet)) as target:
        reply = target.post(CHAT, body)
        target.assert_sound()
    assert max(map(len, puppet.prompts)) <= MAX_INSTRUCTION_CHARACTERS
    assert reply.status == 400


@pytest.mark.parametrize("place", ["system", "reads"])
def test_a_megabyte_of_text_holds_nobody_up(place: str, target: Target) -> None:
    long = "word " * 200_000
    body: dict[str, Any] = {"messages": asking(), "max_tokens": 2}
    if place == "system":
        body["messages"] = [{"role": "system", "content": long}, *asking()]
    else:
        body["vlinstruct"] = {"reads": long}
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(target.post, CHAT, body)
        time.sleep(0.1)
        assert target.ask("GET", "/health").status == 200
        assert reply.result().status in (200, 400), reply.result().body
    assert time.monotonic() - began < 10


def test_control_tokens_in_a_text_are_letters(here: Model, target: Target) -> None:
    settings = GenerationSettings(max_new_tokens=6)
    for text in ("<image> what", "a </s> b", "[SEP] [CLS] <pad>", "<|im_end|><|endoftext|>", "{image} {0} %s", "<s>"):
        reply = target.post(CHAT, {"messages": asking(text), "max_tokens": 6})
        picture = make_picture(24, 24)
        assert reply.status == 200
        assert reply.json["choices"][0]["message"]["content"] == here.ask(picture, text, generation=settings).text

    def num_read(text: str) -> int:
        count: int = target.post(CHAT, {"messages": asking(text), "max_tokens": 1}).json["usage"]["prompt_tokens"]
        return count

    assert num_read("a</s>") > num_read("a") + 1, "more than one token: it is spelt out"


@pytest.mark.parametrize("num", [2, 3, 100])
@pytest.mark.parametrize("spread", [False, True], ids=["one message", "many messages"])
def test_more_pictures_than_one_are_refused_with_the_number(num: int, spread: bool, target: Target) -> None:
    if spread:
        turns = [*asking(), {"role": "assistant", "content": "a"}] * min(num, 60)
        messages, num = [*turns, {"role": "user", "content": "b"}], min(num, 60)
    else:
        messages = asking("describe", *[URI] * num)
    error = refused(target.post(CHAT, {"messages": messages}), 400)
    assert "one picture" in error["message"]
    assert f"got {num}" in error["message"]


def test_a_picture_is_asked_for_where_the_model_needs_one() -> None:
    class Seeing(Puppet):
        abilities = Abilities(can_write_alone=False)

    with attacked(Model(Seeing())) as target:
        error = refused(target.post(CHAT, {"messages": [{"role": "user", "content": "hi"}]}), 400)
        target.assert_sound()
    assert "picture is needed" in error["message"]


STRANGE_NAMES = (
    "../../x",
    "/etc/passwd",
    "mini",
    "Salesforce/instructblip-flan-t5-xl",
    "tiny ",
    "TINY",
    "",
    "tiny\n",
    "file:///etc/passwd",
    "{sentinel}",
    "a" * 10_000,
    "\x1b[2J",
    0,
    ["tiny"],
    {"name": "tiny"},
    True,
)


@pytest.fixture(scope="module")
def opened() -> Iterator[list[str]]:
    """Files that any thread but the test's opens; one hook for all tests, since Python never lets go of one."""
    paths: list[str] = []
    is_watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if is_watching and event == "open" and threading.current_thread() is not threading.main_thread():
            paths.append(str(arguments[0]))

    sys.addaudithook(watch)
    yield paths
    is_watching = False


@pytest.mark.parametrize("name", STRANGE_NAMES, ids=range(len(STRANGE_NAMES)))
def test_a_strange_model_is_not_found_and_never_loaded(
    name: Any, target: Target, sentinel: Scripted, network: Network, opened: list[str]
) -> None:
    name = sentinel.url if name == "{sentinel}" else name
    opened.clear()
    for path, fields in (
        (CHAT, {"messages": asking()}),
        ("/v1/optimize", {"image": URI, "instruction": "a"}),
        ("/v1/score", {"image": URI, "instructions": ["a"]}),
    ):
        error = refused(target.post(path, {"model": name, **fields}), 404)
        assert error["param"] == "model"
        assert not (isinstance(name, str) and len(name) > 6 and name in error["message"])
    if isinstance(name, str) and name.isascii() and name.isprintable() and len(name) < 1000:
        reply = target.ask("GET", f"/v1/models/{name.replace(' ', '%20')}")
        assert reply.status == 404
    assert opened == []
    network.assert_untouched()
    assert sentinel.asked == []


# S07 to S11: pictures


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("url", ["http://good.test/a.png", "https://good.test/a.png", "HTTP://127.0.0.1:{port}/a.png"])
def test_no_picture_is_fetched_unless_the_server_was_told_to(
    url: str, path: str, target: Target, network: Network, sentinel: Scripted
) -> None:
    url = url.format(port=port_of(sentinel))
    fields = {"image": url, "instruction": "a"} if path == "/v1/optimize" else {"image": url, "instructions": ["a"]}
    error = refused(target.post(path, about(url) if path == CHAT else fields), 400)
    assert error["code"] == "url_refused"
    network.assert_untouched()
    assert (network.num_public, network.num_looked_up, sentinel.asked) == (0, 0, [])


@pytest.mark.parametrize("url", [*PRIVATE_URLS, *OTHER_URLS], ids=lambda url: ascii(url[:60]))
def test_no_url_leads_into_the_private_network(
    url: str, fetcher: Target, network: Network, sentinel: Scripted, public: Scripted
) -> None:
    url = url.format(port=port_of(sentinel))
    reply = fetcher.post(CHAT, about(url))
    network.assert_untouched()
    assert sentinel.asked == []
    assert reply.status == 400 or network.num_public, (url[:200], reply.body[:200])
    assert reply.status < 500


def test_there_are_enough_urls() -> None:
    assert len({*PRIVATE_URLS, *OTHER_URLS}) >= 140


def test_the_made_up_network_shows_what_it_should(
    fetcher: Target, network: Network, sentinel: Scripted, public: Scripted
) -> None:
    """A guard that is never reached would pass every test above."""
    assert fetcher.post(CHAT, about("http://good.test/fine.png")).status == 200
    assert network.num_public == 1
    with socket.socket() as inside:
        inside.connect(("127.0.0.1", port_of(sentinel)))
    assert network.inside == [("127.0.0.1", port_of(sentinel))]
    for address in ("::1", "fe80::1"):
        with socket.socket(socket.AF_INET6) as outside, pytest.raises(ConnectionRefusedError):
            outside.connect((address, 80))
    with socket.socket() as outside, pytest.raises(ConnectionRefusedError):
        outside.connect(("0.0.0.0", 80))
    assert len(network.strayed) == 3


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("place", range(len(REDIRECTS)))
def test_no_redirect_leads_into_the_private_network(
    place: int, status: int, fetcher: Target, network: Network, sentinel: Scripted
) -> None:
    LOCATIONS[:] = [REDIRECTS[place].format(port=port_of(sentinel))]
    reply = fetcher.post(CHAT, about(f"http://good.test/to/0/{status}"))
    network.assert_untouched()
    assert sentinel.asked == []
    assert network.num_public >= 1
    assert reply.status == 400 or network.num_public >= 2, "what answers is the public site, asked again"


@pytest.mark.parametrize(
    ("url", "is_fetched"),
    [
        ("http://mixed.test:{port}/a.png", False),
        ("http://mixed-last.test:{port}/a.png", False),
        ("http://mixed-six.test:{port}/a.png", False),
        ("http://rebinding.test:{port}/a.png", True),
        ("http://rebinding.test:{port}/to/0", False),
        ("http://turning.test:{port}/to/1", False),
        ("http://good.test/to/2", False),
        ("http://good.test/to/3", False),
    ],
)
def test_a_name_that_changes_its_answer_leads_nowhere_inside(
    url: str, is_fetched: bool, fetcher: Target, network: Network, sentinel: Scripted
) -> None:
    port = port_of(sentinel)
    LOCATIONS[:] = [
        f"http://rebinding.test:{port}/b.png",  # itself: its second look-up says 127.0.0.1
        f"http://turning.test:{port}/b.png",
        "http://good.test/to/3",  # a chain
        f"http://127.0.0.1:{port}/b.png",
    ]
    reply = fetcher.post(CHAT, about(url.format(port=port)))
    network.assert_untouched()
    assert sentinel.asked == []
    assert reply.status == (200 if is_fetched else 400)


@pytest.mark.parametrize("host", PROXIED_HOSTS)
def test_no_proxy_is_asked_for_a_private_address(
    host: str, fetcher: Target, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted(lambda path, body: (200, PICTURE, {})) as proxy:
        network.known_ports.add(port_of(proxy))
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        assert fetcher.post(CHAT, about("http://good.test/a.png")).status == 200
        assert [path for path, _, _ in proxy.asked] == ["http://good.test/a.png"]
        reply = fetcher.post(CHAT, about(f"http://{host}/a.png"))
        assert len(proxy.asked) == 1, proxy.asked[1:]
    network.assert_untouched()
    assert reply.status == 400


FOREIGN_FILES = {
    "a playlist": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n",
    "a list of ffmpeg": "ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/a.mp4'\n",
    "an SVG": '<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:{port}/a.png"/></svg>',
    "an SVG of a file": '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
    "PostScript": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "ImageMagick's words": "push graphic-context\nviewbox 0 0 9 9\nimage over 0,0 0,0 'http://127.0.0.1:{port}/a'\n",
    "a PDF": "%PDF-1.4\n1 0 obj<</URI(http://127.0.0.1:{port}/)>>",
    "HTML": "<html><img src='http://127.0.0.1:{port}/a.png'></html>",
    "an XBM": "#define a_width 8\n#define a_height 8\nstatic char a_bits[] = {{ 0x00 }};",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", FOREIGN_FILES)
@pytest.mark.parametrize("declared", ["image/png", "image/svg+xml"])
def test_a_file_that_names_others_opens_none(
    kind: str, declared: str, fetcher: Target, network: Network, sentinel: Scripted
) -> None:
    content = FOREIGN_FILES[kind].format(port=port_of(sentinel)).encode()
    refused(fetcher.post(CHAT, about(uri_of(content, declared))), 400)
    network.assert_untouched()
    assert sentinel.asked == []


def bomb(width: int, height: int) -> bytes:
    """Returns a whole PNG of black pixels, 8 to a byte: a thousand times larger once it is decoded."""
    import struct

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    body = b"".join([packer.compress(row * 100) for _ in range(height // 100)] + [packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(make_png_chunk(name, content) for name, content in parts)


PICTURES: Mapping[str, Callable[[], str]] = {
    "0 bytes": lambda: uri_of(b""),
    "a bomb": lambda: uri_of(bomb(20_000, 20_000)),
    "a bomb of a header": lambda: uri_of(make_png(60_000, 60_000)),
    "a bomb of words": lambda: uri_of(
        make_png(8, 8, make_png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(20 * MIB), 9)))
    ),
    "no pixels": lambda: uri_of(make_png(0, 0)),
    "2^31 pixels wide": lambda: uri_of(make_png(2**31 - 1, 1)),
    "half a PNG": lambda: uri_of(PICTURE[: len(PICTURE) // 2]),
    "noise": lambda: uri_of(random.Random(0).randbytes(5_000)),
    "a wrong kind": lambda: uri_of(b"<html>", "image/png"),
    "no base64": lambda: "data:image/png;base64,!!!!",
    "base64 with spaces": lambda: URI[:60] + "\n" + URI[60:],
    "base64 of URLs": lambda: "data:image/png;base64,__--" + "_" * 4,
    "half a group": lambda: "data:image/png;base64,AAAAA",
    "padding": lambda: "data:image/png;base64,====",
    "letters that are none": lambda: "data:image/png;base64,ÄÖÜß",
    "half a character": lambda: "data:image/png;base64,\ud800",
    "NUL": lambda: "data:image/png;base64,\0",
    "a megabyte of nothing": lambda: uri_of(bytes(MIB)),
    "a sound": lambda: uri_of(b"RIFF\x24\0\0\0WAVEfmt " + bytes(30)),
    "half a clip": lambda: uri_of(b"\0\0\0\x20ftypisom" + bytes(100)),
    "a clip of noise": lambda: uri_of(b"\x1aE\xdf\xa3" + random.Random(1).randbytes(2_000)),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_that_cannot_be_read_is_refused(kind: str, target: Target) -> None:
    url = PICTURES[kind]()
    assert len(url) < 1_900_000, "it is not the body's limit that refuses it"
    refused(target.post(CHAT, about(url)), 400)
    refused(target.post("/v1/score", {"image": url, "instructions": ["a"]}), 400)


def test_a_picture_of_200_megabytes_is_not_waited_for(target: Target) -> None:
    with target.wire() as wire:
        wire.send(target.request("POST", CHAT, headers={"Content-Length": "200000000"}))
        wire.send(b'{"messages": [{"role": "user", "content": [{"image_url": "data:image/png;base64,')
        assert refused(wire.reply(), 413)["code"] == "too_large"


@pytest.mark.parametrize("size", [(1, 1), (1, 3_000), (3_000, 1)])
def test_a_picture_of_a_strange_shape_is_seen_as_by_the_library(
    size: tuple[int, int], here: Model, target: Target
) -> None:
    import io

    buffer = io.BytesIO()
    make_picture(*size).save(buffer, "PNG")
    reply = target.post(CHAT, {**about(uri_of(buffer.getvalue())), "max_tokens": 4})
    assert reply.status == 200
    text = here.ask(buffer.getvalue(), "describe", generation=GenerationSettings(max_new_tokens=4)).text
    assert reply.json["choices"][0]["message"]["content"] == text


def test_pictures_are_not_all_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of 50 KB is a picture of 49 megapixels, and 150 MB once it is decoded: 256 of them do not fit."""
    lock, num, most = threading.Lock(), 0, 0

    def load_slowly(*_: object, **__: object) -> LoadedMedium:
        nonlocal num, most
        with lock:
            num += 1
            most = max(most, num)
        time.sleep(0.1)
        with lock:
            num -= 1
        return LoadedMedium(medium=make_picture(8, 8))

    monkeypatch.setattr(conversation, "load_medium", load_slowly)
    with attacked(Model(Puppet())) as target, ThreadPoolExecutor(64) as pool:
        urls = [uri_of(b"%d" % place) for place in range(64)]
        replies = list(pool.map(lambda url: target.post(CHAT, about(url)).status, urls))
        target.assert_sound()
    assert replies == [200] * 64
    assert 1 <= most <= 16


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in {"TIMEOUT_S": 0.5, "TOTAL_S": 0.8, "MAX_BYTES": 300_000}.items():
        monkeypatch.setattr(fetching, name, limit)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("behave", [*SITES, *MORE_SITES], ids=lambda behave: behave.__name__)
def test_a_site_that_misbehaves_is_cut_off(behave: Callable[..., None], fetcher: Target, network: Network) -> None:
    with misbehaving(behave) as site:
        network.public_port = site.port
        began = time.monotonic()
        reply = fetcher.post(CHAT, about("http://good.test/a.png"))
        took_s = time.monotonic() - began
        assert reply.status == 400, reply.body
        assert site.num_served == 1
        assert took_s < 4, took_s
    network.assert_untouched()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("behave", [endless, drip_by_byte, drip_head, endless_interim], ids=lambda site: site.__name__)
def test_a_site_that_is_cut_off_keeps_no_thread_and_no_connection(
    behave: Callable[..., None], fetcher: Target, network: Network
) -> None:
    num_threads = threading.active_count()
    with misbehaving(behave) as site:
        network.public_port = site.port
        for _ in range(3):
            assert fetcher.post(CHAT, about("http://good.test/a.png")).status == 400
        assert site.left.wait(2.0), "the client still listens, and its thread lives on"
        assert soon(lambda: threading.active_count() <= num_threads + 6, 2.0), threading.enumerate()


@pytest.mark.usefixtures("impatient")
def test_a_slow_look_up_is_cut_off(fetcher: Target, network: Network) -> None:
    network.delay_s = 2.5
    began = time.monotonic()
    assert fetcher.post(CHAT, about("http://good.test/a.png")).status == 400
    assert time.monotonic() - began < 2.4


# S15, S16: many clients, and clients that leave


@dataclass
class Held:
    """A model that works on nothing until it is let go."""

    puppet: Puppet
    free: threading.Event

    @classmethod
    def at(cls, step: str, **options: Any) -> Held:
        free = threading.Event()
        return cls(Puppet(**{step: lambda *_: free.wait(20) and None}, **options), free)


def plain(question: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "max_tokens": 2, **fields}


def test_of_200_requests_at_once_most_are_told_to_come_back() -> None:
    held, num_threads = Held.at("on_write"), threading.active_count()
    settings = ServeSettings(name="tiny", gate=GateSettings(max_requests=8))
    with attacked(Model(held.puppet), settings) as target, ExitStack() as wires:
        opened = [wires.enter_context(target.wire()) for _ in range(200)]
        for wire in opened:
            wire.send(target.request("POST", CHAT, json.dumps(plain()).encode()))
        assert soon(lambda: sum(bool(select.select([wire.socket], [], [], 0)[0]) for wire in opened) == 192)
        assert threading.active_count() <= num_threads + 8 + 4
        held.free.set()
        replies = [wire.reply() for wire in opened]
        target.assert_sound()
    statuses = [reply.status for reply in replies if reply is not None]
    assert (statuses.count(200), statuses.count(429)) == (8, 192)
    for reply in replies:
        assert reply is not None
        if reply.status == 429:
            assert reply.error["code"] == "busy"
            assert int(reply.headers["retry-after"]) >= 1


def test_health_is_told_while_every_slot_is_taken() -> None:
    held = Held.at("on_write")
    settings = ServeSettings(name="tiny", gate=GateSettings(max_requests=1))
    with attacked(Model(held.puppet), settings) as target, target.wire() as wire:
        wire.send(target.request("POST", CHAT, json.dumps(plain()).encode()))
        assert soon(lambda: target.gate.num_requests == 1)
        busy, health = target.post(CHAT, plain()).status, target.ask("GET", "/health").status
        held.free.set()
        assert getattr(wire.reply(), "status", None) == 200
    assert busy == 429
    assert health == 200, "who watches over the process would end it for being busy"


def test_a_client_that_leaves_a_stream_frees_its_slot_and_the_model() -> None:
    puppet = Puppet(on_piece=lambda place: time.sleep(0.03), num_pieces=400)
    settings = ServeSettings(name="tiny", gate=GateSettings(max_requests=1))
    with attacked(Model(puppet), settings) as target:
        for _ in range(3):
            with target.wire() as wire:
                wire.send(target.request("POST", CHAT, json.dumps(plain(stream=True)).encode()))
                assert wire.until(b"red").startswith(b"HTTP/1.1 200")
                assert target.post(CHAT, plain()).status == 429, "the slot is taken while it streams"
            assert soon(lambda: target.post(CHAT, plain()).status == 200, 2.0)
        time.sleep(0.2)  # a step may end
        num = puppet.num_yielded
        assert num >= 3
        time.sleep(0.3)
        assert puppet.num_yielded == num, "nobody reads, and the model writes on"
        target.assert_sound()


def test_a_client_that_leaves_while_it_waits_frees_its_slot() -> None:
    held = Held.at("on_write")
    settings = ServeSettings(name="tiny", gate=GateSettings(max_requests=2))
    with attacked(Model(held.puppet), settings) as target:
        with target.wire() as one, target.wire() as other:
            for wire in (one, other):
                wire.send(target.request("POST", CHAT, json.dumps(plain()).encode()))
            assert soon(lambda: target.gate.num_requests == 2)
        is_free = soon(lambda: target.gate.num_requests == 0, 2.0)
        held.free.set()
        target.assert_sound()
    assert is_free, "both slots are held for clients that are gone"


def test_what_clients_that_left_asked_for_is_not_worked_on() -> None:
    held = Held.at("on_write")
    with attacked(Model(held.puppet), ServeSettings(name="tiny", batch_size=1)) as target:
        for place in range(6):
            with target.wire() as wire:
                wire.send(target.request("POST", CHAT, json.dumps(plain(f"hi {place}")).encode()))
                assert soon(lambda: target.gate.num_requests > 0), place
        time.sleep(0.5)
        held.free.set()
        target.assert_sound()
    assert held.puppet.num_written <= 2 + 1, "the one at work may end; those that waited are nobody's"


@pytest.mark.parametrize("num_in_flight", [1, 4])
def test_of_an_optimization_that_nobody_waits_for_no_further_step_is_begun(num_in_flight: int) -> None:
    held = Held.at("on_write")
    held.puppet.abilities = replace(held.puppet.abilities, num_in_flight=num_in_flight)
    settings = ServeSettings(name="tiny", optimization=OptimizationSettings(when="always"))
    with attacked(Model(held.puppet), settings) as target:
        with target.wire() as wire:
            asked = {"image": URI, "instruction": "star color plz"}
            wire.send(target.request("POST", "/v1/optimize", json.dumps(asked).encode()))
            assert soon(lambda: held.puppet.prompts)
        assert soon(lambda: target.gate.num_requests == 0)
        begun = list(held.puppet.prompts)
        held.free.set()
        target.assert_sound()
    assert [text for text in held.puppet.prompts[len(begun) :] if "plz" in text] == []


def test_a_model_that_is_late_when_its_server_has_ended_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: raised.append(told.exc_value))
    held = Held.at("on_piece")
    with attacked(Model(held.puppet), waits=False) as target, target.wire() as wire:
        wire.send(target.request("POST", CHAT, json.dumps(plain(stream=True)).encode()))
        assert wire.until(b"data: ").startswith(b"HTTP/1.1 200")
        assert soon(lambda: held.puppet.num_streaming == 1)
        wire.socket.close()
        assert soon(lambda: target.gate.num_requests == 0)
    held.free.set()
    assert soon(lambda: held.puppet.num_streaming == 0)
    time.sleep(0.1)
    assert raised == []


@pytest.mark.parametrize("way", ["a stream", "pipelined requests"])
def test_a_client_that_reads_nothing_frees_its_slot(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_UNREAD_S", 1.0)

    class Counted:
        num = 0

        def collect(self) -> list[Any]:
            self.num += 1
            return []

    counted, puppet = Counted(), Puppet(piece="x" * 65_536, num_pieces=300)
    gate = GateSettings(max_requests=1, body_timeout_s=0.5)
    with attacked(Model(puppet), ServeSettings(name="tiny", gate=gate, timeout_s=1.0)) as target:
        target.service.registry.register(counted)  # type: ignore[arg-type]
        with target.wire(receive_bytes=4_096) as wire:
            if way == "a stream":
                wire.send(target.request("POST", CHAT, json.dumps(plain(stream=True, max_tokens=4_096)).encode()))
            else:
                for _ in range(400):
                    wire.send(target.request("GET", "/metrics") * 50)
            num_before, since = -1, time.monotonic()
            while time.monotonic() - since < 0.8:  # until it goes on no further
                num = counted.num + puppet.num_yielded
                if num != num_before:
                    num_before, since = num, time.monotonic()
                time.sleep(0.02)
            assert counted.num < 20_000, "the attack itself: all answers went into buffers"
            is_free = soon(lambda: target.ask("GET", "/v1/models").status == 200, 6.0)
        assert soon(lambda: target.gate.num_requests == 0)
        target.assert_sound()
    assert is_free, "one client that reads nothing keeps everybody away for as long as it likes"


def test_clients_that_leave_streams_pile_up_no_threads() -> None:
    held, num_threads = Held.at("on_piece"), threading.active_count()
    settings = ServeSettings(name="tiny", gate=GateSettings(max_requests=4))
    with attacked(Model(held.puppet), settings) as target:
        for _ in range(40):
            with target.wire() as wire:
                body = json.dumps(plain(stream=True)).encode()
                wire.send(target.request("POST", CHAT, body, {"Connection": "close"}))
                wire.until(b"data: ")  # it has begun, or is refused
            soon(lambda: target.gate.num_requests < 4, 0.1)
        num_more = threading.active_count() - num_threads
        held.free.set()
        target.assert_sound()
    assert num_more <= 4 + 8, "each of 40 clients left a thread behind, and 4 may be at work"


def test_requests_that_ran_out_of_time_pile_up_no_threads_and_no_calls() -> None:
    held, num_threads = Held.at("on_write"), threading.active_count()
    settings = ServeSettings(name="tiny", gate=GateSettings(max_requests=4), timeout_s=0.3)
    with attacked(Model(held.puppet), settings) as target, ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda _: target.post(CHAT, plain()).status, range(32)))
        num_more, num_calls = threading.active_count() - num_threads, target.service.backend.num_waiting
        held.free.set()
        assert soon(lambda: target.post(CHAT, plain()).status == 200)
        target.assert_sound()
    assert set(statuses) <= {429, 503, 504}
    assert 504 in statuses
    assert (num_more <= 4 + 4 + 8, num_calls <= 4) == (True, True), (num_more, num_calls)


@pytest.mark.parametrize("step", ["on_see", "on_piece"])
def test_a_stream_that_does_not_come_ends_in_time_and_in_words(step: str, caplog: pytest.LogCaptureFixture) -> None:
    held = Held.at(step)
    with attacked(Model(held.puppet), ServeSettings(name="tiny", timeout_s=0.8)) as target:
        with target.wire() as wire:
            body = {"messages": asking(), "stream": True, "max_tokens": 2}
            wire.send(target.request("POST", CHAT, json.dumps(body).encode(), {"Connection": "close"}))
            content, is_ended = wire.rest(4.0)
        held.free.set()
        target.assert_sound()
    assert is_ended, "it waits for longer than the server's limit of 0.8 s"
    assert b'"error"' in content
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_a_slow_stream_ends_at_the_servers_limit() -> None:
    puppet = Puppet(on_piece=lambda place: time.sleep(0.2), num_pieces=60)
    with attacked(Model(puppet), ServeSettings(name="tiny", timeout_s=0.8)) as target:
        with target.wire() as wire:
            body = json.dumps(plain(stream=True)).encode()
            wire.send(target.request("POST", CHAT, body, {"Connection": "close"}))
            _, is_ended = wire.rest(4.0)
        target.assert_sound()
    assert is_ended, "`timeout_s` is most seconds of a request, and a stream is one"


@pytest.mark.slow
def test_a_thousand_abuses_leave_no_memory_behind(target: Target) -> None:
    """Bodies that are refused at every depth; the first 300 fill caches."""
    url = PICTURES["noise"]()
    bodies = [b"{", b'{"messages": []}', b"[" * 20_000, json.dumps(about(url)).encode(), b"a" * MIB]

    def abuse(num: int) -> None:
        for place in range(num):
            assert target.post(POSTS[place % 3], bodies[place % len(bodies)]).status == 400

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    abuse(300)
    before = resident_bytes()
    abuse(1_000)
    assert resident_bytes() < 1.05 * before


def test_strangers_cannot_make_the_metrics_grow(target: Target) -> None:
    def lines() -> set[str]:
        text = target.ask("GET", "/metrics").body.decode()
        return {line.rpartition(" ")[0] for line in text.splitlines()}

    target.assert_sound()
    for path in POSTS:
        target.post(path, b"{")
        target.post(path, {"model": "x"})
    before = lines()
    letters = random.Random(0)
    for _ in range(100):
        word = "".join(letters.choices(string.ascii_letters, k=12))
        target.ask("GET", f"/{word}")
        target.ask("GET", f"/v1/models/{word}")
        target.post(CHAT, {"model": word})
        target.post(CHAT, {word: 1})
    assert lines() == before


# S17, S18, S21, S22: what is told


SECRET = "/srv/models/secret.safetensors"
FAULTS = (
    RuntimeError(f"{SECRET} at 0x7f3a12345678"),
    KeyError(SECRET),
    OSError(errno.EIO, "input/output error", SECRET),
    MemoryError(),
    AssertionError(SECRET),
    RecursionError("maximum recursion depth exceeded"),
    ZeroDivisionError("division by zero"),
    CheckpointError.at("cannot use model", SECRET, "its weights are damaged", "Download it again"),
    ResourceError.at("cannot write", SECRET, "the disk is full", "Free some space"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 at 0x7f3a12345678"),
)


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
def test_an_error_tells_no_path_no_address_and_no_librarys_words(
    streams: bool, caplog: pytest.LogCaptureFixture
) -> None:
    faults: list[Exception] = []

    def fail(*_: object) -> None:
        if faults:
            raise faults.pop()

    told = []
    with attacked(Model(Puppet(on_write=fail, on_piece=fail))) as target:
        for fault in FAULTS:
            faults.append(fault)
            reply = target.post(CHAT, plain(stream=streams))
            if streams:
                events = re.findall(rb"data: (.*)\n\n", reply.body)
                errors = [json.loads(event)["error"] for event in events if b'"error"' in event]
                assert len(errors) == 1, (fault, reply.body)
                told.append((type(fault).__name__, reply.body.decode()))
            else:
                assert reply.status in (500, 503), (fault, reply.body)
                told.append((type(fault).__name__, reply.body.decode()))
            assert not faults
            target.assert_sound()
        lines = list(target.lines)
    words = (SECRET, "secret", "0x7f", "Traceback", "CUDA", "recursion", "division", *(name for name, _ in told))
    assert [(name, word) for name, text in told for word in words if word in text] == []
    assert not [line for line in lines if SECRET in line or "0x7f" in line or "CUDA" in line]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_a_model_that_computes_nan_says_so_and_names_no_folder(tiny_folders: dict[str, Path]) -> None:
    broken = load(tiny_folders["t5"], device="cpu")
    with torch.no_grad():
        next(iter(broken.backend.network.language_model.parameters())).fill_(float("nan"))  # type: ignore[attr-defined]
    with attacked(broken) as target:
        error = refused(target.post(CHAT, {"messages": asking(), "max_tokens": 2}), 500, 503)
        assert target.ask("GET", "/health").status == 200
    assert str(tiny_folders["t5"]) not in error["message"]


def test_a_model_that_cannot_recover_ends_the_server() -> None:
    def fail(rows: Sequence[Row]) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later")

    def answers() -> bool:
        try:
            return target.ask("GET", "/health").status == 200
        except OSError:
            return False

    with attacked(Model(Puppet(on_write=fail))) as target:
        assert target.post(CHAT, plain()).status in (500, 503)
        is_ended = soon(lambda: not answers(), 3.0)
    assert is_ended, "after a device assert every further answer fails, and health says ok"


FORGED = ("a\nchat 200 0 ms", "a\r\nscore 200 0 ms", "\x1b[2J\x1b[1;1H", "\u2028chat 200 0 ms", "%0achat 200 0 ms")


def test_no_request_can_forge_a_log_line(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    num_before, num_asked = len(target.lines), 0
    for text in FORGED:
        quoted = "".join(f"%{byte:02x}" for byte in text.encode())
        target.ask("GET", f"/v1/models/{quoted}")
        target.ask("GET", f"/{quoted}?{quoted}")
        for path, fields in (
            (CHAT, {"messages": asking(f"describe {text}"), "max_tokens": 1}),
            (CHAT, {"messages": asking(), "model": text}),
            (CHAT, {"messages": asking(), "user": text, "max_tokens": 1}),
            (CHAT, {text: 1}),
            (CHAT, {"messages": asking("describe", text)}),
            ("/v1/score", {"image": URI, "instructions": [f"a {text}"]}),
            ("/v1/score", {text: 1}),
            ("/v1/optimize", {"image": text, "instruction": text}),
        ):
            headers = {"X-Request-Id": quoted, "User-Agent": text.replace("\r", "").replace("\n", "") or "x"}
            headers = {name: value if value.isprintable() else "x" for name, value in headers.items()}
            reply = target.post(path, fields, headers)
            num_asked += 1
            assert "x-request-id" not in reply.headers
    lines = target.lines[num_before:]
    assert len(lines) == num_asked
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("vlinstruct", "uvicorn"))]
    assert not [line for line in ours if re.search(r"[\r\n\x1b\x85\u2028]|200 0 ms", line)]


@pytest.mark.parametrize(
    "value", [b"a\r\nchat 200 0 ms", b"a\nchat 200 0 ms", b"a\rchat 200 0 ms", b"a\0b", b"\x1b[2J", b"a\r\n\r\nGET /x"]
)
@pytest.mark.parametrize("name", [b"X-Request-Id", b"User-Agent", b"Authorization", b"Origin", b"X-Forwarded-For"])
def test_line_ends_in_a_header_forge_no_line_and_no_header(
    name: bytes, value: bytes, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    num_before = len(target.lines)
    with target.wire() as wire:
        head = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\n" + name + b": " + value
        wire.send(head + b"\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
        answer, is_ended = wire.rest(5.0)
    assert is_ended
    assert b"200 0 ms" not in answer
    assert not re.search(rb"HTTP/1.1 2\d\d", answer)
    assert [line for line in target.lines[num_before:] if not LINE.fullmatch(line)] == []
    assert not [one for one in caplog.records if re.search(r"200 0 ms|\x1b|\r", one.getMessage())]


def test_neither_prompts_nor_pictures_nor_answers_are_logged(
    here: Model, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    num_before, secret = len(target.lines), "SESAME-1234"
    body = {"messages": [{"role": "system", "content": secret}, *asking(f"{secret} describe")], "max_tokens": 12}
    reply = target.post(CHAT, {**body, "user": secret, "vlinstruct": {"reads": f"{secret} " * 900}})
    assert reply.status == 200
    assert target.post("/v1/score", {"image": URI, "instructions": [secret]}).status == 200
    assert target.post("/v1/optimize", {"image": URI, "instruction": secret}).status == 200
    assert target.post(CHAT, {"messages": asking(secret), "model": secret}).status == 404
    answer = reply.json["choices"][0]["message"]["content"]
    logged = [*target.lines[num_before:], *(record.getMessage() for record in caplog.records)]
    assert len(logged) >= 4
    words = [secret, URI[30:70], *([answer] if len(answer) > 8 else [])]
    assert not [line for line in logged for word in words if word in line]


# S20, S23, S24


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_that_can_be_read_in_two_ways_is_not_read(
    kind: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_FIRST_REQUEST_S", 0.6)
    with target.wire() as wire:
        wire.send(MESSAGES[kind])
        answer, is_ended = wire.rest(2.5)
    statuses = [int(status) for status in re.findall(rb"HTTP/1.1 (\d{3}) ", answer)]
    assert [status for status in statuses if status < 400] == [], "a second request came through inside the first one"
    assert is_ended or kind in ("a tunnel", "HTTP/9.9"), "what comes after it is read on"


def test_a_seed_says_the_same_alone_and_in_company(target: Target) -> None:
    def ask(seed: int) -> str:
        body = {"messages": asking(), "temperature": 1.0, "seed": seed, "max_tokens": 12}
        text: str = target.post(CHAT, body).json["choices"][0]["message"]["content"]
        return text

    alone = {seed: ask(seed) for seed in range(4)}
    assert len(set(alone.values())) > 1, "what is compared differs by the seed"
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: (seed, ask(seed)), [*range(4)] * 4))
    assert [(seed, text) for seed, text in together if alone[seed] != text] == []


@pytest.mark.slow
def test_sigterm_under_load_ends_the_process_in_time(tiny_folders: dict[str, Path]) -> None:
    command = [sys.executable, "-c", "from vlinstruct.cli.main import main; main()", "serve", "--port", "0"]
    command += ["--device", "cpu", "--name", "tiny", "--backbone", str(tiny_folders["t5"])]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stderr is not None
            ports = (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in process.stderr)
            port = int(next(match for match in ports if match)[1])
            is_over = threading.Event()

            def load_it() -> set[int]:
                statuses = set()
                while not is_over.is_set():
                    try:
                        with Wire(port) as wire:
                            body = json.dumps({"messages": asking(), "max_tokens": 24}).encode()
                            head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
                            wire.send(head.encode() + body)
                            reply = wire.reply()
                            statuses |= {reply.status} if reply is not None else set()
                    except OSError:
                        return statuses
                return statuses

            with ThreadPoolExecutor(4) as pool:
                loads = [pool.submit(load_it) for _ in range(4)]
                time.sleep(1.0)
                began = time.monotonic()
                process.send_signal(signal.SIGTERM)
                code = process.wait(20)
                took_s = time.monotonic() - began
                is_over.set()
                statuses = set().union(*(one.result() for one in loads))
            said = process.stderr.read()
        finally:
            process.kill()
    assert (code, took_s < 12) == (143, True), (code, took_s, said)
    assert 200 in statuses
    assert statuses <= {200, 429, 500, 503}
    assert "Traceback" not in said
    with pytest.raises(ConnectionRefusedError):
        Wire(port)
