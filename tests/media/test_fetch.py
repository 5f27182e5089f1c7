"""Fetching a URL, against a server on the loopback."""

import base64
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vlinstruct.errors import ImageError, NetworkError
from vlinstruct.media import fetch as fetching
from vlinstruct.media import public_hosts
from vlinstruct.media.fetch import Url, fetch
from vlinstruct.media.public_hosts import is_public

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def quick(monkeypatch):
    for name, limit in {"TIMEOUT_S": 0.3, "TOTAL_S": 1.0, "MAX_BYTES": 30_000}.items():
        monkeypatch.setattr(fetching, name, limit)


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        action = self.path.partition("?")[0].strip("/").split("/")
        getattr(self, f"send_{action[0]}", self.send_content)(*action[1:])

    def send_content(self, *_):
        self.answer(200, {"Content-Length": str(len(CONTENT))}, CONTENT)

    def answer(self, status, headers, content=b""):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def send_status(self, status):
        self.answer(int(status), {"Content-Length": "0"})

    def send_hop(self, left):
        target = f"/hop/{int(left) - 1}" if int(left) > 1 else "/a.png"
        self.answer(302, {"Location": target, "Content-Length": "0"})

    def send_away(self, *_):
        self.answer(302, {"Location": self.server.away, "Content-Length": "0"})

    def send_cut(self):
        self.answer(200, {"Content-Length": str(len(CONTENT) * 2)}, CONTENT)
        self.close_connection = True

    def send_huge(self):
        self.answer(200, {"Content-Length": "3000000000"})

    def send_endless(self):
        self.answer(200, {})
        for _ in range(1000):
            self.wfile.write(CONTENT)

    def send_silent(self):
        self.server.stop.wait(5)

    def send_drip(self):
        self.answer(200, {"Content-Length": "1000"})
        while not self.server.stop.wait(0.1):
            self.wfile.write(b"x")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):  # a client that hangs up is what several tests are about
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.seen, server.stop, server.away = [], threading.Event(), ""
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.stop.set()
        server.shutdown()
        thread.join()


def test_content_comes_whole(server):
    assert fetch(Url(address=f"{server.url}/a.png?size=2#part", is_typed=True)) == CONTENT
    assert server.seen == [("/a.png?size=2", None)]


def test_spaces_umlauts_and_line_ends_in_a_url_are_quoted(server):
    fetch(Url(address=f"{server.url}/ä b\x01.png?q=ü %20", is_typed=True))
    assert server.seen[0][0] == "/%C3%A4%20b%01.png?q=%C3%BC%20%20"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, ImageError) for status in (403, 404, 410)),
        *((status, NetworkError) for status in (204, 206, 408, 429, 500, 503)),
    ],
)
def test_other_statuses_are_named_and_a_wrong_address_is_wrong_input(status, kind, server, refused):
    error = refused(kind, f"url_http_{status}", fetch, Url(address=f"{server.url}/status/{status}", is_typed=True))
    assert f"the server answered {status}" in error.message


def test_three_redirects_are_followed_and_four_are_not(server, refused):
    assert fetch(Url(address=f"{server.url}/hop/3", is_typed=True)) == CONTENT
    error = refused(NetworkError, "url_redirects", fetch, Url(address=f"{server.url}/hop/4", is_typed=True))
    assert "more than 3 redirects" in error.message


@pytest.mark.parametrize("away", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:image/png;base64,AA"])
def test_redirects_lead_to_http_only(away, server, refused):
    server.away = away
    refused(NetworkError, "url_redirects", fetch, Url(address=f"{server.url}/away", is_typed=True))


def test_byte_cap_announced_or_not(server, refused, quick):
    refused(ImageError, "url_too_large", fetch, Url(address=f"{server.url}/huge", is_typed=True))
    error = refused(ImageError, "url_too_large", fetch, Url(address=f"{server.url}/endless", is_typed=True))
    assert "more than 30,000 bytes" in error.message


def test_a_cut_answer_is_no_picture(server, refused, quick):
    refused(NetworkError, "url_cut_off", fetch, Url(address=f"{server.url}/cut", is_typed=True))


def test_silent_and_dripping_servers_are_left_in_time(server, refused, quick):
    start = time.perf_counter()
    error = refused(NetworkError, "url_timeout", fetch, Url(address=f"{server.url}/silent", is_typed=True))
    assert "0.3 s" in error.message
    error = refused(NetworkError, "url_timeout", fetch, Url(address=f"{server.url}/drip", is_typed=True))
    assert "not complete after 1 s" in error.message
    assert time.perf_counter() - start < 20  # all that drips would take 100 s


def test_nobody_listens(server, refused, quick):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/a.png"
        refused(NetworkError, "url_no_connection", fetch, Url(address=address, is_typed=True))


def test_passwords_are_sent_once_and_never_shown(server, refused, monkeypatch):
    with_login = server.url.replace("http://", "http://me:s%40cret@")
    assert fetch(Url(address=f"{with_login}/a.png", is_typed=True)) == CONTENT
    assert server.seen[-1][1] == "Basic " + base64.b64encode(b"me:s@cret").decode()
    error = refused(
        ImageError, "url_http_404", fetch, Url(address=f"{with_login}/status/404?token=hush", is_typed=True)
    )
    assert "127.0.0.1" in error.message
    for secret in ("me", "cret", "hush"):
        assert secret not in error.message.split("): ")[0].split("(")[1]
        assert secret not in repr(Url(address=f"{with_login}/a.png", is_typed=True)) or secret == "me"
    monkeypatch.setattr(public_hosts, "is_public", lambda _: True)  # both of the server's names are private
    server.away = f"http://localhost:{server.server_port}/a.png"
    fetch(Url(address=f"{with_login}/away", is_typed=True))
    assert server.seen[-1] == ("/a.png", None)


@pytest.mark.parametrize(
    "address", ["http://", "http://[half", "http:///a.png", "http://a:99999/", "http://" + "a" * 70]
)
def test_addresses_that_are_none(address, refused, quick):
    refused(ImageError, "url_bad_url", fetch, Url(address=address, is_typed=True))


@pytest.mark.parametrize("scheme", ["file", "ftp", "gopher", "data"])
def test_other_schemes_have_no_handler(scheme, refused, quick):
    refused(ImageError, "url_bad_url", fetch, Url(address=f"{scheme}://localhost/etc/passwd", is_typed=True))


def test_unknown_hosts_and_bad_certificates(refused, monkeypatch, quick):
    def fail(error):
        def connect(*_, **__):
            raise error

        return connect

    monkeypatch.setattr(socket, "create_connection", fail(socket.gaierror(-2, "Name or service not known")))
    refused(NetworkError, "url_unknown_host", fetch, Url(address="http://nosuch.invalid/a", is_typed=True))
    monkeypatch.setattr(socket, "create_connection", fail(ssl.SSLCertVerificationError("self-signed")))
    refused(NetworkError, "url_tls", fetch, Url(address="http://nosuch.invalid/a", is_typed=True))
    monkeypatch.setattr(socket, "create_connection", fail(OSError(113, "No route to host")))
    refused(NetworkError, "url_network", fetch, Url(address="http://nosuch.invalid/a", is_typed=True))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0177.1", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_a_file_does_not_make_us_ask_inside_the_network(host, server, refused):
    refused(ImageError, "url_private", fetch, Url(address=f"http://{host}:{server.server_port}/a.png"))
    assert server.seen == []


def test_a_typed_url_is_not_redirected_into_the_network(server, refused):
    server.away = f"http://localhost:{server.server_port}/a.png"
    refused(ImageError, "url_private", fetch, Url(address=f"{server.url}/away", is_typed=True))
    assert [path for path, _ in server.seen] == ["/away"]
    server.away = f"{server.url}/a.png"  # the typed host itself
    assert fetch(Url(address=f"{server.url}/away", is_typed=True)) == CONTENT


def test_a_name_is_looked_up_once_and_all_its_addresses_count(monkeypatch, server, refused):
    answers = [["93.184.216.34", "127.0.0.1"], ["127.0.0.1"]]

    def look_up(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    refused(ImageError, "url_private", fetch, Url(address=f"http://pictures.example:{server.server_port}/a.png"))
    assert len(answers) == 1
    assert server.seen == []


def test_a_proxy_looks_names_up_itself_but_is_sent_to_no_private_address(monkeypatch, server, refused):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    assert fetch(Url(address="http://pictures.example/a.png")) == CONTENT
    for host in ("127.1", "localhost", "10.0.0.1", "[fe80::1]"):
        refused(ImageError, "url_private", fetch, Url(address=f"http://{host}/a.png"))
    assert [path for path, _ in server.seen] == ["http://pictures.example/a.png"]


@pytest.mark.parametrize(
    "address",
    [
        *(
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "224.0.0.1",
        ),
        *("255.255.255.255", "::", "::1", "fc00::1", "fe80::1%eth0", "ff02::1", "::ffff:192.168.0.1"),
        *("2002:7f00:1::", "64:ff9b::a00:1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
    ],
)
def test_private_addresses_in_every_form(address):
    assert not is_public(address)


def test_public_addresses():
    assert all(map(is_public, ("93.184.216.34", "1.1.1.1", "2606:4700::1111", "64:ff9b::101:101")))


def test_what_signs_a_url_is_shown_nowhere():
    address = (
        "https://h/a.png?id=7&X-Amz-Signature=S3CRET&sig=S3CRET&Expires=9&X-Amz-Security-Token=S3CRET&api_key=S3CRET"
    )
    assert Url(address=address).name == (
        "https://h/a.png?id=7&X-Amz-Signature=***&sig=***&Expires=9&X-Amz-Security-Token=***&api_key=***"
    )
