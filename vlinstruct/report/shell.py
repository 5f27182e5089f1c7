"""What every page is made of: the frame of an HTML file, its style, its scripts, and the ways in which text gets in.

A page is one file that needs nothing beside itself. Whatever a model, a user or a file name says gets in by `text`, or
as data by `data_block`; a Content-Security-Policy lets the browser run and load nothing else, should either ever fail.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from vlinstruct.errors import printable

GENERATOR = "vlinstruct"
"""What a page of ours says of itself in its `<meta name="generator">`."""
MARK = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<meta name="generator" content="{GENERATOR}">\n'
"""How every page of ours begins."""

_ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"  # else a browser asks the server for one


def text(value: object) -> str:
    """Returns a text as HTML, in an element or in a quoted attribute, where it is never markup.

    Controls, and the marks that reorder a line, are shown as escapes.

    >>> text('<b a="1">')
    '&lt;b a=&quot;1&quot;&gt;'
    """
    return html.escape(printable(str(value), keep="\n\t"))


def json_text(value: Any) -> str:
    r"""Returns a value as JSON on one line that can stand in a `<script>` of data.

    >>> json_text({"a": "</script><!--"})
    '{"a":"\\u003c/script>\\u003c!--"}'
    """
    # `<` begins all that ends a script or changes how its text is read: `</script`, `<script`, `<!--`. Lone surrogates,
    # which an id may hold, are no UTF-8, and JSON has an escape for them.
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" or c == "<" else c for c in plain)


def data_block(id: str, value: Any) -> str:
    """Returns a value as an element: `JSON.parse(document.getElementById(id).textContent)` reads it."""
    return f'<script type="application/json" id="{text(id)}">{json_text(value)}</script>'


def resource(name: str, package: str = "vlinstruct.report") -> str:
    """Returns a file of a package, e.g. `style.css`, as text."""
    return (files(package) / name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str] = (), *, is_served: bool = False) -> str:
    """Returns the Content-Security-Policy of a page: what a browser may run and load for it."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = {
        "default-src": "'none'",
        "img-src": "data: blob:" if is_served else "data:",
        # Hashes would not cover `style="--share: .4"`; a style loads nothing, as `default-src` stands.
        "style-src": "'unsafe-inline'",
        "script-src": " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'",
        **({"connect-src": "'self'", "media-src": "blob:"} if is_served else {}),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in allowed.items())


def head(title: str, *, styles: Sequence[str] = (), scripts: Sequence[str] = (), is_served: bool = False) -> str:
    """Returns a page up to its body.

    Args:
        title: of the window.
        styles: CSS that follows that of all pages.
        scripts: those that the page ends with; others are not run.
        is_served: whether it comes from our server: then it may call it, and show pictures that a user gives it.
    """
    return "\n".join(
        [
            f'{MARK}<meta http-equiv="Content-Security-Policy" content="{policy(scripts, is_served=is_served)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<link rel="icon" href="{_ICON}">',
            f"<title>{text(title)}</title>",
            *(f"<style>{style}</style>" for style in (resource("style.css"), *styles)),
            "",
        ]
    )


def tail(scripts: Sequence[str] = ()) -> str:
    """Returns a page's end, with the scripts that its head names."""
    assert not any("</script" in script or "<!--" in script for script in scripts)
    return "\n".join([*(f"<script>{script}</script>" for script in scripts), "</html>", ""])


def page(
    title: str,
    body: Iterable[str],
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    is_served: bool = False,
) -> str:
    """Returns a whole page; one that is too large for that is `head`, its body and `tail`.

    Args:
        title: of the window.
        body: HTML, whose texts went through `text`, and `data_block`s.
        styles: CSS that follows that of all pages.
        scripts: JavaScript, run when the body is there.
        is_served: as in `head`.
    """
    return head(title, styles=styles, scripts=scripts, is_served=is_served) + "\n".join(body) + "\n" + tail(scripts)


def is_page(beginning: bytes) -> bool:
    """Says by its first bytes whether a file is a page of ours."""
    return beginning.startswith(MARK.encode())
