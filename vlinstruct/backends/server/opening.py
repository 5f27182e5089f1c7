"""From a server's address to a backend that has asked it what it can do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vlinstruct.backends.server.address import KEY_VARIABLES, addresses, is_here, key_from
from vlinstruct.errors import InputError, not_installed, shortened
from vlinstruct.settings import ModelSettings, ServerSettings
from vlinstruct.values import Identity

if TYPE_CHECKING:
    from vlinstruct.backends.server.backend import ServerBackend
    from vlinstruct.backends.server.connection import Connection

logger = logging.getLogger(__name__)

_TIMEOUT_S = 30.0  # of asking for a name


def connect(identity: Identity, settings: ModelSettings) -> ServerBackend:
    """Connects to a server, or to several of the same model, and finds out what they can do.

    Raises:
        VlinstructError: it does not answer, does not serve that model, or an option is not for servers.
    """
    for option, value, off in (
        ("--device", settings.device, "auto"),
        ("--dtype", settings.dtype, "auto"),
        ("--quantize", settings.quantize, None),
    ):
        if value != off:
            raise InputError.at(f"cannot use {option}", value, "the model is its server's", "Leave it out")
    assert identity.url is not None
    connection = _connection(identity.url, settings.server)
    from vlinstruct.backends.server.backend import ServerBackend
    from vlinstruct.backends.server.contract import find_contract

    contract = find_contract(connection, settings.server.served_model)
    if not contract.can_score:
        logger.warning("%s", contract.describe(identity.name))
    return ServerBackend(connection, contract, identity=identity, think=settings.think)


def models_served(urls: str) -> str:
    """Returns what tells a server's models from others: their names, since it tells nothing of its weights."""
    from vlinstruct.backends.server.connection import Request

    connection = _connection(urls, ServerSettings(timeout=_TIMEOUT_S))
    try:
        listed = connection.call(Request(path="/models"))
    finally:
        connection.close()
    data = listed.get("data") if isinstance(listed, dict) else None
    names = [str(one.get("id")) for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    return f"server of {', '.join(sorted(names))}"


def _connection(urls: str, settings: ServerSettings) -> Connection:
    try:
        from vlinstruct.backends.server.connection import Connection, Limits
    except ModuleNotFoundError as error:
        raise not_installed("a server", "aiohttp", "server") from error
    named, key = addresses(urls), key_from(*KEY_VARIABLES)
    exposed = [url for url in named if url.startswith("http://") and not is_here(url)]
    if exposed:
        logger.warning(
            "%s is asked without encryption: pictures, words and the key are readable on the way",
            shortened(exposed[0], 80),
        )
    limits = Limits(num_in_flight=settings.concurrency, timeout_s=settings.timeout)
    return Connection(named, api_key=key, limits=limits)
