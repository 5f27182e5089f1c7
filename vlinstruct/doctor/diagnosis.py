"""All findings together, and what a command ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlinstruct.doctor.environment import examine_environment
from vlinstruct.doctor.finding import Finding, problem
from vlinstruct.doctor.wanted import Wanted
from vlinstruct.errors import CheckpointError, ResourceError, VlinstructError

_ADVICE = "The report says how to fix each"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found.

    Args:
        wanted: what was examined.
        environment: of this machine and its installation.
        backbone: of the backbone.
    """

    wanted: Wanted
    environment: Sequence[Finding]
    backbone: Sequence[Finding]

    @property
    def findings(self) -> list[Finding]:
        """All of them."""
        return [*self.environment, *self.backbone]

    def error(self) -> VlinstructError | None:
        """Returns what a command ends with, None without a problem; the environment comes first."""
        here, there = _problems(self.environment), _problems(self.backbone)
        if here:
            return ResourceError.at("problems found", "this environment", here, _ADVICE, code="environment")
        if there:
            return CheckpointError.at("problems found", self.wanted.backbone, there, _ADVICE)
        return None


def _problems(findings: Sequence[Finding]) -> str:
    checks = list(dict.fromkeys(finding.check for finding in findings if finding.level == "problem"))
    return ", ".join(checks[:4]) + (", ..." if len(checks) > 4 else "")


def diagnose(wanted: Wanted) -> Diagnosis:
    """Runs every check.

    Args:
        wanted: what is meant to run.
    """
    environment = examine_environment(wanted)
    return Diagnosis(wanted=wanted, environment=environment, backbone=_backbone(wanted))


def _backbone(wanted: Wanted) -> list[Finding]:
    try:
        from vlinstruct.doctor.backbone import examine_backbone
    except ImportError as error:
        found = f"not examined: {error.name or 'a library'} cannot be imported"
        return [problem("backbone", found, "Fix what the environment's report says first")]
    return examine_backbone(wanted)
