"""The page at `/` and what it asks, without a browser; `tests/browser/test_served.py` looks at it in one."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

import pytest
from serving.attacks import Puppet
from serving.loopback import serving

from vlinstruct.model import Model
from vlinstruct.serving.app import ServeSettings
from vlinstruct.serving.gate import GateSettings, loopback_hosts

KEY = "clé secrète"


@pytest.fixture(scope="module")
def here() -> Model:
    return Model(Puppet())


def served(here: Model, gate: GateSettings | None = None) -> ServeSettings:
    return ServeSettings(name="tiny", gate=gate or GateSettings(hosts=loopback_hosts("127.0.0.1")))


def get(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read().decode(), dict(reply.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def test_the_page_stands_at_the_root_and_a_browser_may_load_nothing_else_for_it(here: Model) -> None:
    with serving(here, served(here)) as url:
        status, page, headers = get(url.removesuffix("v1"))
        as_head = get(url.removesuffix("v1"), "HEAD")
    assert (status, as_head[:2]) == (200, (200, ""))
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert re.fullmatch(r"'sha256-[\w+/=]{44}'", policy["script-src"])
    elsewhere = re.findall(r"""(?:src|href|url|@import)\s*[=(]?\s*["']?\s*(?:https?:)?//[^\s"']*""", page)
    assert elsewhere == []
    assert not re.search(r"\son\w+\s*=", page), "a handler in an attribute, which the policy forbids"


def test_without_a_page_the_root_is_no_route(here: Model) -> None:
    with serving(here, served(here, GateSettings(has_page=False))) as url:
        assert get(url.removesuffix("v1"))[0] == 404
    with serving(here, served(here, GateSettings(has_page=False, api_key=KEY))) as url:
        assert get(url.removesuffix("v1"))[0] == 401


def test_a_key_keeps_everything_but_the_page_itself(here: Model) -> None:
    with serving(here, served(here, GateSettings(api_key=KEY))) as url:
        root = url.removesuffix("v1")
        status, page, _ = get(root)
        assert status == 200
        assert "tiny" not in page, "what is served is told to who shows the key"
        for path in ("health", "metrics", "v1/models", "/", "page.js", "?/../v1/models"):
            assert (path, get(root + path)[0]) == (path, 200 if path.startswith("?") else 401)
        assert get(root, "POST", b"{}")[0] == 401
        assert get(root, "GET", b"a body that nobody may send")[0] == 401
        assert get(root, "OPTIONS")[0] == 401
        assert get(f"{url}/optimize", "POST", b"{}")[0] == 401


def test_the_page_is_for_this_machine_where_the_server_is(here: Model) -> None:
    with serving(here, served(here)) as url:
        root = url.removesuffix("v1")
        assert get(root, Host="evil.test")[0] == 403
        assert get(root, Origin="https://evil.test")[0] == 403
        for headers in ({}, {"Origin": root.rstrip("/")}):
            replies = [
                get(root, **headers),
                get(root, "OPTIONS", **headers),
                get(f"{url}/optimize", "OPTIONS", **headers),
            ]
            assert not [name for reply in replies for name in reply[2] if name.lower().startswith("access-control")]
