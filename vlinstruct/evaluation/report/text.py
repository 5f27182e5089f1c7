"""A table for people and for programs: every cell with its interval and its cost, and what follows from them.

The first block is the paper's table 2 in points relative to vanilla; the others say what follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlinstruct.errors import counted
from vlinstruct.evaluation.benchmark import Metric, Task, Words
from vlinstruct.evaluation.report.columns import MEANINGS
from vlinstruct.evaluation.report.table import Cell, Table
from vlinstruct.evaluation.report.verdict import verdict, verdicts
from vlinstruct.metrics.bootstrap import Interval

_NAMES = {
    "backbone": "model",
    "split": "part of mini's world",
    "seed": "seed of items and resamples",
    "items_per_task": "items of each task",
    "items": "items",
    "prompts": "prompts",
    "image_size": "side of a picture as the model reads it, in pixels",
    "think": "thinks before it answers",
    "ocr_tokens": "OCR tokens",
    "items_without_ocr_tokens": "items that have no OCR token",
    "ocr_pictures": "pictures whose text was read here",
    "ocr_library": "read by",
    "vqa_normalizer": "VQA answers are equal by the rules of",
    "caption_tokenizer": "captions are tokenized by",
    "least_certainty": "least certainty of a rewriting's token",
    "max_cross_nll": "largest mean nats of the cross check",
    "sure_above": "words are left alone above a certainty of",
}
_VALUES = {
    ("vqa_normalizer", "official"): "VQA v2.0's code",
    ("vqa_normalizer", "lavis"): "LAVIS",
    ("vqa_normalizer", "evalai"): "lmms-eval (EvalAI's)",
    ("caption_tokenizer", "built-in"): "rules of our own",
    ("caption_tokenizer", "stanford-corenlp-3.4.1"): "Stanford CoreNLP 3.4.1",
    ("think", "True"): "yes",
}
_METRICS: Mapping[Metric, str] = {
    "cider": "CIDEr",
    "accuracy": "exact match",
    "ranked_accuracy": "accuracy of the likeliest option",
    "vqa_accuracy": "VQA accuracy",
    "mrr": "mean reciprocal rank",
    "roc_auc": "area under the ROC curve",
}
_WORDS = {
    "canonical": "as the paper asks",
    "paraphrased": "in other words of the same meaning",
    "poor": "as people type in a hurry",
}
_LEAST_LOSS = 3.0  # points; below it "share recovered" would divide by next to nothing


@dataclass(frozen=True, kw_only=True)
class Block:
    """Lines of equal columns under a title.

    Args:
        title: what is told.
        rows: as many texts each.
        heads: what stands above the columns; empty for none.
        num_texts: columns that are texts; those behind them are figures, set to the right.
    """

    title: str
    rows: Sequence[Sequence[str]]
    heads: Sequence[str] = ()
    num_texts: int = 1


def as_text(blocks: Iterable[Block | str]) -> str:
    """Returns blocks as plain lines, an empty one between any two."""
    return "\n\n".join(block if isinstance(block, str) else "\n".join(_lines(block)) for block in blocks)


def _lines(block: Block) -> Iterator[str]:
    yield block.title
    rows = [block.heads, *block.rows] if block.heads else block.rows
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if place < block.num_texts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()


def table_blocks(table: Table) -> Iterator[Block | str]:
    """Yields what people read of a table: verdicts, averages, what follows from them, every task's own metric."""
    yield "\n".join(str(verdict(table, model, table.words[-1])) for model in table.models)
    for words in table.words:
        cells = [Cell(model, words, column) for model in table.models for column in table.columns]
        yield Block(
            title=f"{words} words: {unit_of(table)}",
            heads=("model", "chosen by", "average", "ms an item"),
            rows=[
                (cell.model, cell.column, spelled_average(table, cell), spelled_time(table.seconds[cell]))
                for cell in cells
            ],
            num_texts=2,
        )
    yield Block(
        title=f"points, with 95 % intervals over {table.num_items:,} resampled items (shares: 1 is all)",
        rows=[(name, spelled(value, signed=True)) for name, value in findings(table).items()],
    )
    yield "each task's own metric, with 95 % intervals (of shares Wilson's)"
    yield from (_task_block(table, task) for task in table.tasks)
    yield Block(title="words", rows=[*words_in_words(table)], num_texts=2)


def as_record(table: Table, facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the table as one JSON object.

    Args:
        table: the scores.
        facts: what they were measured on and with.
    """
    # Every cell, where the terminal shows a choice: whoever makes figures of their own should not have to run it again.
    return {
        "schema": "vlinstruct.evaluation_table/1",
        "id": facts["id"],
        "status": "ok",
        **facts,
        "cells": [
            {
                "model": cell.model,
                "words": cell.words,
                "column": cell.column,
                "average": _pair(table.average(cell)),
                "seconds_per_item": table.seconds[cell],
                "tasks": {task.name: _task_record(table, cell, task) for task in table.tasks},
            }
            for cell in table.cells
        ],
        "metrics": {task.name: task.metric for task in table.tasks},
        "items": {name: size.num_items for name, size in table.sizes.items()},
        "skipped": {name: size.num_skipped for name, size in table.sizes.items()},
        "findings": {name: _pair(value) for name, value in findings(table).items()},
        "verdicts": [
            {
                "model": one.model,
                "words": one.words,
                "verdict": one.kind,
                "difference": _pair(one.difference),
                "p_value": one.p_value,
                "n": one.num_items,
                "sentence": str(one),
            }
            for one in verdicts(table)
        ],
    }


def findings(table: Table) -> dict[str, Interval]:
    """Returns what the table is made for: differences of averages in points, with intervals."""
    values: dict[str, Interval] = {}
    for model in table.models:
        canonical = Cell(model, "canonical", "plain")
        if "poor" in table.words:  # what they cost the model, and what is won back
            plain, safe = Cell(model, "poor", "plain"), Cell(model, "poor", "AIO safe")
            loss = table.difference(plain, canonical)
            values[f"{model}: poor words against canonical ones"] = loss
            values[f"{model}: AIO (safe) on poor words"] = table.difference(safe, plain)
            if loss.value <= -_LEAST_LOSS:
                share = table.recovered(model, "AIO safe")
                values[f"{model}: share of the loss that AIO (safe) wins back"] = share
        # The harm that it could do where nothing needed to be improved.
        safe = Cell(model, "canonical", "AIO safe")
        values[f"{model}: AIO (safe) on canonical words"] = table.difference(safe, canonical)
    for model in table.models[1:]:
        for words in table.words:
            values |= _against_first(table, model, words)
    return values


def _against_first(table: Table, model: str, words: Words) -> dict[str, Interval]:
    """Returns what a model gains over the first one, and whether its training and AIO strengthen each other."""
    base = table.models[0]
    first, plain, safe = Cell(base, words, "plain"), Cell(model, words, "plain"), Cell(model, words, "AIO safe")
    return {
        f"{model}, plain against {base}, {words} words": table.difference(plain, first),
        f"{model} + AIO (safe) against {base}, {words} words": table.difference(safe, first),
        f"{model} x AIO (safe), {words} words": table.interaction(model, words, "AIO safe"),
    }


def _task_block(table: Table, task: Task) -> Block:
    """Returns a task's own metric, of the cells that matter most; --json has all of them."""
    columns = [column for column in table.columns if column in ("plain", "plain, greedy", "AIO safe")]
    ways = [(words, column) for words in table.words if words != "paraphrased" for column in columns]
    rows = []
    for cell in (Cell(model, words, column) for model in table.models for words, column in ways):
        rows.append(
            (f"{cell.model}, {cell.words}, {cell.column}", spelled(table.task_score(cell, task.name), digits=3))
        )
        if (lavis := table.lavis_score(cell, task.name)) is not None:
            rows.append(("  with LAVIS' normalisation", spelled(lavis, digits=3)))
    return Block(title=f"{task.name} ({task.metric}): {described(table, task)}", rows=rows)


def spelled_time(seconds: float) -> str:
    """Returns what an item took, in milliseconds.

    >>> spelled_time(0.01234), spelled_time(float("nan"))
    ('12.3', '-')
    """
    return "-" if math.isnan(seconds) else f"{1e3 * seconds:.1f}"


def unit_of(table: Table) -> str:
    """Says what an average is over, and relative to what: a task without a score has no part in it."""
    count, total = len(table.measured_tasks), len(table.tasks)
    tasks = counted(count, "task")
    of = "" if count == total else f" of {total}"
    base = f"{table.base.model} on canonical words = 100"
    return f"average over {tasks}{of} and {table.num_items:,} items, {base}"


def spelled_average(table: Table, cell: Cell) -> str:
    """Returns an average with its interval; that of the cell to which all are relative has none."""
    average = table.average(cell)
    is_reference = table.is_base(cell) and math.isfinite(average.value)
    return f"{average.value:.2f} (the reference)" if is_reference else spelled(average)


def described(table: Table, task: Task, *, unit: str = " items") -> str:
    """Says of how many items a task's scores are, and what of them is missing."""
    size = table.sizes[task.name]
    parts = [f"{size.num_items:,}{unit}"]
    if size.num_skipped:
        parts.append(f"{size.num_skipped:,} left out, which cannot be read")
    if size.smaller_class == 0 and size.num_items:
        parts.append("all of one class, of which there is no area")
    return ", ".join(parts)


def spelled(interval: Interval, *, signed: bool = False, digits: int = 2) -> str:
    """Returns a value with its interval; what does not exist is undefined.

    >>> spelled(Interval(value=float("nan"), low=float("nan"), high=float("nan")))
    'undefined'
    >>> spelled(Interval(value=1.0, low=-0.5, high=2.0), signed=True)
    '+1.00 [-0.50, +2.00]'
    """
    if math.isnan(interval.value):
        return "undefined"
    sign = "+" if signed else ""
    return f"{interval.value:{sign}.{digits}f} [{interval.low:{sign}.{digits}f}, {interval.high:{sign}.{digits}f}]"


def _task_record(table: Table, cell: Cell, task: Task) -> dict[str, Any]:
    """Returns a task's score, of how many items it is and how its interval was found."""
    size, method = table.sizes[task.name].num_items, table.interval_method(cell, task.name)
    record = {**_pair(table.task_score(cell, task.name)), "n": size, "method": method}
    lavis = table.lavis_score(cell, task.name)
    return record if lavis is None else {**record, "lavis": _pair(lavis)}


def _pair(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def without_nan(value: Any) -> Any:
    """Returns a value with null for NaN and infinity, which JSON does not have: a score relative to none at all."""
    if isinstance(value, dict):
        return {name: without_nan(field) for name, field in value.items()}
    if isinstance(value, list):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def facts_in_words(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields every fact with its name."""
    for name, value in facts.items():
        if name == "id":
            continue
        if isinstance(value, Mapping):  # tasks have one each
            said = ", ".join(f"{task} {_number(of_task)}" for task, of_task in value.items())
        else:
            said = _VALUES.get((name, str(value)), _number(value))
        yield _NAMES.get(name, name.replace("_", " ")), said


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def metric_in_words(metric: Metric) -> str:
    """Returns a metric's name."""
    return _METRICS[metric]


def words_in_words(table: Table) -> Iterator[tuple[str, str]]:
    """Yields what a table calls its kinds of words, its ways to choose and its first model, each with its meaning."""
    for words in table.words:
        yield f"{words} words", _WORDS[words]
    for column in table.columns:
        yield column, MEANINGS[column]
    if "vanilla" in table.models:
        yield "vanilla", "the model without an adapter"
