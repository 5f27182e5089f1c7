"""Pages in a real browser: Debian's Chromium, driven by playwright, with axe-core for accessibility."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
PHONE, DESK = 360, 1400
"""Widths in pixels that every page is looked at."""

HOSTILE = [
    "<script>document.title = 'run'</script>",
    "</script><script>document.title = 'run'</script>",
    "<!--<script>",
    "\" onerror=\"document.title='run'\" '",
    "]]></style></title><img src=x onerror=\"document.title='run'\">",
    "a\u202eb\u2066c\u200f",
    "\ud800\x1b[2J\x00",
    "long " * 2000,
    "w" * 10_000,
]
"""Texts that change nothing in a page, wherever they stand."""

_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that lies here needs the browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests; each opens a window of its own, which shares nothing."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Window:
    """A page with what went wrong in it, which a test ends by asserting.

    Attributes:
        page: playwright's.
        problems: errors of its scripts and console, and whatever it tried to load that is neither in it nor allowed.
    """

    page: Page
    problems: list[str] = field(default_factory=list)

    def findings(self) -> list[str]:
        """Returns axe-core's serious and critical findings, each with the element."""
        from axe_playwright_python.sync_playwright import Axe

        # axe is added to the page, whose policy would not let it run.
        violations: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [
            f"{violation['id']}: {node['html'][:120]}: {node.get('failureSummary', '')}"
            for violation in violations
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]

    def width(self) -> int:
        """Returns how wide the document is: the window's width, unless the page scrolls sideways."""
        return int(self.page.evaluate("document.documentElement.scrollWidth"))


OpenWindow = Callable[..., Any]


@pytest.fixture
def window(browser: Browser) -> OpenWindow:
    """Opens `window(address, width=, dark=, may_load=)` as a context manager; `address` is a file or a URL."""

    @contextmanager
    def opened(
        address: Path | str, *, width: int = DESK, height: int = 900, dark: bool = False, may_load: str = "nothing://"
    ) -> Iterator[Window]:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            bypass_csp=False,
        )
        try:
            page = context.new_page()
            opened = Window(page)
            url = address.as_uri() if isinstance(address, Path) else address
            page.on("pageerror", lambda error: opened.problems.append(f"script: {error}"))
            page.on(
                "console",
                lambda message: opened.problems.append(message.text) if message.type in ("error", "warning") else None,
            )
            page.on(
                "request",
                lambda request: (
                    None
                    if request.url.startswith(("data:", "blob:", url, may_load))
                    else opened.problems.append(f"loads {request.url[:200]}")
                ),
            )
            page.goto(url)
            yield opened
        finally:
            context.close()

    return opened
