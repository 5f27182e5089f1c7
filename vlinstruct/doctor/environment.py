"""The checks of this machine and its installation, in their order. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vlinstruct.doctor import cache, devices, packages, variables
from vlinstruct.doctor.finding import Finding, run
from vlinstruct.doctor.wanted import Wanted

CHECKS: Sequence[Callable[[Wanted], Iterator[Finding]]] = (
    packages.python,
    packages.packages,
    variables.variables,
    devices.processor,
    devices.gpu,
    devices.device,
    cache.disk,
    cache.cache,
    cache.cached_backbones,
    cache.hub,
)
_FIX = "Install vlinstruct again with what it needs; if it stays, report it"


def examine_environment(wanted: Wanted) -> list[Finding]:
    """Runs all of them."""
    return [finding for check in CHECKS for finding in run(check, wanted, fix=_FIX)]
