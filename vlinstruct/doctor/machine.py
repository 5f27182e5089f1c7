"""What this machine and its environment offer: libraries, variables, processor, memory, GPUs.

No library is imported to learn its version, and torch only inside the checks that need it: where one is broken, those
checks fail and the others still say what they see.
"""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from vlinstruct.backends.registry import resolve
from vlinstruct.doctor.finding import DoctorSettings, Finding, notice, ok, problem
from vlinstruct.errors import VlinstructError
from vlinstruct.weights.memory import available_bytes

if TYPE_CHECKING:
    import torch

_GB = 10**9
_BFLOAT16_CAPABILITY = (8, 0)  # Ampere
# Used where it is there, with Java: CIDEr's own tokenizer. No extra brings it.
_NO_EXTRA_BRINGS = "pycocoevalcap"
_SECURITY = ("torch", "transformers", "pillow")  # whose floors are versions with security fixes
_DEVELOPMENT = ("test", "browser", "photographs")
_SWITCHES = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS")
_ON, _OFF = ("1", "ON", "YES", "TRUE"), ("", "0", "OFF", "NO", "FALSE")  # huggingface_hub takes all but _ON for off
_NAMES = (
    *("VLINSTRUCT_BACKBONE", "VLINSTRUCT_DEVICE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", *_SWITCHES),
)


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
        source = f"{self.name}{self.specifier}" if self.extra is None else f"vlinstruct[{self.extra}]"
        return f"pip install -U '{source}'"


def python(settings: DoctorSettings) -> Iterator[Finding]:
    """Python's version and the system; pip refused a Python that is too old."""
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def packages(settings: DoctorSettings) -> Iterator[Finding]:
    """All libraries, each against the versions that we need: what is fine first, what is left out in one line."""
    try:
        libraries = usable_packages()
    except PackageNotFoundError:
        message = "vlinstruct is not installed, so that the versions it needs are not known"
        yield notice("package", message, "pip install . in its folder")
        return
    left_out = [package for package in libraries if package.is_optional and _installed(package) is None]
    checked = [check_package(package) for package in libraries if package not in left_out]
    yield from sorted(checked, key=lambda finding: finding.level != "ok")
    if left_out:
        by_extra: dict[str, list[str]] = {}
        for package in left_out:
            by_extra.setdefault(package.extra or "", []).append(package.name)
        alone = by_extra.pop("", [])
        names = ", ".join([*(f"{extra} ({', '.join(names)})" for extra, names in by_extra.items()), *alone])
        wanted = f"vlinstruct[{','.join(by_extra)}]" if by_extra else " ".join(alone)
        yield notice("package", f"optional, not installed: {names}", f"pip install -U '{wanted}', or what you use")


def usable_packages() -> list[Package]:
    """Returns what our metadata asks for, then an optional library that it does not know."""
    extras = [extra for extra in metadata("vlinstruct").get_all("Provides-Extra") or [] if extra not in _DEVELOPMENT]
    libraries = []
    for text in metadata("vlinstruct").get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        if requirement.name == "vlinstruct":  # `all` is made of the other extras
            continue
        name, specifier, marker = requirement.name, requirement.specifier, requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            libraries.append(Package(name=name, specifier=specifier))
            continue
        extra = next((extra for extra in extras if marker.evaluate({"extra": extra})), None)
        # Else only the tests need it, or another system. An extra may want a newer version of what is here already, as
        # is told where it is used.
        if extra is not None and not any(library.name == name for library in libraries):
            libraries.append(Package(name=name, specifier=specifier, extra=extra, is_optional=True))
    return [*libraries, Package(name=_NO_EXTRA_BRINGS, is_optional=True)]


def _installed(package: Package) -> str | None:
    try:
        return version(package.name)
    except PackageNotFoundError:
        return None


def check_package(package: Package) -> Finding:
    """Says whether a library is here in a version that works."""
    installed = _installed(package)
    if installed is None:
        return problem("package", f"{package.name} is not installed", package.installation)
    unmet = [clause for clause in package.specifier if not clause.contains(installed, prereleases=True)]
    if not unmet:
        return ok("package", f"{package.name} {installed}")
    floor = next((clause.version for clause in unmet if clause.operator in (">=", ">")), None)
    if floor is None:
        message = f"{package.name} {installed} is newer than what was tested ({package.specifier})"
        return notice("package", message, package.installation)
    why = "the first with its security fixes" if package.name.lower() in _SECURITY else "the oldest that works"
    return problem("package", f"{package.name} {installed} is older than {floor}, {why}", package.installation)


def variables(settings: DoctorSettings) -> Iterator[Finding]:
    """Lists the variables that are set, then what is wrong with them; a token is never among them."""
    values = [f"{name}={os.environ[name]}" for name in _NAMES if name in os.environ]
    yield ok("environment", ", ".join(values) or "none of our variables is set")
    for name in _SWITCHES:
        value = os.environ.get(name, "")
        if value.upper() not in (*_ON, *_OFF):
            yield notice(f"${name}", f"{value!r} is neither on nor off, and is taken for off", f"Set {name} to 1 or 0")
    default = os.environ.get("VLINSTRUCT_BACKBONE", "")
    if default and default != settings.backbone:  # the examined backbone's own checks say whether its name is known
        try:
            resolve(default)
        except VlinstructError as error:
            fix = "Unset it, or set it to mini, a paper backbone's name, a folder or a hub id"
            yield problem("$VLINSTRUCT_BACKBONE", error.problem, fix)
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint is not None and not endpoint.startswith(("https://", "http://")):
        fix = "Unset HF_ENDPOINT, or set it to an address like https://huggingface.co"
        yield notice("$HF_ENDPOINT", f"{endpoint!r} is no http(s) address: nothing can be downloaded", fix)


def processor(settings: DoctorSettings) -> Iterator[Finding]:
    """Cores, threads and memory."""
    import torch

    affinity = getattr(os, "sched_getaffinity", None)  # on Linux: what a job or container may use of the machine's
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    free = available_bytes()
    memory = "free memory unknown" if free is None else f"{free / _GB:.1f} GB of memory free"
    yield ok("processor", f"{cores} cores, threads of torch: {torch.get_num_threads()}, {memory}")
    if free is not None and free < _GB:
        yield notice("memory", f"only {free / _GB:.1f} GB are free", "Close other programs")


def gpu(settings: DoctorSettings) -> Iterator[Finding]:
    """Every CUDA device, or MPS; where there is none, why an NVIDIA GPU is not seen."""
    import torch

    # Where a driver is too old torch warns and says that there is no GPU: the warning is what tells the two apart.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        is_available = torch.cuda.is_available()
    if is_available:
        yield from (_gpu(index) for index in range(torch.cuda.device_count()))
    elif torch.backends.mps.is_available():
        yield ok("gpu", "Apple's (mps), shares the machine's memory")
    else:
        yield _no_gpu(torch.version.cuda, has_warned=bool(caught))


def _gpu(index: int) -> Finding:
    import torch

    free, total = torch.cuda.mem_get_info(index)
    memory = f"{free / _GB:.1f} of {total / _GB:.1f} GB free"
    described = f"cuda:{index} {torch.cuda.get_device_name(index)}, {memory}"
    if torch.cuda.get_device_capability(index) < _BFLOAT16_CAPABILITY:
        return notice("gpu", f"{described}, no bfloat16", "Use --dtype float16 (Vicuna) or float32 (FlanT5) on it")
    return ok("gpu", f"{described}, bfloat16")


def _no_gpu(cuda: str | None, *, has_warned: bool) -> Finding:
    """Returns that there is none, or why one that is there is not seen.

    Args:
        cuda: the version that torch was built for; None for its CPU build.
        has_warned: whether torch complained when it looked.
    """
    visible_devices, has_driver = os.environ.get("CUDA_VISIBLE_DEVICES"), shutil.which("nvidia-smi") is not None
    if has_driver and cuda is None:
        fix = "Install one of torch's CUDA builds: https://pytorch.org/get-started/locally"
        return notice("gpu", "an NVIDIA driver is here, but this torch is a CPU build", fix)
    if cuda is not None and visible_devices is not None:
        message = f"none is seen, CUDA_VISIBLE_DEVICES is {visible_devices!r}"
        return notice("gpu", message, "Unset it, or name devices that nvidia-smi lists")
    if has_driver or has_warned:
        return notice("gpu", f"torch for CUDA {cuda} sees none", "Update NVIDIA's driver, or see what nvidia-smi says")
    return ok("gpu", "none, the CPU computes")


def device(settings: DoctorSettings) -> Iterator[Finding]:
    """Whether what was asked for is there, and what the environment's default names."""
    from vlinstruct.backends.machine import compute_dtype

    names = {settings.device: "--device"}
    if os.environ.get("VLINSTRUCT_DEVICE"):
        names[os.environ["VLINSTRUCT_DEVICE"]] = "$VLINSTRUCT_DEVICE"
    for value, name in names.items():
        if _usable(value) is None:
            yield problem("device", f"{name} is {value!r}, which is not available here", "Use auto or cpu")
    chosen = _usable(settings.device)
    if chosen is not None:
        dtype = str(compute_dtype(settings.dtype, chosen)).removeprefix("torch.")
        yield ok("device", f"commands compute on {chosen} in {dtype}")


def _usable(name: str) -> torch.device | None:
    from vlinstruct.backends.machine import compute_device

    try:
        return compute_device(name)
    except VlinstructError:
        return None
