"""What a check says: a level, what was found, how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from vlinstruct.errors import VlinstructError, printable

T = TypeVar("T")
Level = Literal["ok", "notice", "problem"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Args:
        check: what was looked at, one or two words.
        level: `notice` is worth knowing; a `problem` makes commands fail.
        found: what was found.
        fix: how to mend it; None exactly where it is ok.
    """

    check: str
    level: Level
    found: str
    fix: str | None = None

    def __post_init__(self) -> None:
        assert (self.level == "ok") == (self.fix is None)


def ok(check: str, found: str) -> Finding:
    """Says that something is as it should be."""
    return Finding(check=check, level="ok", found=printable(found))


def notice(check: str, found: str, fix: str) -> Finding:
    """Says what is worth knowing."""
    return Finding(check=check, level="notice", found=printable(found), fix=printable(fix))


def problem(check: str, found: str, fix: str) -> Finding:
    """Says what makes commands fail."""
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


def run(check: Callable[[T], Iterator[Finding]], examined: T, *, fix: str) -> list[Finding]:
    """Runs one check; what it meets is a problem, and the others go on.

    Args:
        check: named for what it looks at.
        examined: its argument.
        fix: what to do where what it meets does not say it.
    """
    findings: list[Finding] = []
    name = check.__name__.replace("_", " ")
    try:
        findings.extend(check(examined))
    except VlinstructError as error:
        findings.append(refusal(name, error, fix))
    except Exception as error:  # a library may be broken and a folder hold anything: that is what a doctor is for
        findings.append(problem(name, f"this check failed ({type(error).__name__})", fix))
    return findings
