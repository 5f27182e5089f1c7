"""`vlinstruct evaluate --compare A B`: which of two runs answers better, item by item."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlinstruct.cli.evaluate_output import show_comparison
from vlinstruct.cli.terminal import Talk
from vlinstruct.errors import InputError, UsageError
from vlinstruct.evaluation.report.comparison import compare_evaluations
from vlinstruct.evaluation.report.comparison_page import as_html
from vlinstruct.evaluation.report.comparison_text import as_markdown
from vlinstruct.files import written_atomically
from vlinstruct.records.output import check_place
from vlinstruct.report.page import check_report


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
