"""Which libraries are here, against what the package's own metadata asks for. Imports none of them."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from vlinstruct.doctor.finding import Finding, notice, ok, problem
from vlinstruct.doctor.wanted import Wanted

# What is missing without each; pyproject.toml's extras bring them.
_OPTIONAL: Mapping[str, str] = {
    "bitsandbytes": "`--quantize` needs it",
    "torchao": "`--quantize 8bit` on a CPU needs it",
    "tensorboard": "`finetune --report-to tensorboard` needs it",
    "matplotlib": "plots need it",
    "pycocoevalcap": "`evaluate` has CIDEr's own tokenizer with it and Java, else one of ours",
}
_SECURITY = ("torch", "transformers", "pillow")  # whose floors are versions with security fixes
_DEVELOPMENT = "test"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A library that this package can use.

    Args:
        name: on the package index.
        specifier: the versions that it works with.
        extra: which of our extras brings it; None for what always comes along, or what no extra brings.
        is_optional: whether we work without it.
    """

    name: str
    specifier: SpecifierSet = field(default_factory=SpecifierSet)
    extra: str | None = None
    is_optional: bool = False

    @property
    def installation(self) -> str:
        """The command that installs it."""
        return f"pip install -U '{self.name}{self.specifier}'" if self.extra is None else self._with_extra

    @property
    def _with_extra(self) -> str:
        return f"pip install -U 'vlinstruct[{self.extra}]'"


def python(wanted: Wanted) -> Iterator[Finding]:
    """Python's own version; pip has compared it already."""
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def packages(wanted: Wanted) -> Iterator[Finding]:
    """All libraries, each against the versions that we need; those that are fine first."""
    try:
        known = known_packages()
    except PackageNotFoundError:
        found = "vlinstruct is not installed, so that the versions it needs are not known"
        yield notice("package", found, "pip install . in its folder")
        return
    yield from sorted(map(examined, known), key=lambda one: one.level != "ok")


def known_packages() -> list[Package]:
    """Returns what our metadata asks for, then the optional libraries that it does not know."""
    extras = [one for one in metadata("vlinstruct").get_all("Provides-Extra") or [] if one != _DEVELOPMENT]
    requirements = [Requirement(text) for text in metadata("vlinstruct").get_all("Requires-Dist") or []]
    found = [package for one in requirements if (package := _package(one, extras)) is not None]
    names = {package.name.lower() for package in found}
    return [*found, *(Package(name=name, is_optional=True) for name in _OPTIONAL if name not in names)]


def _package(requirement: Requirement, extras: list[str]) -> Package | None:
    """Returns None for what only the tests need, or another system."""
    marker = requirement.marker
    if marker is None or marker.evaluate({"extra": ""}):
        return Package(name=requirement.name, specifier=requirement.specifier)
    extra = next((one for one in extras if marker.evaluate({"extra": one})), None)
    if extra is None:
        return None
    return Package(name=requirement.name, specifier=requirement.specifier, extra=extra, is_optional=True)


def examined(package: Package) -> Finding:
    """Says whether a library is here in a version that works."""
    installed = _installed(package.name)
    if installed is None and package.is_optional:
        use = _OPTIONAL.get(package.name.lower(), f"the extra {package.extra} needs it")
        return notice("package", f"{package.name} is not installed: {use}", package.installation)
    if installed is None:
        return problem("package", f"{package.name} is not installed", package.installation)
    failed = [one for one in package.specifier if not one.contains(installed, prereleases=True)]
    if not failed:
        return ok("package", f"{package.name} {installed}")
    floor = next((one.version for one in failed if one.operator in (">=", ">")), None)
    if floor is None:
        found = f"{package.name} {installed} is newer than what was tested ({package.specifier})"
        return notice("package", found, package.installation)
    why = "the first with its security fixes" if package.name.lower() in _SECURITY else "the oldest that works"
    return problem("package", f"{package.name} {installed} is older than {floor}, {why}", package.installation)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
