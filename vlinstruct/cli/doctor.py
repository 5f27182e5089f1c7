"""`vlinstruct doctor`: what is wrong here, and how to fix it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlinstruct.cli.command import MODEL, takes
from vlinstruct.cli.options import CommonOptions, DeviceOption, Dtype, LocalBackboneOption
from vlinstruct.cli.tables import Grid, Line, Style, draw
from vlinstruct.cli.terminal import Talk, show_record, show_report

if TYPE_CHECKING:
    from vlinstruct.doctor.diagnosis import Diagnosis
    from vlinstruct.doctor.finding import Finding, Level

_LEVEL_WIDTH, _CHECK_WIDTH = 9, 17


@takes(CommonOptions)
def doctor(
    backbone: LocalBackboneOption = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            help="Trained alignment layers to try, too: a folder, a hub id, or one that ships (mini-ema).",
            rich_help_panel=MODEL,
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: Annotated[
        Dtype,
        typer.Option(help="What the model computes in; auto: float32 on a CPU, else bfloat16.", rich_help_panel=MODEL),
    ] = "auto",
    deep: Annotated[
        bool, typer.Option("--deep", help="Compare what the real weights write with what transformers has published.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(help="The picture of the first published output; fetched if it is not given.")
    ] = None,
    *,
    common: CommonOptions,
) -> None:
    """Find what is wrong here, and say how to fix it.

    Examines this installation and a backbone; downloads and changes nothing.

    \b
    vlinstruct doctor --backbone mini
    """
    from vlinstruct.doctor.diagnosis import diagnose

    with Talk(quiet=common.quiet).listening():
        diagnosis = diagnose(
            backbone,
            adapter=adapter,
            device=device,
            dtype=dtype,
            offline=common.offline,
            deep=deep,
            picture=picture,
        )
    if common.as_json:
        show_record(_record(diagnosis))
    elif sys.stdout.isatty():
        draw(
            _grid("this environment", diagnosis.environment),
            _grid(f"backbone {diagnosis.settings.backbone}", diagnosis.backbone),
            _counts(diagnosis),
        )
    else:
        show_report("\n".join(_report(diagnosis)))
    error = diagnosis.error()
    if error is not None:
        raise error


def _record(diagnosis: Diagnosis) -> dict[str, object]:
    error = diagnosis.error()
    status = {"status": "ok"} if error is None else {"status": "error", "code": error.code, "message": error.message}
    findings = [asdict(finding) for finding in diagnosis.findings]
    return {"schema": "vlinstruct.doctor/1", "id": diagnosis.settings.backbone, **status, "findings": findings}


def _report(diagnosis: Diagnosis) -> Iterator[str]:
    yield "this environment"
    yield from _lines(diagnosis.environment)
    yield f"\nbackbone {diagnosis.settings.backbone}"
    yield from _lines(diagnosis.backbone)
    yield f"\n{_counts(diagnosis)}"


def _counts(diagnosis: Diagnosis) -> str:
    levels = Counter(finding.level for finding in diagnosis.findings)
    return f"ok: {levels['ok']}, notices: {levels['notice']}, problems: {levels['problem']}"


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    for level, check, found, fix in _joined(findings):
        start = f"  {level:{_LEVEL_WIDTH}}{check:{_CHECK_WIDTH}} "
        yield start + found
        if fix is not None:
            yield f"{' ' * len(start)}fix: {fix}"


def _joined(findings: Sequence[Finding]) -> Iterator[tuple[Level, str, str, str | None]]:
    """Joins findings that say the same kind of thing: the libraries that are fine, one behind the other."""
    for (level, check, fix), group in groupby(findings, lambda finding: (finding.level, finding.check, finding.fix)):
        yield level, check, "; ".join(finding.found for finding in group), fix


def _grid(title: str, findings: Sequence[Finding]) -> Grid:
    styles: dict[Level, Style] = {"ok": "dim", "notice": "", "problem": "red"}
    lines = []
    for level, check, found, fix in _joined(findings):
        lines.append(Line(cells=(level, check, found), style=styles[level]))
        if fix is not None:
            lines.append(Line(cells=("", "fix", fix), style="bold"))
    return Grid(title=title, heads=("level", "check", "found"), lines=lines)
