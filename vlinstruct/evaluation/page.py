"""The report to look at: one HTML file with the drawing, what follows from it, and a dozen cases with pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from vlinstruct.errors import printable
from vlinstruct.evaluation.cases import Answer, Case
from vlinstruct.evaluation.chart import as_svg
from vlinstruct.evaluation.report import findings, spelled
from vlinstruct.evaluation.table import Table

_SHOWN_PX = 200
_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .6rem 0 }
td, th { padding: .15rem .7rem .15rem 0; text-align: left; vertical-align: top }
.case { display: flex; align-items: flex-start; gap: 1.2rem; border-top: 1px solid #ccc; padding: .8rem 0 }
.chosen { background: #eef4fb } .right { color: #1a7f37 } .wrong { color: #c62828 } .quiet { color: #777 }
"""


def as_html(table: Table, cases: Sequence[Case], facts: Mapping[str, Any]) -> str:
    """Returns the page; it needs nothing beside itself.

    Args:
        table: the scores.
        cases: see `draw_cases`.
        facts: what they were measured on and with.
    """
    said = ", ".join(f"{name.replace('_', ' ')}: {_text(value)}" for name, value in facts.items() if name != "id")
    found = [
        f"<tr><td>{_text(name)}</td><td>{spelled(one, signed=True)}</td></tr>" for name, one in findings(table).items()
    ]
    lines = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(facts["id"])}</title>',
        f"<style>{_STYLE}</style><h1>Does instruction optimization help?</h1><p>{said}</p>",
        f"<p>Average over {len(table.tasks)} tasks relative to {_text(table.base.model)} on canonical words (100), "
        "with 95 % intervals over resampled items.</p>",
        as_svg(table),
        f"<h2>What follows</h2><p>Points; of shares 1 is all.</p><table>{''.join(found)}</table>",
        f"<h2>{len(cases)} cases of {_text(table.models[-1])}, in {table.words[-1]} words</h2>",
        f"<p>Drawn by seed; {sum(case.is_failure for case in cases)} are failures: the chosen instruction's answer is "
        "no reference, word for word.</p>",
        *(line for case in cases for line in _case(case)),
    ]
    return "\n".join([*lines, "</html>", ""])


def _case(case: Case) -> Iterator[str]:
    yield f'<div class="case"><img alt="" width="{_SHOWN_PX}" src="{_embedded(case.item.draw())}"><div>'
    yield f"<b>{_text(case.item.id)}</b> right: {_text(case.reference)}"
    yield "<table><tr><th></th><th>instruction</th><th>IAS</th><th>answer</th></tr>"
    yield from (_row(one, is_chosen=one.role == case.chosen) for one in case.answers)
    yield f'</table><span class="quiet">{_text(case.reason)}</span></div></div>'


def _row(one: Answer, *, is_chosen: bool) -> str:
    ias = "" if one.ias is None else f"{one.ias:.4f}"
    rightness = "right" if one.is_right else "wrong"
    cells = f"<td>{one.role}</td><td>{_text(one.instruction)}</td><td>{ias}</td>"
    return f'<tr class="{"chosen" if is_chosen else ""}">{cells}<td class="{rightness}">{_text(one.text)}</td></tr>'


def _embedded(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _text(value: object) -> str:
    return html.escape(printable(str(value)))
