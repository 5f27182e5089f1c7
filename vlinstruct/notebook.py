"""What a notebook shows of a value: HTML without scripts and style sheets, which reads on light and dark grounds alike.

No colour is set but translucent ones over whatever ground there is; text keeps the notebook's own. Every text comes
from a user, a file or a model: it is escaped, and shortened where it is longer than anybody reads here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vlinstruct.errors import printable, shortened

if TYPE_CHECKING:
    from vlinstruct.values import Answer, Optimization, ScoredInstruction

_MAX_CHARACTERS = 600
_MAX_PIECES = 120
_HOTTEST = 6.0
"""Nats at which the colour is at its strongest: a probability of 1 in 400."""
_HEAT, _CHOSEN = "232, 120, 30", "background: rgba(80, 140, 220, .16); font-weight: 600"
_CELL = "text-align: left; vertical-align: top; padding: .3em .9em .3em 0; white-space: normal"
_QUIET = "opacity: .75"


def scored_html(scored: ScoredInstruction) -> str:
    """Returns an instruction with the heat of its tokens, and its IAS."""
    ias = f"IAS {_number(scored.ias)}, mean nats per token; the stronger the colour, the less likely the token"
    return _box([f"<div>{_heat(scored)}</div>", f'<div style="{_QUIET}">{ias}</div>'])


def optimization_html(optimization: Optimization) -> str:
    """Returns the instructions as a table: which was chosen, why, and what they were answered."""
    return _box(_optimization_parts(optimization))


def answer_html(answer: Answer) -> str:
    """Returns an answer with its certainty, the choices that it was ranked among, and the optimization before it."""
    certainty = "" if answer.certainty is None else f" &nbsp;<span>certainty {answer.certainty:.2f}</span>"
    parts = [
        f'<div style="font-size: 1.15em"><b>{_text(answer.text) or "(empty)"}</b></div>',
        f'<div style="{_QUIET}">to {_text(answer.instruction)}{certainty}</div>',
    ]
    if answer.choices:
        rows = [
            (choice.text == answer.text, [_text(choice.text), f"{choice.probability:.3f}", _number(choice.nll)])
            for choice in answer.choices
        ]
        parts.append(_table(["choice", "probability", "nats per token"], rows))
    if answer.optimization is not None:
        parts += _optimization_parts(answer.optimization)
    return _box(parts)


def _optimization_parts(optimization: Optimization) -> list[str]:
    candidates = optimization.by_role()
    is_judged = any(scored.judgement is not None for scored in candidates.values())
    rows = []
    for role, scored in candidates.items():
        ias = scored.ias if scored.scores.tokens else None  # of words that were left alone nobody asked for it
        cells = [_text(role), _number(ias), _heat(scored)]
        if is_judged:
            answer = None if scored.judgement is None else scored.judgement.answer
            cross_nll = None if scored.judgement is None else scored.judgement.cross_nll
            cells += [
                "" if answer is None else _text(answer.text),
                _number(None if answer is None else answer.certainty, digits=2),
                _number(cross_nll, digits=2),
            ]
        rows.append((role == optimization.chosen, cells))
    names = ["", "IAS", "instruction", *(["its answer", "certainty", "cross check"] if is_judged else [])]
    said = [optimization.reason, *optimization.notices]
    return [_table(names, rows), *(f'<div style="{_QUIET}">{_text(line)}</div>' for line in said)]


def _heat(scored: ScoredInstruction) -> str:
    """Returns an instruction's text, each token on a ground whose colour is the stronger the less likely it is."""
    pieces = scored.scores.pieces()
    if not pieces:
        return _text(scored.text)
    shown = [_token(text.lstrip() if place == 0 else text, nats) for place, (text, nats) in enumerate(pieces)]
    rest = len(pieces) - _MAX_PIECES
    more = f' <span style="{_QUIET}">and {rest:,} more</span>' if rest > 0 else ""
    return f'<span dir="auto" style="white-space: pre-wrap">{"".join(shown[:_MAX_PIECES])}</span>{more}'


def _token(text: str, nats: float) -> str:
    share = min(nats / _HOTTEST, 1) if math.isfinite(nats) else 1
    style = f"background: rgba({_HEAT}, {0.55 * share:.2f}); border-radius: .2em"
    return f'<span style="{style}" title="{_number(nats, digits=2)} nats">{_escaped(text)}</span>'


def _table(names: Sequence[str], rows: Iterable[tuple[bool, Sequence[str]]]) -> str:
    """Returns a table of cells that are HTML already, with a mark on the rows that are chosen."""
    head = "".join(f'<th scope="col" style="{_CELL}; {_QUIET}">{name}</th>' for name in names)
    body = []
    for is_chosen, cells in rows:
        first, *others = cells
        mark = "<span>&#9656;&nbsp;</span>" if is_chosen else ""
        row = f'<th scope="row" style="{_CELL}">{mark}{first}</th>'
        row += "".join(f'<td style="{_CELL}">{cell}</td>' for cell in others)
        body.append(f'<tr style="{_CHOSEN if is_chosen else "background: none"}">{row}</tr>')
    return (
        '<div style="overflow-x: auto"><table style="border-collapse: collapse; margin: .3em 0">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _box(parts: Iterable[str]) -> str:
    return f'<div style="max-width: 60em; overflow-wrap: anywhere">{"".join(parts)}</div>'


def _number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}f}" if math.isfinite(value) else "not finite"


def _text(text: str) -> str:
    return f'<span dir="auto" style="white-space: pre-wrap">{_escaped(text)}</span>' if text else ""


def _escaped(text: str) -> str:
    short = text if len(text) <= _MAX_CHARACTERS else shortened(text, _MAX_CHARACTERS)
    return html.escape(printable(short, keep="\n\t"))
