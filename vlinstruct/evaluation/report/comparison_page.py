"""A comparison of two runs as a page: which answers better, and every figure with its interval and its p-value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vlinstruct.evaluation.report.comparison import Comparison, Paired
from vlinstruct.evaluation.report.comparison_text import (
    UNITS,
    as_markdown,
    blocks,
    described,
    heading,
    notes,
    runs,
    spelled_p,
)
from vlinstruct.evaluation.report.facts import metric_in_words
from vlinstruct.evaluation.report.page import (
    bulleted,
    chip,
    evaluation_page,
    interval_cell,
    markdown_section,
    section,
    table_box,
)
from vlinstruct.evaluation.report.verdict import Kind
from vlinstruct.report.shell import text

_CHIPS: Mapping[Kind, str] = {
    "better": "B is better",
    "worse": "A is better",
    "no difference": "no difference",
    "too few items": "too few items",
    "undefined": "undefined",
}


def as_html(comparisons: Sequence[Comparison]) -> str:
    """Returns the page; it needs nothing beside itself.

    Args:
        comparisons: of mini's tasks, of the official benchmarks, or of both.
    """
    body = ['<header class="masthead"><h1>Which of two runs answers better?</h1>']
    for comparison in comparisons:
        averages = [pair for pair in comparison.pairs if pair.task is None]
        for pair, sentence in zip(averages, comparison.verdicts, strict=True):
            body.append(f'<p class="lead">{chip(pair.verdict, _CHIPS)} {text(sentence)}</p>')
    body.append('</header><main class="evaluation">')
    for comparison in comparisons:
        body += section("What was compared", _compared(comparison))
        for pairs in blocks(comparison):
            title = heading(pairs[0], comparison)
            body += section(title[:1].upper() + title[1:], table_box(title, _rows(pairs), "tasks"))
    body += markdown_section("\n".join(as_markdown(comparison) for comparison in comparisons), "")
    return evaluation_page("Which of two runs answers better?", [*body, "</main>"])


def _compared(comparison: Comparison) -> Iterator[str]:
    named_runs = [f"<b>{name}</b> {text(described(run))}" for name, run in runs(comparison)]
    yield from bulleted([*named_runs, *(text(note) for note in notes(comparison))])
    yield f"<p>{text(UNITS)}</p>"


def _rows(pairs: Sequence[Paired]) -> Iterator[str]:
    yield '<thead><tr><th scope="col">task</th>'
    heads = ("A", "B", "B less A", "p", "items", "that differ")
    yield "".join(f'<th scope="col" class="number">{name}</th>' for name in heads) + "</tr></thead><tbody>"
    for pair in pairs:
        kind, digits = pair.verdict, 2 if pair.metric is None else 3
        name = "average" if pair.task is None else text(pair.task)
        if pair.metric is not None:
            name += f'<br><small class="quiet">{text(metric_in_words(pair.metric))}</small>'
        figures = [interval_cell(figure, digits=digits) for figure in (pair.first, pair.second)]
        difference = interval_cell(
            pair.difference, digits=digits, signed=True, kind=kind if kind in ("better", "worse") else None
        )
        p_value = f'<td class="number">{text(spelled_p(pair.p_value))}</td>'
        counts = "".join(f'<td class="number">{count:,}</td>' for count in (pair.num_items, pair.num_differing))
        chosen = ' class="chosen"' if pair.task is None else ""
        yield f'<tr{chosen}><th scope="row">{name}</th>{"".join(figures)}{difference}{p_value}{counts}</tr>'
    yield "</tbody>"
