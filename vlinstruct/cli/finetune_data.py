"""What `vlinstruct finetune` is to learn from: its options, and `--check-data`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from vlinstruct.cli.command import INPUT
from vlinstruct.cli.options import ColumnsOption
from vlinstruct.cli.terminal import Talk, show_record, show_report
from vlinstruct.errors import DataError, UsageError, counted, shortened

if TYPE_CHECKING:
    from vlinstruct.media.images import ImageLimits
    from vlinstruct.training.data.checking import DataProblem, DataReport
    from vlinstruct.training.data.reading import DataOptions
    from vlinstruct.training.experiment import DataSource

_LISTED_EACH = 5  # equal problems; of more the first and the count are told


@dataclass(frozen=True, kw_only=True)
class TrainingDataOptions:
    """The data, and how they are read."""

    HEADING: ClassVar = INPUT

    data: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines, LLaVA's JSON, chat messages, a CSV, parquet or Arrow table, or a folder of pictures with "
            "metadata.jsonl or .csv; an example set is drawn if not given.",
        ),
    ] = None
    image_root: Annotated[
        Path | None, typer.Option(help="The folder that picture paths start from; the data's own if not given.")
    ] = None
    eval_data: Annotated[Path | None, typer.Option(help="What is validated on, in any of these formats.")] = None
    eval_image_root: Annotated[
        Path | None,
        typer.Option(help="The folder of --eval-data's pictures; --image-root, or its own, if not given."),
    ] = None
    columns: ColumnsOption = None
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Read pictures outside the folder, also through links.")
    ] = False
    skip_text_only: Annotated[bool, typer.Option("--skip-text-only", help="Leave out records without a picture.")] = (
        False
    )
    check_data: Annotated[bool, typer.Option("--check-data", help="List what is wrong with the data, and stop.")] = (
        False
    )
    decode: Annotated[
        bool, typer.Option("--decode", help="With --check-data: read every picture whole, not its header.")
    ] = False

    def __post_init__(self) -> None:
        if self.decode and not self.check_data:
            raise UsageError("--decode is for --check-data: a training reads every picture anyway.")

    def reading(self) -> DataOptions:
        """Returns how the records are read."""
        from vlinstruct.records.columns import columns_of
        from vlinstruct.training.data.reading import RECORD_FIELDS, DataOptions

        return DataOptions(
            columns=columns_of(self.columns, RECORD_FIELDS),
            allow_outside=self.allow_outside,
            skip_text_only=self.skip_text_only,
        )

    def arguments(self) -> dict[str, Any]:
        """Returns what the verb takes of these."""
        names = ("data", "image_root", "eval_data", "eval_image_root")
        return {**{name: getattr(self, name) for name in names}, "data_options": self.reading()}

    def check(self, talk: Talk, limits: ImageLimits, *, config: Path | None, as_json: bool) -> None:
        """Lists every problem of the data and of those that are validated on; loads no model.

        Args:
            talk: says what is read otherwise than it stands there.
            limits: how large a picture may be, and how whole it must be.
            config: a file that says what was not typed.
            as_json: print a record for each problem, in place of a line for all that are equal.

        Raises:
            DataError: there is one.
        """
        from vlinstruct.training.experiment import DataSource, read_experiment

        given = {} if config is None else read_experiment(config)
        names = ("image_root", "eval_data", "eval_image_root", "columns", "allow_outside", "skip_text_only")
        options = replace(self, **{name: given[name] for name in names if name in given and not getattr(self, name)})
        sources = given.get("data") if self.data is None else (DataSource(path=str(self.data)),)
        if sources is None:
            raise UsageError("--check-data needs --data, a file or a folder.")
        options._check(sources, talk, limits, as_json=as_json)

    def _check(self, sources: Sequence[DataSource], talk: Talk, limits: ImageLimits, *, as_json: bool) -> None:
        from vlinstruct.training.data.checking import check_data

        roots = [(source.path, source.image_root or self.image_root, "--image-root") for source in sources]
        if self.eval_data is not None:
            roots.append((str(self.eval_data), self.eval_image_root or self.image_root, "--eval-image-root"))
        bad = []
        for path, root, root_option in roots:
            report = check_data(path, image_root=root, options=self.reading(), decode=self.decode, limits=limits)
            for notice in report.tally.notices(report.file, is_text_only_left_out=self.skip_text_only):
                talk.notice(notice)
            if as_json:
                for record in _records(report):
                    show_record(record)
            elif report.problems:
                show_report("\n".join(_problem_lines(report, root_option)))
            else:
                show_report(f"nothing is wrong with {path}: {self._described(report)}")
            if report.problems:
                bad.append(f"{counted(len(report.problems), 'problem')} in {path}")
        if bad:
            raise DataError(" and ".join(bad), advice="They are listed on stdout.")

    def _described(self, report: DataReport) -> str:
        tally = report.tally
        pictures = counted(report.num_pictures, "picture")
        depth = "read whole" if self.decode else "their headers read (--decode reads pictures whole)"
        num_records = tally.num_records - (tally.num_text_only if self.skip_text_only else 0)
        return f"{counted(num_records, 'record')} ({tally.described_forms()}), {pictures}, {depth}"


def _records(report: DataReport) -> Iterator[dict[str, Any]]:
    """Yields the file's record, then one for each problem."""
    counts = {"records": report.tally.num_records, "pictures": report.num_pictures}
    status = "error" if report.problems else "ok"
    head = {"schema": "vlinstruct.data/1", "id": report.file, "status": status, **counts}
    yield {**head, "text_only": report.tally.num_text_only, "forms": dict(report.tally.forms)}
    for problem in report.problems:
        place = {"id": f"{report.file} {problem.record}", "status": "error"}
        yield {"schema": "vlinstruct.data_problem/1", **place, "code": problem.code, "message": problem.message}


def _problem_lines(report: DataReport, root_option: str) -> Iterator[str]:
    """Yields a line for each problem, and one for all that are equal where they are many."""
    order = {why: place for place, why in enumerate(dict.fromkeys(problem.why for problem in report.problems))}
    for _, group in groupby(sorted(report.problems, key=lambda problem: order[problem.why]), key=lambda p: p.why):
        problems = list(group)
        if len(problems) <= _LISTED_EACH:
            yield from (problem.message for problem in problems)
        else:
            yield _summary(problems, report, root_option)


def _summary(problems: list[DataProblem], report: DataReport, root_option: str) -> str:
    first = problems[0]
    num_records = report.tally.num_records
    are = f"all {num_records:,}" if len(problems) == num_records else f"{len(problems):,} of {num_records:,}"
    place = f", {shortened(first.place, 80)}" if first.place else ""
    advice = f"Name their folder with {root_option}" if first.code == "image_missing" else first.advice
    return f"{are} records: {first.why} (first: {first.record}{place}). {advice}".rstrip()
