"""What `vlinstruct evaluate` prints beside its tables: what is listed, checked and compared, as lines or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlinstruct.cli.tables import Grid, Line, draw
from vlinstruct.cli.terminal import Talk, show_record, show_report
from vlinstruct.errors import DataError, InputError, UsageError

if TYPE_CHECKING:
    from vlinstruct.cli.evaluate_options import BenchmarkOptions
    from vlinstruct.evaluation.benchmark import Benchmark
    from vlinstruct.evaluation.report.comparison import Comparison
    from vlinstruct.evaluation.report.text import Block

_MINI_LINE = "mini, and its tasks mini/flickr30k to mini/hatefulmemes: drawn by this package, nothing to download"


def show_list(names: Sequence[str], as_json: bool) -> None:
    """Prints the official benchmarks that were named, or all of them.

    Args:
        names: of benchmarks; may be empty.
        as_json: as records.

    Raises:
        UsageError: one of the names is unknown.
    """
    from vlinstruct.evaluation.benchmarks import BENCHMARKS
    from vlinstruct.evaluation.report.text import Block
    from vlinstruct.evaluation.selection import official

    benchmarks = official(names) if names else list(BENCHMARKS.values())
    if as_json:
        for benchmark in benchmarks:
            show_json(_listing_record(benchmark))
        return
    blocks: list[Block | str] = []
    for benchmark in benchmarks:
        what = f"{benchmark.num_items:,} items, {benchmark.task.metric}, {_mode(benchmark)}, {benchmark.part}"
        rows = {
            "licence": benchmark.licence,
            "source": benchmark.source,
            "files": " or: ".join(", ".join(form) for form in benchmark.forms),
            "hub": benchmark.hub,
        }
        blocks.append(Block(title=f"{benchmark.task.name}: {what}", rows=[*rows.items()], num_texts=2))
    show_blocks([*blocks, _MINI_LINE])


def _listing_record(benchmark: Benchmark) -> dict[str, Any]:
    return {
        "schema": "vlinstruct.benchmark/1",
        "id": benchmark.task.name,
        "status": "ok",
        "part": benchmark.part,
        "items": benchmark.num_items,
        "metric": benchmark.task.metric,
        "mode": _mode(benchmark),
        "instruction": benchmark.instruction,
        "chat_instruction": benchmark.chat_instruction,
        "source": benchmark.source,
        "licence": benchmark.licence,
        "files": [dict(form) for form in benchmark.forms],
        "hub": benchmark.hub,
        "hub_columns": None if benchmark.copy is None else list(benchmark.copy.columns),
        "example": benchmark.example,
        "generation": None if benchmark.task.is_ranked else asdict(benchmark.generation),
        "generation_source": benchmark.generation_source,
    }


def _mode(benchmark: Benchmark) -> str:
    """Returns how answers come about."""
    return "rank" if benchmark.task.is_ranked else "generate"


def show_checked(names: Sequence[str], reading: BenchmarkOptions, as_json: bool) -> None:
    """Prints what is wrong with the files of benchmarks.

    Args:
        names: of official benchmarks.
        reading: the folder of theirs, and how it is looked at: with `--ocr` pictures may lack tokens.
        as_json: as records.

    Raises:
        DataError: something is wrong (after printing).
        UsageError: there is nothing to check.
    """
    from vlinstruct.evaluation.reading.files import check
    from vlinstruct.evaluation.selection import folders_of, official, require_names, without_ocr_tokens

    require_names(names, ocr=reading.ocr, ocr_tokens=not reading.no_ocr_tokens)
    benchmarks = official(names)  # mini's items are drawn: there is nothing of it to check
    if not benchmarks:
        raise UsageError("--check-data needs --data DIR and official benchmarks; mini's items are drawn, not read.")
    if reading.no_ocr_tokens:
        benchmarks = without_ocr_tokens(benchmarks)
    num_wrong = 0
    limits, folders = reading.image_limits(), folders_of(benchmarks, reading.data)
    for benchmark in benchmarks:
        folder = folders[benchmark.task.name]
        looked_for = benchmark.without_tokens() if reading.ocr else benchmark
        report = check(looked_for, folder, decode=reading.decode, limits=limits)
        num_wrong += bool(report.problems)
        if as_json:
            status = "error" if report.problems else "ok"
            head = {"schema": "vlinstruct.benchmark_data/1", "id": report.name, "status": status}
            show_json({**head, **asdict(report)})
        else:
            depth = "all read whole" if reading.decode else "some headers read (--decode reads pictures whole)"
            good = f"nothing is wrong: {report.num_items:,} items, {report.num_pictures:,} pictures, {depth}"
            show_report("\n".join(f"{report.name}: {line}" for line in report.problems or [good]))
    if num_wrong:
        raise DataError(
            f"{num_wrong} of {len(benchmarks)} benchmarks have problems in their data", advice="See stdout."
        )


def show_blocks(blocks: Iterable[Block | str]) -> None:
    """Prints what people read of a run: drawn on a terminal, as plain lines into a pipe."""
    from vlinstruct.evaluation.report.text import as_text

    if not sys.stdout.isatty():
        show_report(as_text(blocks))
        return
    parts: list[Grid | str] = []
    for block in blocks:
        if isinstance(block, str):
            parts += ["", *block.split("\n")] if parts and isinstance(parts[-1], str) else block.split("\n")
            continue
        lines = [Line(cells=tuple(row)) for row in block.rows]
        figures = range(block.num_texts, len(block.rows[0]))
        parts.append(Grid(title=block.title, heads=tuple(block.heads), lines=lines, numbers=figures))
    draw(*parts)


def show_comparison(comparison: Comparison, as_json: bool) -> None:
    """Prints how two runs compare."""
    from vlinstruct.evaluation.report.comparison_report import comparison_blocks

    if as_json:
        show_json(comparison.as_record())
    else:
        show_blocks(comparison_blocks(comparison))


def run_comparison(
    first: Path, second: Path, *, seed: int, outputs: Sequence[Path], overwrite: bool, as_json: bool, talk: Talk
) -> None:
    """Compares two runs, prints what came of it, and writes it as a page or as Markdown where that is asked for.

    Args:
        first: the output of the run that the other one is compared with.
        second: the other one's.
        seed: of the resamples.
        outputs: files that end with .html or .md.
        overwrite: replace a Markdown file that is there; a page of ours is replaced anyway.
        as_json: print records.
        talk: says notices.

    Raises:
        UsageError: the runs cannot be compared, or a file's name says no format.
        InputError: a file is there, or cannot be.
    """
    from vlinstruct.evaluation.report.comparison import compare_evaluations
    from vlinstruct.evaluation.report.comparison_report import as_html, as_markdown
    from vlinstruct.files import written_atomically
    from vlinstruct.records.output import check_place
    from vlinstruct.report.page import check_report

    for output in outputs:
        if output.suffix.lower() == ".html":
            check_report(output)
        elif output.suffix.lower() == ".md":
            check_place(str(output), ())
            if output.exists() and not overwrite:
                raise InputError.at("cannot write", output, "it is there", "Name another file, or add --overwrite")
        else:
            raise UsageError.at("cannot write", output, "it ends with neither .html nor .md", "Name such a file")
    with talk.listening():
        comparisons = compare_evaluations(first, second, seed=seed, notify=talk.notice)
    for output in outputs:
        is_html = output.suffix.lower() == ".html"
        content = as_html(comparisons) if is_html else "\n".join(as_markdown(one) for one in comparisons)
        with written_atomically(output.resolve()) as path:
            path.write_text(content, encoding="utf-8")
        talk.done(f"comparison written to {output}")
    for comparison in comparisons:
        show_comparison(comparison, as_json)


def show_json(record: dict[str, Any]) -> None:
    """Prints a record as a line, with null for what is no number."""
    from vlinstruct.evaluation.report.text import without_nan

    show_record(without_nan(record))
