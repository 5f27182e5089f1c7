"""The page at `/`: a picture and a question -> the answers as typed and as optimized, side by side.

It is a client like any other: `page.js` asks `/v1/models` and `/v1/optimize`, with the key that its user types.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from vlinstruct.backends.registry import BACKBONES
from vlinstruct.media.images import ImageLimits
from vlinstruct.mini.draw import draw
from vlinstruct.mini.world import FIRST_QUESTION, first_scene
from vlinstruct.report.shell import data_block, page, policy, resource
from vlinstruct.serving.gate import GateSettings
from vlinstruct.values import Identity


def page_of(identity: Identity, gate: GateSettings, images: ImageLimits) -> Callable[[Request], Awaitable[Response]]:
    """Returns the route of the page.

    Args:
        identity: of the model that is served.
        gate: its limits, and whether it must ask for a key, are told to the script.
        images: larger pictures are scaled down before they are sent.
    """
    scripts = [resource("elements.js") + resource("page.js", __package__)]
    told = {
        "needs_key": gate.api_key is not None,
        "max_body_bytes": gate.max_body_bytes,
        "max_file_bytes": images.max_bytes,
        "max_pixels": images.max_pixels,
        "example": None if gate.api_key is not None else _example(identity),
    }
    html = page(
        "vlinstruct",
        [resource("page.html", __package__), data_block("server", told)],
        styles=[resource("page.css", __package__)],
        scripts=scripts,
        is_served=True,
    )
    headers = {
        # What the page says of itself, and what only a header can: no other page may show it in a frame.
        "content-security-policy": f"{policy(scripts, is_served=True)}; frame-ancestors 'none'",
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }

    async def show(request: Request) -> Response:
        return HTMLResponse(html, headers=headers)

    return show


def _example(identity: Identity) -> dict[str, str] | None:
    """Returns a picture in base64, and a question, for a model of a small world, which a visitor's own is hardly of."""
    backbone = BACKBONES.get(identity.name)
    if backbone is None or not backbone.is_built_in:
        return None
    stream = io.BytesIO()
    draw(first_scene(), (400, 300)).save(stream, "PNG")
    return {"picture": base64.b64encode(stream.getvalue()).decode(), "question": FIRST_QUESTION}
