"""A picture's URL in a request -> the picture, within the limits of every other way in."""

from __future__ import annotations

import base64
import binascii
import re

from vlinstruct.errors import InputError, NetworkError
from vlinstruct.media.fetch import Url, fetch
from vlinstruct.media.load import LoadedMedium, MediaSettings, load_medium
from vlinstruct.serving.conversation import BadRequest
from vlinstruct.values import Abilities

_DATA = re.compile(r"data:(image/[\w.+-]{1,40})?(;[\w=.-]{1,40})*;base64,", re.ASCII)


def load_picture(url: str, *, allow_urls: bool, settings: MediaSettings, abilities: Abilities) -> LoadedMedium:
    """Reads a picture that a client sent, or named.

    Args:
        url: a data URI; or an http(s) URL of a public host where `allow_urls`.
        allow_urls: open connections for clients.
        settings: limits.
        abilities: of the backend.

    Raises:
        BadRequest: it cannot be read, or may not be.
    """
    try:
        return load_medium(_content(url, allow_urls), settings=settings, abilities=lambda: abilities)
    except (InputError, NetworkError) as error:
        raise BadRequest(error.message, "image_url", code=error.code) from error


def _content(url: str, allow_urls: bool) -> bytes:
    if (head := _DATA.match(url)) is not None:
        try:
            return base64.b64decode(url[head.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest("its base64 is damaged", "image_url") from error
    if url.lower().startswith(("http://", "https://")):
        if not allow_urls:
            raise BadRequest("pictures must be data URIs: this server fetches none", "image_url", code="url_refused")
        # Not typed by this machine's user: public hosts only, also behind redirects.
        return fetch(Url(address=url))
    raise BadRequest("a picture must be a data URI of an image in base64", "image_url")
