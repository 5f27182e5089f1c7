"""The addresses of a server: one URL, or several of the same model with commas between."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from vlinstruct.errors import InputError

KEY_VARIABLES = ("VLINSTRUCT_API_KEY", "OPENAI_API_KEY")
"""Where a key is looked for, the first one first; nowhere else, so that no shell's history and no record has one."""


def is_url(name: str) -> bool:
    """Says whether a backbone's name is a server's address.

    >>> is_url("http://127.0.0.1:8000/v1"), is_url("Qwen/Qwen2.5-VL-7B-Instruct")
    (True, False)
    """
    return name.lower().startswith(("http://", "https://"))


def addresses(name: str) -> tuple[str, ...]:
    """Returns the addresses in a backbone's name, each without a slash at its end.

    Raises:
        InputError: one of them is no address, or holds a password, which records would repeat.

    >>> addresses("http://a:8000/v1/, http://b:8000/v1")
    ('http://a:8000/v1', 'http://b:8000/v1')
    """
    return tuple(dict.fromkeys(_address(part.strip()) for part in name.split(",") if part.strip()))


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # a port of letters, half an IPv6 address
        parts, host, port = urlsplit(""), None, None
    del port
    if parts.scheme.lower() not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise InputError.at("cannot use server", text.rpartition("@")[2], "it is no http(s) URL", "Check the URL")
    if parts.username is not None or parts.query or parts.fragment:
        why = "a password or a query in its URL would stand in every record"
        advice = f"Put the key into ${KEY_VARIABLES[0]}"
        raise InputError.at("cannot use server", host, why, advice)
    return urlunsplit((parts.scheme.lower(), parts.netloc, parts.path.rstrip("/"), "", ""))


def key_from(*variables: str) -> str | None:
    """Returns the key in the first of some environment variables, without the line break that a shell may have left.

    Raises:
        InputError: it holds what no header can.
    """
    variable = next((name for name in variables if os.environ.get(name)), None)
    if variable is None:
        return None
    key = os.environ[variable].strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError.at("cannot use the key", f"${variable}", "it holds a character no key has", "Check it")
    return key or None


def is_here(url: str) -> bool:
    """Says whether an address leads to this machine alone.

    >>> is_here("http://127.0.0.1:8000/v1"), is_here("http://localhost:1/v1"), is_here("http://10.0.0.1/v1")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def in_order(urls: Sequence[str], key: str) -> list[str]:
    """Orders servers for a picture: the same first one for all of its requests, so that its caches are met.

    Rendezvous hashing: where a server is taken away, only its own pictures move.

    Args:
        urls: the servers.
        key: the picture's; without one, a text's, so that equal texts meet the same caches.
    """
    return sorted(urls, key=lambda url: hashlib.sha256(f"{url}\n{key}".encode()).digest())
