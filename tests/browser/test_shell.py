"""The frame of every page."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlinstruct.report.shell import data_block, page, text

from .conftest import DESK, HOSTILE, PHONE, OpenWindow

SAMPLE = """<main><h1>A title</h1><p class="quiet">quiet</p><div class="card"><h2>Card</h2>
<p><span class="chip">plain</span> <span class="chip accent">accent</span> <span class="chip good">good</span>
<span class="chip bad">bad</span> <span class="chip doubt">doubt</span></p>
<p class="controls"><button>Button</button> <button class="primary">Primary</button>
<button aria-pressed="true">Pressed</button><button disabled>Disabled</button></p>
<div class="table-box" tabindex="0" role="region" aria-label="Table"><table><thead><tr><th>a</th>
<th class="number">b</th></tr></thead><tbody><tr class="chosen"><td class="good">good</td><td class="number">1.0
<span class="bar" style="--share:.5"></span></td></tr><tr><td class="bad">bad</td><td class="doubt">doubt</td></tr>
</tbody></table></div></div></main>"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_style_is_accessible_light_and_dark_and_fits_every_width(
    tmp_path: Path, window: OpenWindow, width: int, dark: bool
) -> None:
    (tmp_path / "page.html").write_text(page("Title", [SAMPLE]))
    with window(tmp_path / "page.html", width=width, dark=dark) as opened:
        assert opened.findings() == []
        assert opened.width() == width
        assert opened.problems == []


def test_a_hostile_text_is_text_in_title_body_attribute_and_data(tmp_path: Path, window: OpenWindow) -> None:
    script = "document.body.append(JSON.parse(document.getElementById('d').textContent).length)"
    for number, hostile in enumerate(HOSTILE):
        path = tmp_path / f"{number}.html"
        head = f'<main><h1>h</h1><p title="{text(hostile)}">{text(hostile)}</p></main>'
        path.write_text(page(hostile, [head, data_block("d", [hostile] * 7)], scripts=[script]), encoding="utf-8")
        with window(path) as opened:
            assert opened.problems == []
            assert opened.page.title() != "run"
            assert opened.page.locator("script").count() == 2
            assert opened.page.locator("img").count() == 0
            assert opened.page.locator("body").inner_text().endswith("7")
            assert opened.width() == DESK


def test_a_page_runs_and_loads_nothing_that_is_not_its_own(tmp_path: Path, window: OpenWindow) -> None:
    smuggled = "<main><h1>h</h1><script>document.title = 'run'</script><img src='https://example.org/a.png'></main>"
    (tmp_path / "page.html").write_text(page("still", [smuggled]))
    with window(tmp_path / "page.html") as opened:
        assert opened.page.title() == "still"
        assert sum("Content Security Policy" in problem for problem in opened.problems) >= 2
