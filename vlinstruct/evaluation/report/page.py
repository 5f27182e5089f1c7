"""The report to look at: one HTML file with a verdict, the averages as a drawing, the tasks, and a dozen cases.

Every figure stands in it once more as Markdown, to be copied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlinstruct.errors import shortened
from vlinstruct.evaluation.report.cases import Case, CaseAnswer, Cases
from vlinstruct.evaluation.report.chart import Axis, axis_of, strip, ticks_strip
from vlinstruct.evaluation.report.columns import OPTIMIZED, Column
from vlinstruct.evaluation.report.markdown import as_markdown
from vlinstruct.evaluation.report.table import Cell, Table
from vlinstruct.evaluation.report.text import (
    described,
    facts_in_words,
    findings,
    metric_in_words,
    spelled,
    spelled_time,
    unit_of,
    words_in_words,
)
from vlinstruct.evaluation.report.verdict import Kind, task_kind, verdicts
from vlinstruct.metrics.bootstrap import Interval
from vlinstruct.report.previews import preview_of
from vlinstruct.report.shell import page, resource, text

_PACKAGE = "vlinstruct.evaluation.report"
_MAX_PREVIEW_BYTES = 200_000
_MOST_CHARACTERS = 600
STYLE_OF: Mapping[Kind, str] = {
    "better": "good",
    "worse": "bad",
    "no difference": "",
    "too few items": "doubt",
    "undefined": "doubt",
}
_ROLE_NAMES = {
    "initial": "as typed",
    "rewritten": "rewritten",
    "optimized": "optimized",
    "canonical": "in canonical words",
}
_CHIPS: Mapping[Kind, str] = {
    "better": "it helps",
    "worse": "it harms",
    "no difference": "no difference",
    "too few items": "too few items",
    "undefined": "undefined",
}


def as_html(table: Table, cases: Cases, facts: Mapping[str, Any]) -> str:
    """Returns the page; it needs nothing beside itself.

    Args:
        table: the scores.
        cases: single items to show.
        facts: what they were measured on and with.
    """
    of_models = verdicts(table)
    leading = [one for one in of_models if one.words == table.words[-1]]
    others = [one for one in of_models if one.words != table.words[-1]]
    body = [
        '<header class="masthead"><h1>Does instruction optimization help?</h1>',
        *(f'<p class="lead">{chip(one.kind, _CHIPS)} {text(str(one))}</p>' for one in leading),
        '</header><main class="evaluation">',
        *section("In other kinds of words", bulleted(f"{chip(one.kind, _CHIPS)} {text(str(one))}" for one in others)),
        *section("What was measured", _definitions(facts_in_words(facts), "facts")),
        *section("All ways to ask", _averages(table)),
        *section("Tasks", _tasks(table)),
        *section("What words and optimization cost and gain", _findings(table)),
        *section("Words", _definitions(words_in_words(table), "words")),
        *section(f"{len(cases.shown)} of {cases.num_items:,} items", _cases(cases)),
        *markdown_section(as_markdown(table, facts), "results.md in the output folder holds it, too."),
        "</main>",
    ]
    return evaluation_page(f"{facts['id']}: does instruction optimization help?", body)


def evaluation_page(title: str, body: Iterable[str]) -> str:
    """Returns a page in the style of all evaluations.

    Args:
        title: of the window.
        body: HTML.
    """
    return page(title, body, styles=[resource("page.css", _PACKAGE)], scripts=[resource("page.js", _PACKAGE)])


def section(title: str, lines: Iterable[str]) -> list[str]:
    """Returns a card with its title; nothing where nothing stands in it."""
    content = list(lines)
    return ['<section class="card">', f"<h2>{text(title)}</h2>", *content, "</section>"] if content else []


def markdown_section(markdown: str, note: str) -> list[str]:
    """Returns all figures as Markdown, folded up, with a button that copies them."""
    return [
        '<details class="card"><summary>All figures as Markdown</summary>',
        f'<p class="controls"><button type="button" data-copies="markdown" hidden>Copy</button> '
        f'<span class="quiet" role="status"></span><span class="quiet">{text(note)}</span></p>',
        f'<pre id="markdown" tabindex="0" role="region" aria-label="Markdown">{text(markdown)}</pre></details>',
    ]


def chip(kind: Kind, names: Mapping[Kind, str]) -> str:
    """Returns what can be said, in a word or two."""
    return f'<span class="chip {STYLE_OF[kind]}">{names[kind]}</span>'


def bulleted(entries: Iterable[str]) -> list[str]:
    """Returns a list of HTML; nothing where there is no entry."""
    items = [f"<li>{entry}</li>" for entry in entries]
    return ['<ul class="plain">', *items, "</ul>"] if items else []


def table_box(label: str, lines: Iterable[str], kind: str = "") -> Iterator[str]:
    """Yields a table in a box that scrolls where it is too wide.

    Args:
        label: what it is, for who cannot see it.
        lines: its rows.
        kind: a class.
    """
    yield f'<div class="table-box" tabindex="0" role="region" aria-label="{text(label)}"><table class="{kind}">'
    yield from lines
    yield "</table></div>"


def interval_cell(value: Interval, *, digits: int = 3, signed: bool = False, kind: Kind | None = None) -> str:
    """Returns a figure with its interval below."""
    figure, *interval = spelled(value, digits=digits, signed=signed).split(" ", 1)
    style = f' class="{STYLE_OF[kind]}"' if kind is not None else ""
    between = f'<br><small class="quiet">{text(interval[0])}</small>' if interval else ""
    return f'<td class="number"><span{style}>{figure}</span>{between}</td>'


def _definitions(entries: Iterable[tuple[str, str]], kind: str) -> Iterator[str]:
    yield f'<dl class="{kind}">'
    for name, meaning in entries:
        yield f"<div><dt>{text(name)}</dt><dd>{text(meaning)}</dd></div>"
    yield "</dl>"


def _averages(table: Table) -> Iterator[str]:
    """Yields the averages, drawn beside their figures: a table for each kind of words, all on one axis."""
    axis = axis_of(table)
    yield f"<p>{text(unit_of(table).capitalize())}. The lines are 95 % intervals over resampled items.</p>"
    if len(table.models) > 1:
        marks = (f"{_mark(row)} {text(model)}" for row, model in enumerate(table.models))
        yield f'<p class="legend">{" ".join(f"<span>{mark}</span>" for mark in marks)}</p>'
    for words in reversed(table.words):
        yield f"<h3>{words} words</h3>"
        yield from table_box(f"Averages in {words} words", _averages_in(table, words, axis), "averages")


def _mark(row: int) -> str:
    dot = (
        '<rect class="dot" x="2" y="2" width="8" height="8"/>'
        if row % 2
        else '<circle class="dot" cx="6" cy="6" r="4.5"/>'
    )
    return f'<svg class="strip row-{row % 5}" width="12" height="12" aria-hidden="true">{dot}</svg>'


def _averages_in(table: Table, words: Any, axis: Axis) -> Iterator[str]:
    has_rows = len(table.models) > 1
    model_head = '<th scope="col">model</th>' if has_rows else ""
    yield f'<thead><tr><th scope="col">way</th>{model_head}<th scope="col" class="drawn">{ticks_strip(axis)}'
    yield '<span class="visually-hidden">drawn</span></th><th scope="col" class="number">average</th>'
    yield '<th scope="col" class="number time">ms per item</th></tr></thead><tbody>'
    for column in table.columns:
        for row, model in enumerate(table.models):
            cell = Cell(model, words, column)
            average = table.average(cell)
            way = f'<th scope="row" rowspan="{len(table.models)}">{text(column)}</th>' if not row else ""
            name = f'<td class="model">{text(model)}</td>' if has_rows else ""
            figure = (
                '<td class="number">100<br><small class="quiet">the reference</small></td>'
                if table.is_base(cell) and math.isfinite(average.value)
                else interval_cell(average, digits=2)
            )
            chosen = ' class="chosen"' if column == OPTIMIZED else ""
            yield f'<tr{chosen}>{way}{name}<td class="drawn">{strip(axis, average, row)}</td>{figure}'
            yield f'<td class="number time">{spelled_time(table.seconds[cell])}</td></tr>'
    yield "</tbody>"


def _tasks(table: Table) -> Iterator[str]:
    """Yields the tasks' own metrics, plain and optimized, and what optimization changes in each kind of words."""
    yield (
        "<p>Each in its own metric: 1 is all right, CIDEr goes to 10. Of shares the interval is Wilson's. A change is "
        "coloured where the interval and a paired permutation test agree on its sign.</p>"
    )
    yield from table_box("Tasks", _task_rows(table), "tasks")


def _task_rows(table: Table) -> Iterator[str]:
    columns: tuple[Column, ...] = ("plain", OPTIMIZED)
    has_rows = len(table.models) > 1
    model_head = '<th scope="col" rowspan="2">model</th>' if has_rows else ""
    all_words = [words for words in reversed(table.words) if words != "paraphrased"]
    groups = "".join(f'<th scope="colgroup" colspan="3">{words} words</th>' for words in all_words)
    heads = "".join(f'<th scope="col" class="number">{name}</th>' for _ in all_words for name in (*columns, "change"))
    yield f'<thead><tr><th scope="col" rowspan="2">task</th>{model_head}'
    yield f'<th scope="col" rowspan="2" class="number">items</th>{groups}</tr><tr>{heads}</tr></thead><tbody>'
    for task in table.tasks:
        for row, model in enumerate(table.models):
            metric = f'<br><small class="quiet">{text(metric_in_words(task.metric))}</small>'
            head = f'<th scope="row" rowspan="{len(table.models)}">{text(task.name)}{metric}</th>' if not row else ""
            name = f'<td class="model">{text(model)}</td>' if has_rows else ""
            cells = []
            for words in all_words:
                plain, optimized = (Cell(model, words, column) for column in columns)
                change = table.task_difference(optimized, plain, task.name)
                p_value = table.task_p_value(optimized, plain, task.name)
                kind = task_kind(table, task, change, p_value)
                cells += [interval_cell(table.task_score(cell, task.name)) for cell in (plain, optimized)]
                cells.append(interval_cell(change, signed=True, kind=kind if kind in ("better", "worse") else None))
            size = f'<td class="number">{text(described(table, task, unit=""))}</td>'
            yield f"<tr>{head}{name}{size}{''.join(cells)}</tr>"
    yield "</tbody>"


def _findings(table: Table) -> Iterator[str]:
    yield "<p>In points of the averages, with 95 % intervals; a share of a loss is 1 where all of it is won back.</p>"
    rows = (
        f'<tr><th scope="row">{text(name)}</th>{interval_cell(value, digits=2, signed=True)}</tr>'
        for name, value in findings(table).items()
    )
    yield from table_box("Differences", ["<tbody>", *rows, "</tbody>"])


def _cases(cases: Cases) -> Iterator[str]:
    if not cases.num_items:
        return
    yield (
        f"<p>{text(cases.model)}, in {cases.words} words. Optimization changed {cases.num_changed:,} of "
        f"{cases.num_items:,} answers: {cases.num_mended:,} became right, {cases.num_spoilt:,} became wrong; captions "
        "are neither. Shown are failures first, then changed answers, then others, sampled by seed.</p>"
    )
    yield '<div class="cases">'
    for case in cases.shown:
        yield from _case(case)
    yield "</div>"


def _case(case: Case) -> Iterator[str]:
    preview = preview_of(case.item.load_picture(), max_bytes=_MAX_PREVIEW_BYTES)
    yield '<article class="case">'
    yield f'<div class="picture"><img alt="the picture of {text(case.item.id)}" src="{text(preview.address)}"></div>'
    yield f"<h3>{text(case.item.id)} {_case_chip(case)}</h3>"
    name = "reference" if case.metric == "cider" else "right"
    yield f'<p>{name}: <span class="said">{_told(case.reference)}</span></p>'
    others = [reference for reference in dict.fromkeys(case.item.references) if reference != case.reference]
    if others:
        yield f"<details><summary>{len(others)} more</summary>"
        yield from bulleted(f'<span class="said">{_told(other)}</span>' for other in others)
        yield "</details>"
    yield '<dl class="asked">'
    by_instruction: dict[tuple[str, str], list[CaseAnswer]] = {}
    for answer in case.answers:
        by_instruction.setdefault((answer.instruction, answer.text), []).append(answer)
    for answers in by_instruction.values():
        yield from _asked(answers, case)
    yield f'</dl><p class="quiet">{_told(case.reason)}</p></article>'


def _case_chip(case: Case) -> str:
    if case.is_failure:
        spoilt = case.typed.is_right is True
        return f'<span class="chip bad">{"became wrong" if spoilt else "wrong"}</span>'
    if not case.is_changed:
        return ""
    mended = case.typed.is_right is False
    return f'<span class="chip {"good" if mended else "accent"}">{"became right" if mended else "changed"}</span>'


def _asked(answers: Sequence[CaseAnswer], case: Case) -> Iterator[str]:
    """Yields an instruction with its answer, and how that is judged by the task's metric."""
    answer = answers[0]
    is_chosen = case.chosen in {one.role for one in answers}
    roles = ", ".join(_ROLE_NAMES[one.role] for one in answers)
    ias = "" if answer.ias is None else f' <span class="quiet">IAS {answer.ias:.2f}</span>'
    mark = ' <span class="chip accent">chosen</span>' if is_chosen else ""
    yield f"<div{' class=chosen' if is_chosen else ''}><dt>{roles}{ias}{mark}</dt>"
    yield f'<dd class="said">{_told(answer.instruction)}</dd>'
    style = {True: "good", False: "bad", None: ""}[answer.is_right]
    said = f'<span class="said {style}">{_told(answer.text)}</span>' if answer.text else "no answer:"
    yield f'<dd>{said} <span class="quiet">{_judged(answer, case)}</span></dd></div>'


def _judged(answer: CaseAnswer, case: Case) -> str:
    if answer.is_right is None:
        return f"CIDEr {answer.score:.1f} of 10"
    if case.metric == "vqa_accuracy" and 0 < answer.score < 1:
        return f"right for some: {answer.score:.2f}"
    if case.metric == "mrr" and answer.score < 1:
        place = round(1 / answer.score)
        return f"wrong: the right one comes {({2: 'second', 3: 'third'}).get(place, f'at place {place}')}"
    return "right" if answer.is_right else "wrong"


def _told(said: str) -> str:
    """Returns a text of a data set or a model, as long as somebody would read it; the records have all of it."""
    return text(shortened(said, _MOST_CHARACTERS))
