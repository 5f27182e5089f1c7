"""What a check is given, and what it says: a level, what was found, how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from vlinstruct.errors import VlinstructError, printable

T = TypeVar("T")
Level = Literal["ok", "notice", "problem"]


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """What is examined: the options of other commands that decide what they load.

    Args:
        backbone: a name, a folder or a hub id.
        adapter: trained alignment layers for it; None for none.
        device: as `vlinstruct.load` takes it.
        dtype: as `vlinstruct.load` takes it.
        offline: whether no connection is opened.
        deep: whether the weights' published outputs are compared with what they write here.
        picture: the picture of the first of these; fetched from where it is published if None.
    """

    backbone: str
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    offline: bool = False
    deep: bool = False
    picture: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Args:
        check: what was looked at, one or two words.
        level: `notice` is worth knowing; a `problem` makes commands fail.
        found: what was found.
        fix: how to fix it; None exactly where the level is `ok`.
    """

    check: str
    level: Level
    found: str
    fix: str | None = None

    def __post_init__(self) -> None:
        # No complaint without a way out: whoever reads the report should not have to search for what to do.
        assert (self.level == "ok") == (self.fix is None)


def ok(check: str, found: str) -> Finding:
    """Returns a finding that something is as it should be."""
    return Finding(check=check, level="ok", found=printable(found))


def notice(check: str, found: str, fix: str) -> Finding:
    """Returns a finding that is worth knowing; commands work all the same."""
    return Finding(check=check, level="notice", found=printable(found), fix=printable(fix))


def problem(check: str, found: str, fix: str) -> Finding:
    """Returns a finding that makes commands fail."""
    return Finding(check=check, level="problem", found=printable(found), fix=printable(fix))


def refusal(check: str, error: VlinstructError, fix: str) -> Finding:
    """Turns an error into a problem whose fix is the error's advice, where it has one.

    Args:
        check: what was looked at.
        error: what it met.
        fix: what to do where the error has no advice.

    >>> finding = refusal("config", VlinstructError("a.json is damaged", advice="Download it again."), "-")
    >>> finding.found, finding.fix
    ('a.json is damaged', 'Download it again')
    """
    return problem(check, error.problem.removesuffix("."), error.advice.removesuffix(".") or fix)


def run_check(check: Callable[[T], Iterator[Finding]], subject: T, *, fix: str) -> list[Finding]:
    """Runs one check to its end; an error in it becomes a problem, so that the other checks still run.

    Args:
        check: a generator; its name is what a problem is reported under.
        subject: its argument, the settings or a model's folder.
        fix: what to do about an error that does not say it itself.
    """
    findings: list[Finding] = []
    name = check.__name__.replace("_", " ")
    try:
        findings.extend(check(subject))
    except VlinstructError as error:
        findings.append(refusal(name, error, fix))
    except Exception as error:  # a library may be broken and a folder hold anything: that is what a doctor is for
        findings.append(problem(name, f"this check failed ({type(error).__name__})", fix))
    return findings
