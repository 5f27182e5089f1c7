"""Connections to hosts of the public Internet only, for addresses that a stranger's file names.

A data set that names `http://169.254.169.254/` or `http://router.local/` would have this machine ask inside its own
network. The name is looked up once, every address that it has is checked, and the connection is made to an address that
was checked: a second lookup might answer otherwise.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291: nothing else of IPv6 is a host of the Internet
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")


class PrivateHostError(Exception):
    """A host that is not of the public Internet."""


def is_public(address: str) -> bool:
    """Says whether an IP address is one of the public Internet; what it carries inside (IPv4 in IPv6) counts, too.

    Python 3.11 takes some that were assigned later, or no longer, for global: those are named here.

    >>> is_public("93.184.216.34"), is_public("127.0.0.1"), is_public("::ffff:10.0.0.1"), is_public("64:ff9b::7f00:1")
    (True, False, False, False)
    >>> is_public("2606:4700::1111"), is_public("::127.0.0.1"), is_public("fec0::1"), is_public("192.0.0.11")
    (True, False, False, False)
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and ip not in _PROTOCOLS
    inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
    if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64 (RFC 6052): the last 32 bits are an IPv4 address
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(str(inner))
    return ip in _GLOBAL_UNICAST and ip.is_global and ip not in _DOCUMENTATION


def _connect(
    place: tuple[str, int], timeout: Any = None, source_address: Any = None, *, trusted_host: str | None
) -> socket.socket:
    """Connects as `socket.create_connection` does, to checked addresses only.

    Raises:
        PrivateHostError: one of the host's addresses is not public.
        OSError: no connection.
    """
    host, port = place
    if host == trusted_host:
        return socket.create_connection(place, timeout, source_address)
    addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not all(map(is_public, addresses)):  # all: a name that has both kinds is made to slip through
        raise PrivateHostError(host)
    problem: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout, source_address)
        except OSError as error:
            problem = error
    raise problem or OSError(f"{host} has no address")


class _Guarded:
    """What both handlers do before they open a connection.

    Args:
        trusted_host: a host that may be private, since the user typed it; None for none.
        on_connected: is given a copy of every socket, so that a fetch can be ended from outside.
    """

    def __init__(self, trusted_host: str | None, on_connected: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self.trusted_host, self.on_connected = trusted_host, on_connected

    def connection(self, kind: type[http.client.HTTPConnection], request: urllib.request.Request) -> Any:
        """Returns what makes a connection for a request, in the form that urllib wants."""
        # Told by urllib itself: a host that is spelt `127.0.0.%31` differs from the one that is connected to, too.
        is_proxied = request.has_proxy() or getattr(request, "_tunnel_host", None) is not None
        target = unquote(urlsplit(request.full_url).hostname or "")
        if is_proxied and target != self.trusted_host:
            # The proxy is the user's own and looks names up itself; an address needs no look-up to be seen through.
            _refuse_private_literal(target.rstrip("."))
        make = socket.create_connection if is_proxied else partial(_connect, trusted_host=self.trusted_host)

        def connected(*place: Any, **options: Any) -> socket.socket:
            connection = make(*place, **options)
            self.on_connected(connection.dup())  # TLS takes the other one's place
            return connection

        def connect(host: str, **options: Any) -> http.client.HTTPConnection:
            connection = kind(host, **options)
            # Python has no public way to say how a connection of http.client is made (its tests use this one).
            connection._create_connection = connected  # type: ignore[attr-defined]
            return connection

        return connect


def _refuse_private_literal(host: str) -> None:
    try:
        is_allowed = is_public(socket.inet_ntoa(socket.inet_aton(host)))  # also 127.1, 0x7f000001 and 2130706433
    except OSError:
        try:
            is_allowed = is_public(host)
        except ValueError:
            is_allowed = host.lower() != "localhost" and not host.lower().endswith(".localhost")
    if not is_allowed:
        raise PrivateHostError(host)


class GuardedHTTPHandler(_Guarded, urllib.request.HTTPHandler):
    """Opens http:// addresses of public hosts."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.connection(http.client.HTTPConnection, req), req)


class GuardedHTTPSHandler(_Guarded, urllib.request.HTTPSHandler):
    """Opens https:// addresses of public hosts."""

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.connection(http.client.HTTPSConnection, req), req)
