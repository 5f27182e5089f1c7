"""Every value of a table as Markdown, to be put into a paper's draft, an issue or a notebook: `results.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlinstruct.errors import printable
from vlinstruct.evaluation.report.table import Cell, Table
from vlinstruct.evaluation.report.text import (
    described,
    facts_in_words,
    findings,
    metric_in_words,
    spelled,
    spelled_average,
    spelled_time,
    unit_of,
    words_in_words,
)
from vlinstruct.evaluation.report.verdict import verdicts


def as_markdown(table: Table, facts: Mapping[str, Any]) -> str:
    """Returns a whole report.

    Args:
        table: the scores.
        facts: what they were measured on and with.
    """
    lines = ["# Does instruction optimization help?", ""]
    lines += [f"- {markdown_text(str(verdict))}" for verdict in verdicts(table)]
    lines += ["", *(f"- {markdown_text(name)}: {markdown_text(value)}" for name, value in facts_in_words(facts))]
    lines += ["", "## Averages", "", unit_of(table), ""]
    lines += markdown_table(
        ["model", "words", "way", "average", "ms per item"],
        [
            [cell.model, cell.words, cell.column, spelled_average(table, cell), spelled_time(table.seconds[cell])]
            for cell in table.cells
        ],
        num_texts=3,
    )
    lines += ["", "## Differences", "", "In points, with 95 % intervals; of shares 1 is all.", ""]
    rows = [[name, spelled(value, signed=True)] for name, value in findings(table).items()]
    lines += markdown_table(["what", "difference"], rows, num_texts=1)
    lines += [
        "",
        "## Tasks",
        "",
        "Each task's own metric, 1 for all right (CIDEr: 10 at most), with 95 % intervals.",
        "",
    ]
    lines += markdown_table(
        ["task", "metric", "items", "model", "way", *(f"{words} words" for words in table.words)],
        [
            [
                *(task.name, metric_in_words(task.metric), described(table, task, unit=""), model, column),
                *(spelled(table.task_score(Cell(model, words, column), task.name), digits=3) for words in table.words),
            ]
            for task in table.tasks
            for model in table.models
            for column in table.columns
        ],
        num_texts=5,
    )
    lines += ["", "## Words", ""]
    lines += [f"- {markdown_text(name)}: {markdown_text(meaning)}" for name, meaning in words_in_words(table)]
    return "\n".join([*lines, ""])


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, num_texts: int) -> list[str]:
    """Returns the lines of a table.

    Args:
        head: over its columns.
        rows: their texts, whatever they hold.
        num_texts: how many of the first columns are texts; the others are numbers.

    >>> markdown_table(["a", "b"], [["x|y", "1"]], num_texts=1)
    ['| a | b |', '|---|---:|', '| x\\\\|y | 1 |']
    """
    rule = ["---" if place < num_texts else "---:" for place in range(len(head))]
    lines = ["| " + " | ".join(map(markdown_text, row)) + " |" for row in (head, *rows)]
    return [lines[0], f"|{'|'.join(rule)}|", *lines[1:]]


def markdown_text(text: str) -> str:
    """Returns a text that ends no cell and no line, and is no markup."""
    plain = printable(text)
    for mark in "\\|`*_<>":
        plain = plain.replace(mark, f"\\{mark}")
    return plain.replace("](", "]\\(")  # brackets alone, as around an interval, are no link
