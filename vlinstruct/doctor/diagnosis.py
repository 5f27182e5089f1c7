"""`diagnose`: every check of this machine and of a backbone, and the error that their problems amount to.

Imports no torch: a broken installation is what a diagnosis is for, so the backbone's checks, which need torch, are
imported behind those of the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlinstruct.backends.registry import default_backbone
from vlinstruct.doctor import cache, machine
from vlinstruct.doctor.finding import DoctorSettings, Finding, problem, run_check
from vlinstruct.errors import CheckpointError, ResourceError, VlinstructError
from vlinstruct.files import PathLike

MACHINE: Sequence[Callable[[DoctorSettings], Iterator[Finding]]] = (
    machine.python,
    machine.packages,
    machine.variables,
    machine.processor,
    machine.gpu,
    machine.device,
    cache.disk,
    cache.cache,
    cache.cached_backbones,
    cache.hub,
)
_FIX = "Install vlinstruct again with what it needs; if it stays, report it"
_ADVICE = "The report says how to fix each"
_MOST_NAMED = 4  # checks in an error's one line


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The findings.

    Args:
        settings: what was examined.
        environment: the findings about this machine and its installation.
        backbone: the findings about the backbone.
    """

    settings: DoctorSettings
    environment: Sequence[Finding]
    backbone: Sequence[Finding]

    @property
    def findings(self) -> list[Finding]:
        """The environment's, then the backbone's."""
        return [*self.environment, *self.backbone]

    def error(self) -> VlinstructError | None:
        """Returns the error that a command ends with, None without a problem.

        A problem of the environment comes first: it may be the cause of the backbone's.
        """
        machine_checks, backbone_checks = _problems(self.environment), _problems(self.backbone)
        if machine_checks:
            return ResourceError.at("problems found", "this environment", machine_checks, _ADVICE, code="environment")
        if backbone_checks:
            return CheckpointError.at("problems found", self.settings.backbone, backbone_checks, _ADVICE)
        return None


def _problems(findings: Sequence[Finding]) -> str:
    checks = list(dict.fromkeys(finding.check for finding in findings if finding.level == "problem"))
    return ", ".join(checks[:_MOST_NAMED]) + (", ..." if len(checks) > _MOST_NAMED else "")


def diagnose(
    backbone: str | None = None,
    *,
    adapter: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    deep: bool = False,
    picture: PathLike | None = None,
) -> Diagnosis:
    """Runs every check; no model is downloaded and nothing is written.

    Args:
        backbone: a name, a folder or a hub id; `$VLINSTRUCT_BACKBONE` or mini if None.
        adapter: trained alignment layers to try with it: a folder, a hub id or a shipped name; None for none.
        device: as `vlinstruct.load` takes it.
        dtype: as `vlinstruct.load` takes it.
        offline: open no connection, not even to see whether the hub answers.
        deep: compare what the weights write with what transformers has published of them.
        picture: the picture of the first published output; fetched if None.

    Returns:
        The findings; a problem is one of them and raises nothing.
    """
    settings = DoctorSettings(
        backbone=default_backbone() if backbone is None else backbone,
        adapter=adapter,
        device=device,
        dtype=dtype,
        offline=offline,
        deep=deep,
        picture=None if picture is None else Path(picture),
    )
    # The machine first: where a library is broken, these findings are all that there is, and they say why.
    environment = examine_machine(settings)
    try:
        from vlinstruct.doctor.backbone import examine_backbone
    except ImportError as error:
        message = f"not examined: {error.name or 'a library'} cannot be imported"
        findings = [problem("backbone", message, "Fix what the environment's report says first")]
    else:
        findings = examine_backbone(settings)
    return Diagnosis(settings=settings, environment=environment, backbone=findings)


def examine_machine(settings: DoctorSettings) -> list[Finding]:
    """Runs the checks of this machine and its installation, in their order."""
    return [finding for check in MACHINE for finding in run_check(check, settings, fix=_FIX)]
