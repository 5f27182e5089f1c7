"""`vlinstruct doctor`: what is wrong here, and how to fix it."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlinstruct.cli.command import MODEL, takes
from vlinstruct.cli.options import BackboneOption, CommonOptions, DeviceOption, Dtype
from vlinstruct.cli.terminal import Talk, show_record, show_report

if TYPE_CHECKING:
    from vlinstruct.doctor.diagnosis import Diagnosis
    from vlinstruct.doctor.finding import Finding

_LEVEL_WIDTH, _CHECK_WIDTH = 9, 17
_MIN_ROOM = 24  # columns; in a narrower terminal a line is left whole


@takes(CommonOptions)
def doctor(
    backbone: BackboneOption = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            help="Trained alignment layers to try, too: a folder, a hub id or mini-ema.", rich_help_panel=MODEL
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
    levels = Counter(finding.level for finding in diagnosis.findings)
    yield f"\nok: {levels['ok']}, notices: {levels['notice']}, problems: {levels['problem']}"


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    # Findings that say the same kind of thing share a line: the libraries that are fine, one behind the other.
    for (level, check, fix), group in groupby(findings, lambda finding: (finding.level, finding.check, finding.fix)):
        start = f"  {level:{_LEVEL_WIDTH}}{check:{_CHECK_WIDTH}} "
        yield _wrapped(start, "; ".join(finding.found for finding in group))
        if fix is not None:
            yield _wrapped(" " * len(start), f"fix: {fix}")


def _wrapped(start: str, text: str) -> str:
    """Wraps for a terminal; in a pipe a line stays a line."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf
    room = width - len(start)
    if room < _MIN_ROOM or len(text) <= room:
        return start + text
    lines = textwrap.wrap(text, int(room), break_long_words=False, break_on_hyphens=False)
    return start + ("\n" + " " * len(start)).join(lines)
