"""`vlinstruct tune`: a better instruction for a task, by labelled items."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from vlinstruct.cli.command import ANSWER, INPUT, MODEL, OUTPUT, takes
from vlinstruct.cli.options import ColumnsOption, ModelOptions
from vlinstruct.cli.tables import Grid, Line, draw, facts
from vlinstruct.cli.terminal import Talk, show_record, show_report
from vlinstruct.cli.typed_text import typed_text, typed_texts
from vlinstruct.errors import BatchError, UsageError, counted, printable
from vlinstruct.tuning.settings import Metric

if TYPE_CHECKING:
    from vlinstruct.operations import Fields

_USAGE = 'vlinstruct tune "INSTRUCTION" --data FILE -o best.txt'


@dataclass(frozen=True, kw_only=True)
class LabelledOptions:
    """The items, with their right answers."""

    HEADING: ClassVar = INPUT

    data: Annotated[
        Path | None,
        typer.Option(
            help='The labelled items: {"image": ..., "answer": ..., "question": ...}, in the forms of ask --data.'
        ),
    ] = None
    columns: ColumnsOption = None
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch pictures that --data names by URL.")] = False
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Read pictures of --data that lie outside its folder.")
    ] = False


@takes(LabelledOptions, ModelOptions)
def tune(
    instruction: Annotated[
        str | None,
        typer.Argument(metavar="INSTRUCTION", help="Your words; with {question} where the items have questions."),
    ] = None,
    metric: Annotated[
        Metric, typer.Option(help="exact: the answer's words. vqa: ten people's answers. cider: captions.")
    ] = "exact",
    tries: Annotated[
        list[str] | None,
        typer.Option(
            "--try", metavar="TEXT", help="Another instruction to try, or @FILE with one a line; may be repeated."
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, metavar="CALLS", help="The most texts that the model may write.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the division of the items, and samples.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the best instruction here, for ask's @FILE; records go to OUTPUT.jsonl and are resumed.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the output instead of resuming it.", rich_help_panel=OUTPUT),
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.", rich_help_panel=ANSWER)] = 64,
    num_beams: Annotated[int, typer.Option(help="1 is greedy; the field's numbers use 5.", rich_help_panel=ANSWER)] = 1,
    batch_size: Annotated[
        int, typer.Option(min=1, max=1024, help="Items that go through the model together.", rich_help_panel=MODEL)
    ] = 16,
    *,
    labelled: LabelledOptions,
    options: ModelOptions,
) -> None:
    """Find a better instruction by a few labelled items.

    Other instructions are proposed and raced on one half of the items. The winner replaces your words only if it is
    better with certainty on the other half, which chose nothing; its score is from there. A few dozen items are enough
    for large differences.

    \b
    vlinstruct tune "describe the defect" --data labelled.jsonl -o best.txt
    """
    if instruction is None or labelled.data is None:
        raise UsageError("an instruction and labelled items are needed", advice=f"Type: {_USAGE}")
    if overwrite and output is None:
        raise UsageError("--overwrite needs --output FILE: there is nothing to replace.")
    from vlinstruct.cli.run import collect_garbage_from_here
    from vlinstruct.records.columns import columns_of
    from vlinstruct.records.labelled import LABELLED_FIELDS
    from vlinstruct.records.lines import ItemOptions
    from vlinstruct.settings import GenerationSettings, RunSettings
    from vlinstruct.tuning.settings import TuneSettings
    from vlinstruct.tuning.tune import tune as tune_instruction

    talk = Talk(quiet=options.quiet)
    with talk.listening():
        record = tune_instruction(
            typed_text(instruction),
            labelled.data,
            output=output,
            tuning=TuneSettings(
                metric=metric,
                tries=tuple(text for typed in tries or () for text in typed_texts(typed)),
                budget=budget,
                seed=seed,
                generation=GenerationSettings(max_new_tokens=max_new_tokens, num_beams=num_beams),
            ),
            settings=RunSettings(
                model=options.model_settings(),
                batch_size=batch_size,
                max_pixels=options.max_pixels,
                allow_truncated=options.allow_truncated,
                overwrite=overwrite,
            ),
            options=ItemOptions(allow_urls=labelled.allow_urls, allow_outside=labelled.allow_outside),
            columns=columns_of(labelled.columns, LABELLED_FIELDS),
            notify=talk.notice,
            on_progress=talk.progress,
            on_loaded=collect_garbage_from_here,
        )
    if options.as_json:
        show_record(record)
    elif sys.stdout.isatty():
        draw(*grids(record))
    else:
        show_report(render(record))
    if output is not None:
        talk.done(f"the instruction is in {output}, the answers are in {output}.jsonl")
    if failed := record.get("failed"):
        num_items = record["items"] + len(failed)
        of_all = f"{len(failed)} of {counted(num_items, 'item')}"
        raise BatchError(f"{of_all} cannot be used and do not count: {failed[0]['message']}")


def render(record: Fields) -> str:
    """Writes a result for people: a table of the instructions, then which is to be used and why."""
    rows = _by_score(record)
    lines = [f"{'score':>7}  {'95 % interval':16}{'items':>6}{'calls':>7}{'tokens':>9}  instruction"]
    lines += ["held out: these items chose nothing before"]
    lines += [_line(row, "held_out") for row in rows if "held_out" in row]
    lines += ["race: the winner's score is too high here"]
    lines += [_line(row, "race") for row in rows]
    lines += [f"{name:9}  {fact}" for name, fact in _facts(record)]
    return "\n".join(lines)


def grids(record: Fields) -> list[Grid | str]:
    """Returns a result as tables: the instructions, the best one bold, then which is to be used and why."""
    parts: list[Grid | str] = []
    titles = {
        "held_out": "held out: these items chose nothing before",
        "race": "race: the winner's score is too high here",
    }
    for part, title in titles.items():
        lines = [
            Line(
                cells=(
                    _shown(row[part]["score"]),
                    _between(row[part]),
                    str(row[part]["items"]),
                    *([str(row["calls"]), str(row["tokens"])] if part == "race" else []),
                    row["instruction"],
                    row["source"],
                ),
                style="bold" if row["instruction"] == record["instruction"] else "dim",
            )
            for row in _by_score(record)
            if part in row
        ]
        costs = ("calls", "tokens") if part == "race" else ()
        heads = ("score", "95 % interval", "items", *costs, "instruction", "from")
        if lines:
            parts.append(Grid(title=title, heads=heads, lines=lines, numbers=range(3 + len(costs))))
    return [*parts, facts(*_facts(record))]


def _by_score(record: Fields) -> list[Fields]:
    return sorted(record["candidates"], key=lambda row: -row["race"]["score"])


def _facts(record: Fields) -> Iterator[tuple[str, str]]:
    for look in record["looks"]:
        gain, low, high = (_shown(look[name]) for name in ("gain", "low", "high"))
        certain = f"p = {look['p_value']:.2g}, certain at {look['level']:.2g}"
        items = counted(look["items"], "item")
        yield "gain", f"{gain} [{low}, {high}] on {items}, {certain}: {printable(look['instruction'])}"
    yield "calls", f"{record['calls']} texts written, {record['tokens']} tokens"
    yield "chosen", record["reason"]
    yield "best", record["instruction"]


def _line(row: Fields, part: str) -> str:
    figures = row[part]
    costs = f"{row['calls']:7}{row['tokens']:9}" if part == "race" else " " * 16
    score, between = f"{_shown(figures['score']):>7}", _between(figures)
    return f"{score}  {between:16}{figures['items']:6}{costs}  {printable(row['instruction'])}  ({row['source']})"


def _between(figures: Fields) -> str:
    return f"[{_shown(figures['low'])}, {_shown(figures['high'])}]"


def _shown(value: float) -> str:
    """Writes a score as papers do: in percent, CIDEr times 100."""
    return f"{100 * value:.1f}"
