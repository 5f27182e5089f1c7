from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest
from serving.loopback import Reply, scripted

from vlinstruct.backends.server.address import addresses, in_order, is_here, key_from
from vlinstruct.backends.server.connection import Connection, Limits, Request
from vlinstruct.errors import InputError, NetworkError
from vlinstruct.values import Failed

FAST = Limits(num_in_flight=4, timeout_s=2.0, num_tries=3)


def ask(reply: Any, *, limits: Limits = FAST, num: int = 1) -> tuple[list[Any], int]:
    """Returns what requests to a scripted server bring, and how often it was asked."""
    with scripted(reply) as server:
        connection = Connection([server.url], limits=limits)
        try:
            return connection.call_each([Request(path="/a", body={"n": n}) for n in range(num)]), len(server.asked)
        finally:
            connection.close()


def only(outcomes: list[Any]) -> Failed:
    (outcome,) = outcomes
    assert isinstance(outcome, Failed)
    return outcome


def test_answers_come_in_the_order_of_requests() -> None:
    def reply(path: str, body: Any) -> Reply:
        time.sleep(0.02 * (5 - body["n"]))
        return 200, body, {}

    assert ask(reply, num=5)[0] == [{"n": n} for n in range(5)]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_or_broken_server_is_asked_again(status: int) -> None:
    failures = iter([status])

    def reply(path: str, body: Any) -> Reply:
        status = next(failures, 200)
        return status, {"ok": True}, {"Retry-After": "0"}

    assert ask(reply) == ([{"ok": True}], 2)


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_what_the_server_refuses_is_not_sent_again(status: int) -> None:
    outcomes, num_asked = ask(lambda path, body: (status, {"error": {"message": "no such\nfield"}}, {}))
    assert num_asked == 1
    assert only(outcomes).error.code == f"server_{status}"
    assert "no such" in only(outcomes).error.message
    assert isinstance(only(outcomes).error, NetworkError if status == 500 else InputError)


def test_a_server_that_asks_to_be_left_alone_is() -> None:
    failures = iter([429])
    began = time.monotonic()
    ask(lambda path, body: (next(failures, 200), {}, {"Retry-After": "1"}))
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("said", [b'{"a": 1', b"<html>", b'{"a": NaN}', b"", b"[" * 100_000])
def test_an_answer_that_is_no_json_is_an_error_of_its_row(said: bytes) -> None:
    assert only(ask(lambda path, body: (200, said, {}))[0]).error.code == "server_reply"


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    outcomes, num_asked = ask(lambda path, body: (200, b'{"a": 1', {"Content-Length": "100", "Connection": "close"}))
    assert (only(outcomes).error.code, num_asked) == ("server_broken", FAST.num_tries)


def test_a_slow_server_fails_in_time() -> None:
    def reply(path: str, body: Any) -> Reply:
        time.sleep(0.6)
        return 200, {}, {}

    outcomes, _ = ask(reply, limits=Limits(timeout_s=0.2, num_tries=1))
    assert only(outcomes).error.code == "server_timeout"


def test_nobody_is_led_elsewhere_with_the_key() -> None:
    with scripted(lambda path, body: (200, {}, {})) as other:
        elsewhere = {"Location": f"{other.url}/a"}
        with scripted(lambda path, body: (307, {}, elsewhere)) as server:
            connection = Connection([server.url], api_key="secret-key", limits=FAST)
            (outcome,) = connection.call_each([Request(path="/a", body={})])
            connection.close()
        assert isinstance(outcome, Failed)
        assert outcome.error.code == "server_redirect"
        assert server.asked[0][2]["Authorization"] == "Bearer secret-key"
        assert not other.asked


@pytest.mark.parametrize("status", [401, 403, 400, 500])
def test_no_error_repeats_the_key(status: int) -> None:
    with scripted(lambda path, body: (status, {"error": {"message": "no secret-key of ours"}}, {})) as server:
        connection = Connection([server.url], api_key="secret-key", limits=FAST)
        (outcome,) = connection.call_each([Request(path="/a", body={})])
        connection.close()
    assert isinstance(outcome, Failed)
    assert "secret-key" not in repr(outcome.error) + outcome.error.message


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    num, most, lock = 0, 0, threading.Lock()

    def reply(path: str, body: Any) -> Reply:
        nonlocal num, most
        with lock:
            num += 1
            most = max(most, num)
        time.sleep(0.02)
        with lock:
            num -= 1
        return 200, {}, {}

    ask(reply, num=30)
    assert most == FAST.num_in_flight


def test_a_picture_stays_with_its_server_and_moves_when_that_is_gone() -> None:
    with scripted(lambda path, body: (200, "first", {})) as first:
        with scripted(lambda path, body: (200, "second", {})) as second:
            connection = Connection([first.url, second.url], limits=FAST)
            keys = [f"picture {n}" for n in range(20)]
            answers = {key: connection.call(Request(path="/a", body={}, key=key)) for key in keys}
            assert set(answers.values()) == {"first", "second"}
            assert answers == {key: connection.call(Request(path="/a", body={}, key=key)) for key in keys}
            connection.close()
        nobody = "http://127.0.0.1:1/v1"
        connection = Connection([first.url, nobody], limits=FAST)
        moved = {key: connection.call(Request(path="/a", body={}, key=key)) for key in keys}
        connection.close()
    assert set(moved.values()) == {"first"}


def test_closing_ends_whoever_waits() -> None:
    def reply(path: str, body: Any) -> Reply:
        time.sleep(1)
        return 200, {}, {}

    with scripted(reply) as server:
        connection = Connection([server.url], limits=Limits(timeout_s=30))
        threading.Timer(0.1, connection.close).start()
        began = time.monotonic()
        (outcome,) = connection.call_each([Request(path="/a", body={})])
        assert time.monotonic() - began < 0.9
    assert only([outcome]).error.code == "server_closed"
    assert only(connection.call_each([Request(path="/a")])).error.code == "server_closed"


def test_requests_of_many_threads_are_answered() -> None:
    with scripted(lambda path, body: (200, body, {})) as server:
        connection = Connection([server.url], limits=FAST)
        answered: Counter[int] = Counter()
        threads = [
            threading.Thread(
                target=lambda n=n: answered.update([connection.call(Request(path="/a", body={"n": n}))["n"]])
            )
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        connection.close()
    assert answered == Counter(range(20))


@pytest.mark.parametrize(
    "typed", ["http://me:secret@a/v1", "http://a/v1?key=secret", "ftp://a", "http://", "http://a:x"]
)
def test_an_address_that_is_none_or_tells_a_secret_is_refused(typed: str) -> None:
    with pytest.raises(InputError) as caught:
        addresses(typed)
    assert "secret" not in caught.value.message


def test_each_server_gets_its_share_of_pictures() -> None:
    urls = ["http://a", "http://b", "http://c"]
    first = Counter(in_order(urls, str(n))[0] for n in range(3000))
    assert min(first.values()) > 900
    fewer = [in_order(urls[:2], str(n))[0] for n in range(3000) if in_order(urls, str(n))[0] != "http://c"]
    assert fewer == [in_order(urls, str(n))[0] for n in range(3000) if in_order(urls, str(n))[0] != "http://c"]


def test_a_key_with_what_no_header_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLINSTRUCT_API_KEY", "secret\r\nX-Evil: 1")
    with pytest.raises(InputError) as caught:
        key_from("VLINSTRUCT_API_KEY")
    assert "secret" not in caught.value.message
    monkeypatch.setenv("VLINSTRUCT_API_KEY", "secret\n")
    assert key_from("VLINSTRUCT_API_KEY") == "secret"


def test_only_this_machine_is_here() -> None:
    assert [is_here(url) for url in ("http://[::1]:8/v1", "http://127.9.9.9", "http://127.0.0.1.evil.org")] == [
        True,
        True,
        False,
    ]
