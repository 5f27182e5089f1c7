"""Draws README's picture of `vlinstruct optimize` at work from what the model really answers.

PYTHONPATH=tests python -m tools.draw_optimize      writes examples/pictures/optimize.svg

The picture is a drawing of one command on one example picture: the three instructions, token by token in the colour of
their nats, their IAS, which one is chosen, and the answers to the first and to the chosen one.
"""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import vlinstruct as vli
from vlinstruct.values import Optimization, ScoredInstruction

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
INSTRUCTION, PICTURE = "is the green triangle rigth of teh purple ring ?", "shapes.png"

_WIDTH, _HEIGHT = 1000, 244
_LEFT, _IAS, _ANSWER = 268, 844, 910  # where the columns begin
_CHARACTER = 9.6  # the advance of a monospaced character at 16 px
_ROLES = ("initial", "rewritten", "optimized")
_MOST_NATS = 8.0  # and above: the darkest red


def main() -> None:
    """Writes the drawing."""
    model = vli.load("mini", device="cpu")
    seen = model.see(PICTURES / PICTURE)
    optimization = model.optimize(INSTRUCTION, seen)
    answers = {"initial": str(model.ask(seen, INSTRUCTION)), "chosen": str(model.ask(seen, optimization.instruction))}
    (PICTURES / "optimize.svg").write_text(as_svg(optimization, answers), encoding="utf-8")


def as_svg(optimization: Optimization, answers: dict[str, str]) -> str:
    """Returns the drawing.

    Args:
        optimization: what is drawn.
        answers: to the `initial` and to the `chosen` instruction.
    """
    picture = base64.b64encode((PICTURES / PICTURE).read_bytes()).decode()
    command = f'$ vlinstruct optimize "{INSTRUCTION}" {PICTURE} --answer'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" aria-label="{escape(_in_words(optimization, answers))}">',
        "<style>text { font: 16px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1f2328 }"
        " .dim { fill: #656d76; font-size: 14px } .win { font-weight: 700 }</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="#ffffff"/>',
        f'<path d="M0 40V8a8 8 0 0 1 8-8h{_WIDTH - 16}a8 8 0 0 1 8 8v32z" fill="#f0f2f4"/>',
        _text(18, 26, command),
        f'<image x="18" y="58" width="224" height="168" href="data:image/png;base64,{picture}"/>',
        '<rect x="18" y="58" width="224" height="168" fill="none" stroke="#d0d7de"/>',
    ]
    parts += [
        _text(_LEFT, 70, "instruction; the redder, the less likely a token", kind="dim"),
        _text(_IAS, 70, "IAS", kind="dim"),
        _text(_ANSWER, 70, "answer", kind="dim"),
    ]
    for place, role in enumerate(_ROLES):
        scored: ScoredInstruction = getattr(optimization, role)
        top = 84 + 50 * place
        is_chosen = role == optimization.chosen
        kind = "win" if is_chosen else ""
        parts += [
            _text(_LEFT, top + 12, f"{role}{', chosen' if is_chosen else ''}", kind=kind or "dim"),
            *_tokens(scored, top + 18),
            _text(_IAS, top + 35, f"{scored.ias:.2f}", kind=kind),
            _text(_ANSWER, top + 35, answers.get("chosen" if is_chosen else role, ""), kind=kind),
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _tokens(scored: ScoredInstruction, top: float) -> list[str]:
    """Returns the tokens side by side, each on the colour of its nats; the last is the end token."""
    parts, x = [], float(_LEFT)
    for token, nats in zip(scored.scores.tokens, scored.scores.token_nll, strict=True):
        shown = "end" if token == "</s>" else token.replace("▁", " ").strip() or " "
        width = _CHARACTER * (len(shown) + 0.6)
        red = min(nats / _MOST_NATS, 1.0)
        colour = f"rgb({255 - round(13 * red)},{255 - round(143 * red)},{255 - round(155 * red)})"
        parts += [
            f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="24" rx="3" fill="{colour}"/>',
            f'<text x="{x + width / 2:.1f}" y="{top + 17}" text-anchor="middle">{escape(shown)}</text>',
        ]
        x += width + 2
    return parts


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" xml:space="preserve">{escape(words)}</text>'


def _in_words(optimization: Optimization, answers: dict[str, str]) -> str:
    """Says the drawing to somebody who cannot see it."""
    before = f"{optimization.initial.text} (IAS {optimization.initial.ias:.2f}, answer {answers['initial']})"
    ias = getattr(optimization, optimization.chosen).ias
    return f"{before} becomes {optimization.instruction} (IAS {ias:.2f}, answer {answers['chosen']})"


if __name__ == "__main__":
    main()
