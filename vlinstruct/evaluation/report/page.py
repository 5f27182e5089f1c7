"""The report to look at: one HTML file with the drawing, what follows from it, and a dozen cases with pictures.

Cases are sampled by seed, failures first: a page of successes alone would say nothing about where optimization fails.

The drawing (SVG) has a dot with its interval for every model and way to choose. It is written by hand: matplotlib is an
extra, and a report should be there without it.
"""

from __future__ import annotations

import base64
import html
import io
import math
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlinstruct.errors import printable
from vlinstruct.evaluation.benchmark import Item
from vlinstruct.evaluation.report.scores import target_of
from vlinstruct.evaluation.report.table import MEANINGS, Cell, Column, Table, decision_of
from vlinstruct.evaluation.report.text import averaged, described, findings, spelled
from vlinstruct.instruction.choose import Decision
from vlinstruct.metrics.accuracy import is_exact_match, is_ranked_first
from vlinstruct.metrics.bootstrap import Interval
from vlinstruct.settings import Thresholds
from vlinstruct.values import ROLES

NUM_CASES, NUM_FAILURES = 12, 4
_SHOWN_PX = 200  # width in the page; the picture itself is embedded whole, to be looked at in full
_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .6rem 0 }
td, th { padding: .15rem .7rem .15rem 0; text-align: left; vertical-align: top }
.case { display: flex; align-items: flex-start; gap: 1.2rem; border-top: 1px solid #ccc; padding: .8rem 0 }
.chosen { background: #eef4fb } .right { color: #1a7f37 } .wrong { color: #c62828 } .quiet { color: #777 }
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one instruction.

    Args:
        role: initial, rewritten or optimized; canonical for the same item in canonical words.
        instruction: what was asked.
        ias: its score; None where it has none.
        text: what was answered: the likeliest candidate where the task ranks.
        is_right: whether it is one by the task's metric; None of captions, which are scored by likeness.
    """

    role: str
    instruction: str
    ias: float | None
    text: str
    is_right: bool | None


@dataclass(frozen=True, kw_only=True)
class Case:
    """An item as it was asked: poorly, where it was.

    Args:
        item: with its picture.
        reference: the right answer, or the one that most people gave.
        answers: of the three instructions, then of the canonical one.
        chosen: the role that `safe` chose.
        reason: why.
    """

    item: Item
    reference: str
    answers: Sequence[Answer]
    chosen: str
    reason: str

    @property
    def is_failure(self) -> bool:
        """Whether the chosen instruction's answer is wrong; a caption's is neither right nor wrong."""
        return next(answer for answer in self.answers if answer.role == self.chosen).is_right is False


def sample_cases(
    records: Iterable[Mapping[str, Any]],
    items: Sequence[Item],
    *,
    model: str,
    seed: int,
    captions: Collection[str] = (),
    thresholds: Thresholds | None = None,
) -> list[Case]:
    """Samples a dozen cases of a model, failures first: four of them, or as many as there are.

    Args:
        records: what `runner.run` wrote.
        items: of all tasks.
        model: the row of the table.
        seed: another one draws others.
        captions: the tasks whose answers are captions.
        thresholds: that `safe` compares with; None leaves what the records say.
    """
    by_id = {str(record["id"]): record for record in records if record.get("status") != "error"}
    # Poor words where there are any: they leave optimization the most to do.
    words = "poor" if any("poor" in item.instructions for item in items) else "canonical"
    prefix = f"{model}/{words}"
    cases = [
        _case_of(
            item,
            by_id[f"{prefix}/{item.id}"],
            by_id[f"{model}/canonical/{item.id}"],
            is_caption=item.task in captions,
            thresholds=thresholds,
        )
        for item in items
        if {f"{prefix}/{item.id}", f"{model}/canonical/{item.id}"} <= by_id.keys()
    ]
    rng = random.Random(f"cases/{seed}")
    failures = [case for case in cases if case.is_failure]
    first = rng.sample(failures, min(NUM_FAILURES, len(failures)))
    other_cases = [case for case in cases if all(case is not other for other in first)]
    return first + rng.sample(other_cases, min(NUM_CASES - len(first), len(other_cases)))


def _case_of(
    item: Item,
    record: Mapping[str, Any],
    canonical: Mapping[str, Any],
    *,
    is_caption: bool,
    thresholds: Thresholds | None,
) -> Case:
    answers = [_answer(record, role, role, is_caption=is_caption) for role in ROLES if role in record]
    decision = Decision(chosen=record["chosen"], reason=record["reason"])
    if thresholds is not None and "rewritten" in record:
        decision = decision_of(record, thresholds)
    return Case(
        item=item,
        reference=Counter(record["references"]).most_common(1)[0][0],
        answers=[*answers, _answer(canonical, "initial", "canonical", is_caption=is_caption)],
        chosen=decision.chosen,
        reason=decision.reason,
    )


def _answer(record: Mapping[str, Any], role: str, name: str, *, is_caption: bool) -> Answer:
    wording, references = record[role], record["references"]
    text = wording["answer"]
    is_right = None if is_caption else any(is_exact_match(str(text), reference) for reference in references)
    if "candidates" in record:
        candidates = record["candidates"]
        text = candidates[min(range(len(candidates)), key=lambda place: wording["answer"][place])]
        is_right = is_ranked_first(wording["answer"], target_of(record))
    return Answer(role=name, instruction=wording["text"], ias=wording["ias"], text=text, is_right=is_right)


def as_html(table: Table, cases: Sequence[Case], facts: Mapping[str, Any]) -> str:
    """Returns the page; it needs nothing beside itself.

    Args:
        table: the scores.
        cases: single items to show, as `sample_cases` gives them.
        facts: what they were measured on and with.
    """
    setting = ", ".join(
        f"{name.replace('_', ' ')}: {_text(_fact(value))}" for name, value in facts.items() if name != "id"
    )
    rows = [
        f"<tr><td>{_text(name)}</td><td>{spelled(value, signed=True)}</td></tr>"
        for name, value in findings(table).items()
    ]
    lines = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(facts["id"])}</title>',
        f"<style>{_STYLE}</style><h1>Does instruction optimization help?</h1><p>{setting}</p>",
        f"<p>{averaged(table).capitalize()}, relative to {_text(table.base.model)} on canonical words (100), "
        "with 95 % intervals over resampled items.</p>",
        as_svg(table),
        f'<p class="quiet">{_text(_column_meanings(table))}</p>',
        *_tasks(table),
        f"<h2>What follows</h2><p>Points; of shares 1 is all.</p><table>{''.join(rows)}</table>",
        f"<h2>{len(cases)} cases of {_text(table.models[-1])}, in {table.words[-1]} words</h2>",
        f"<p>Sampled by seed; {sum(case.is_failure for case in cases)} are failures: the chosen instruction's answer "
        "equals no reference, word for word. Captions are scored by their likeness to the references, and have no "
        "colour.</p>",
        *(line for case in cases for line in _case(case)),
    ]
    return "\n".join([*lines, "</html>", ""])


def _column_meanings(table: Table) -> str:
    """Says what the names in the drawing are."""
    meanings = [f"{column}: {MEANINGS[column]}" for column in table.columns]
    return "; ".join([*meanings, "vanilla: the backbone without an adapter"])


def _fact(value: object) -> str:
    """Returns a fact for people; one that tasks have each, with their names."""
    return ", ".join(f"{name} {of_task}" for name, of_task in value.items()) if isinstance(value, dict) else str(value)


def _tasks(table: Table) -> Iterator[str]:
    """Yields the tasks' own metrics: plain and optimized answers of every model, in canonical and in poor words."""
    columns: tuple[Column, ...] = ("plain", "AIO safe")
    ways = [(words, column) for words in table.words if words != "paraphrased" for column in columns]
    cells = [Cell(model, words, column) for model in table.models for words, column in ways]
    heads = "".join(f"<th>{_text(cell.model)}, {cell.words}, {cell.column}</th>" for cell in cells)
    yield f"<h2>Each task's own metric</h2><table><tr><th>task</th><th>items</th>{heads}</tr>"
    for task in table.tasks:
        scores = [f"<td>{spelled(table.task_score(cell, task.name), digits=3)}</td>" for cell in cells]
        name = f"{task.name} ({task.metric.replace('_', ' ')})"
        yield f"<tr><td>{_text(name)}</td><td>{_text(described(table, task))}</td>{''.join(scores)}</tr>"
    yield "</table>"


def _case(case: Case) -> Iterator[str]:
    stream = io.BytesIO()
    case.item.load_picture().save(stream, "PNG")
    embedded = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    yield f'<div class="case"><img alt="" width="{_SHOWN_PX}" src="{embedded}"><div>'
    references = _text("\n".join(dict.fromkeys(case.item.references)))
    yield f'<b>{_text(case.item.id)}</b> right: <span title="{references}">{_text(case.reference)}</span>'
    yield "<table><tr><th></th><th>instruction</th><th>IAS</th><th>answer</th></tr>"
    yield from (_row(answer, is_chosen=answer.role == case.chosen) for answer in case.answers)
    yield f'</table><span class="quiet">{_text(case.reason)}</span></div></div>'


def _row(answer: Answer, *, is_chosen: bool) -> str:
    ias = "" if answer.ias is None else f"{answer.ias:.4f}"
    rightness = {True: "right", False: "wrong", None: ""}[answer.is_right]
    cells = f"<td>{answer.role}</td><td>{_text(answer.instruction)}</td><td>{ias}</td>"
    return f'<tr class="{"chosen" if is_chosen else ""}">{cells}<td class="{rightness}">{_text(answer.text)}</td></tr>'


def _text(value: object) -> str:
    """Returns a text for HTML: answers are a model's and questions a data set's, neither may end up as markup."""
    return html.escape(printable(str(value)))


_COLOURS = ("#555555", "#1f77b4", "#d62728", "#2ca02c", "#9467bd")
_LEFT, _WIDTH, _ROW, _HEAD, _MARGIN = 130, 520, 13, 26, 34


def as_svg(table: Table) -> str:
    """Returns the drawing: a panel per kind of words, a line per way to choose, a colour per model."""
    low, high = _range(table)
    panel = _HEAD + len(table.columns) * (len(table.models) * _ROW + 6)
    height = len(table.words) * panel + _MARGIN + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 120} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_LEFT + _WIDTH + 120}" height="{height}" fill="white"/>',
        *_grid(low, high, len(table.words) * panel),
    ]
    for number, words in enumerate(table.words):
        top = number * panel + 16
        lines.append(f'<text x="4" y="{top}" font-weight="bold">{words} words</text>')
        for place, column in enumerate(table.columns):
            y = top + 16 + place * (len(table.models) * _ROW + 6)
            lines.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{column}</text>')
            for row, model in enumerate(table.models):
                average = table.average(Cell(model, words, column))
                lines += _dot(average, low, high, y + row * _ROW, _COLOURS[row % len(_COLOURS)])
    lines += _legend(table, height - 8)
    return "\n".join([*lines, "</svg>", ""])


def _range(table: Table) -> tuple[float, float]:
    """Returns whole numbers that all intervals lie between."""
    averages = [
        table.average(Cell(model, words, column))
        for model in table.models
        for words in table.words
        for column in table.columns
    ]
    ends = [end for average in averages for end in (average.low, average.value, average.high) if math.isfinite(end)]
    return (math.floor(min(ends)) - 1, math.ceil(max(ends)) + 1) if ends else (0, 100)


def _x(value: float, low: float, high: float) -> float:
    return round(_LEFT + _WIDTH * (value - low) / (high - low), 1)


def _grid(low: float, high: float, bottom: float) -> Iterator[str]:
    step = max(1, round((high - low) / 10))
    for value in range(int(low), int(high) + 1, step):
        x = _x(value, low, high)
        colour = "#888888" if value == 100 else "#dddddd"
        yield f'<line x1="{x}" x2="{x}" y1="20" y2="{bottom}" stroke="{colour}"/>'
        yield f'<text x="{x}" y="{bottom + 14}" text-anchor="middle" fill="#555555">{value}</text>'


def _dot(average: Interval, low: float, high: float, y: float, colour: str) -> Iterator[str]:
    if not math.isfinite(average.value):
        return
    x = _x(average.value, low, high)
    if math.isfinite(average.low):
        ends = f'x1="{_x(average.low, low, high)}" x2="{_x(average.high, low, high)}"'
        yield f'<line {ends} y1="{y}" y2="{y}" stroke="{colour}" stroke-width="1.5"/>'
    yield f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>'
    yield f'<text x="{_LEFT + _WIDTH + 8}" y="{y + 4}" fill="{colour}">{average.value:.2f}</text>'


def _legend(table: Table, y: float) -> Iterator[str]:
    for row, model in enumerate(table.models):
        x, colour = _LEFT + 150 * row, _COLOURS[row % len(_COLOURS)]
        yield f'<circle cx="{x}" cy="{y - 4}" r="3.5" fill="{colour}"/>'
        yield f'<text x="{x + 8}" y="{y}">{html.escape(model)}</text>'
