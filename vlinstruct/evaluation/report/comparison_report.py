"""A comparison of two runs for a terminal, as Markdown, and as a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from vlinstruct.evaluation.report.comparison import Comparison, Paired, Run
from vlinstruct.evaluation.report.differences import as_lines
from vlinstruct.evaluation.report.markdown import markdown_table, markdown_text
from vlinstruct.evaluation.report.page import (
    bulleted,
    chip,
    evaluation_page,
    interval_cell,
    markdown_section,
    section,
    table_box,
)
from vlinstruct.evaluation.report.text import Block, metric_in_words, spelled
from vlinstruct.evaluation.report.verdict import Kind
from vlinstruct.report.shell import text

UNITS = (
    "B less A, with 95 % intervals over resampled items and two-sided p-values of paired permutation tests. Averages "
    "are in points, where A's plain answers in canonical words are 100; tasks in their own metric, 1 for all right "
    "(CIDEr: 10 at most)."
)


def comparison_blocks(comparison: Comparison) -> Iterator[Block | str]:
    """Yields what people read of a comparison."""
    yield "\n".join(comparison.verdicts)
    yield "\n".join([*(f"{name}  {described(run)}" for name, run in runs(comparison)), *notes(comparison)])
    yield UNITS
    for pairs in pairs_by_heading(comparison):
        yield Block(
            title=heading(pairs[0], comparison),
            heads=("", "A", "B", "B less A", "p", "items", "differ"),
            rows=[[pair.task or "average", *_figures(pair)] for pair in pairs],
        )
    yield "\n".join(as_lines(comparison.differences, str(comparison.first.folder)))


def as_markdown(comparison: Comparison) -> str:
    """Returns a comparison as Markdown."""
    lines = ["# Which of two runs answers better?", "", *(f"- {markdown_text(one)}" for one in comparison.verdicts), ""]
    lines += [f"- {name}: {markdown_text(described(run))}" for name, run in runs(comparison)]
    lines += [f"- {markdown_text(note)}" for note in notes(comparison)] + ["", UNITS]
    for pairs in pairs_by_heading(comparison):
        lines += ["", f"## {markdown_text(heading(pairs[0], comparison))}", ""]
        head = ["", "A", "B", "B less A", "p", "items", "items that differ"]
        lines += markdown_table(head, [[_named(pair), *_figures(pair)] for pair in pairs], num_texts=1)
    return "\n".join([*lines, ""])


def runs(comparison: Comparison) -> list[tuple[str, Run]]:
    """Returns the two runs with the letters that stand for them."""
    return [("A", comparison.first), ("B", comparison.second)]


def described(run: Run) -> str:
    """Says which run it is."""
    return f"{run.folder} ({run.results.get('backbone', run.results['id'])}: {', '.join(run.rows)})"


def notes(comparison: Comparison) -> Iterator[str]:
    """Yields what a reader of the figures must know."""
    if comparison.num_unpaired:
        yield f"{comparison.num_unpaired:,} items that one of both lacks are left out"
    if comparison.num_reworded:
        yield f"the two runs typed other words in {comparison.num_reworded:,} of their questions"
    num_tests = sum(not math.isnan(pair.p_value) for pair in comparison.pairs)
    yield f"of {num_tests} tests, one in twenty has a p below 0.05 by chance"


def pairs_by_heading(comparison: Comparison) -> Iterator[list[Paired]]:
    """Yields the figures that stand under one heading: an average, and the tasks that it is over."""
    block: list[Paired] = []
    for pair in comparison.pairs:
        if pair.task is None and block:
            yield block
            block = []
        block.append(pair)
    if block:
        yield block


def heading(pair: Paired, comparison: Comparison) -> str:
    """Returns what a block is of; with its row, where there are several."""
    rows = pair.row if pair.row == pair.other_row else f"{pair.row} and {pair.other_row}"
    has_rows = len({one.row for one in comparison.pairs}) > 1
    return f"{rows}, {pair.words} words, {pair.column}" if has_rows else f"{pair.words} words, {pair.column}"


def _named(pair: Paired) -> str:
    """Returns what a figure is."""
    return "average" if pair.task is None or pair.metric is None else f"{pair.task} ({metric_in_words(pair.metric)})"


def spelled_p(p_value: float) -> str:
    """Returns a p-value.

    >>> spelled_p(0.0004), spelled_p(0.25)
    ('<0.001', '0.250')
    """
    if math.isnan(p_value):
        return "undefined"
    return "<0.001" if p_value < 1e-3 else f"{p_value:.3f}"


def _figures(pair: Paired) -> list[str]:
    digits = 2 if pair.task is None else 3
    values = ["undefined" if math.isnan(one.value) else f"{one.value:.{digits}f}" for one in (pair.first, pair.second)]
    difference = spelled(pair.difference, signed=True, digits=digits)
    return [*values, difference, spelled_p(pair.p_value), f"{pair.num_items:,}", f"{pair.num_differing:,}"]


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
        for pairs in pairs_by_heading(comparison):
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
