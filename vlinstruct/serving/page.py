"""The page at `/`: a picture and a question -> the answers as typed and as optimized, side by side.

It is a client like any other: `page.js` asks `/v1/models` and `/v1/optimize`, with the key that its user types.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from vlinstruct.media.images import ImageLimits
from vlinstruct.report.shell import data_block, page, policy, resource
from vlinstruct.serving.gate import GateSettings

_BODY = """
<header class="masthead">
<h1>vlinstruct <span id="model" class="chip accent" hidden></span></h1>
<p class="quiet">Ask about a picture, and see the answer to your words as typed beside the one to the words that
vlinstruct found for them.</p>
</header>
<main>
<section class="card asking" aria-label="Ask">
<form id="key-form" hidden>
<label for="key">Key of this server</label>
<div class="controls"><input id="key" type="password" autocomplete="off" spellcheck="false" required>
<button class="primary">Use this key</button></div>
<p class="quiet">It is kept until you close or reload this page.</p>
<p id="key-problem" class="bad" role="alert"></p>
</form>
<form id="ask-form">
<div id="drop">
<input id="file" type="file" accept="image/*" class="visually-hidden">
<label for="file"><img id="preview" alt="" hidden><span id="file-name" class="said"></span>
<span id="file-hint">Drop a picture here, paste one, or <span class="link">choose a file</span></span></label>
</div>
<p id="file-note" class="quiet" role="status"></p>
<label for="question">Question or instruction</label>
<textarea id="question" rows="2" aria-describedby="question-hint"></textarea>
<p id="question-hint" class="quiet">Enter asks, Shift+Enter starts a new line.</p>
<div class="controls"><button id="ask" class="primary">Ask</button>
<button id="cancel" type="button" hidden>Cancel</button> <span id="clock" class="quiet" aria-hidden="true"></span></div>
<p id="progress" class="quiet" role="status"></p>
<p id="problem" class="bad" role="alert"></p>
</form>
</section>
<section class="asked" aria-label="Answers">
<p id="told" class="visually-hidden" role="status"></p>
<div id="nothing" class="nothing quiet">
<h2>Two answers to each question</h2>
<p>One to your words as typed, and one to the words that were chosen for this picture: the model rewrites yours, and its
wording is used only if it fits the picture better and asks the same. Where the model is certain, your words are left
alone.</p>
<p>What you ask stays on this page until you close or reload it.</p>
</div>
<ol id="asked"></ol>
</section>
</main>
<noscript><p class="bad">This page needs JavaScript; the routes under /v1 do not.</p></noscript>
"""


def page_of(gate: GateSettings, images: ImageLimits) -> Callable[[Request], Awaitable[Response]]:
    """Returns the route of the page.

    Args:
        gate: its limits, and whether it must ask for a key, are told to the script.
        images: larger pictures are scaled down before they are sent.
    """
    scripts = [resource("page.js", __package__)]
    told = {
        "needs_key": gate.api_key is not None,
        "max_body_bytes": gate.max_body_bytes,
        "max_file_bytes": images.max_bytes,
        "max_pixels": images.max_pixels,
    }
    html = page(
        "vlinstruct",
        [_BODY, data_block("server", told)],
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
