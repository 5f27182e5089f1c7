"""`vlinstruct evaluate --compare A B`: which of two runs answers better, item by item."""

from __future__ import annotations

from pathlib import Path

from vlinstruct.cli.evaluate_output import require_place, show_comparison
from vlinstruct.cli.terminal import Talk
from vlinstruct.errors import UsageError
from vlinstruct.evaluation.report.comparison import compare_evaluations
from vlinstruct.evaluation.report.comparison_page import as_html
from vlinstruct.evaluation.report.comparison_text import as_markdown
from vlinstruct.files import written_atomically


def run_comparison(
    first: Path, second: Path, *, seed: int, output: Path | None, overwrite: bool, as_json: bool, talk: Talk
) -> None:
    """Compares two runs, prints what came of it, and writes it as a page or as Markdown where that is asked for.

    Args:
        first: the output of the run that the other one is compared with.
        second: the other one's.
        seed: of the resamples.
        output: a file that ends with .html or .md.
        overwrite: replace it whatever it is.
        as_json: print records.
        talk: says notices.

    Raises:
        UsageError: the runs cannot be compared, or the file's name says no format.
        InputError: the file is there and is no page of ours.
    """
    if output is not None:
        if output.suffix.lower() not in (".html", ".md"):
            raise UsageError.at("cannot write --output", output, "it ends with neither .html nor .md", "Name such a file")
        require_place(output, overwrite=overwrite)
    with talk.listening():
        comparisons = compare_evaluations(first, second, seed=seed, notify=talk.notice)
    if output is not None:
        is_page = output.suffix.lower() == ".html"
        content = as_html(comparisons) if is_page else "\n".join(as_markdown(one) for one in comparisons)
        with written_atomically(output) as path:
            path.write_text(content, encoding="utf-8")
        talk.done(f"comparison: {output}")
    for comparison in comparisons:
        show_comparison(comparison, as_json)
