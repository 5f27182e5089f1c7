"""Libraries are compared with the versions that the package's own metadata asks for."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

import pytest

from vlinstruct.doctor import packages
from vlinstruct.doctor.finding import Finding
from vlinstruct.doctor.wanted import Wanted

WANTED = Wanted(backbone="mini", offline=True)
REQUIRED = ("torch", "tokenizers", "safetensors", "huggingface_hub", "pillow", "accelerate")
OPTIONAL = ("transformers", "peft", "bitsandbytes", "torchao", "tensorboard", "matplotlib")


def findings(monkeypatch: pytest.MonkeyPatch, changed: Mapping[str, str | None]) -> dict[str, Finding]:
    """Returns the findings by package, where some have another version or are missing (None)."""

    def version(name: str) -> str:
        installed = changed.get(name.lower(), "99.0" if name.lower() in OPTIONAL else real(name))
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    real = importlib.metadata.version
    monkeypatch.setattr(packages, "version", version)
    return {finding.found.split()[0].lower(): finding for finding in packages.packages(WANTED)}


def test_every_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, {})
    assert {*REQUIRED, *OPTIONAL} <= found.keys()
    assert "pytest" not in found
    assert {found[name].level for name in REQUIRED} == {"ok"}


@pytest.mark.parametrize(
    ("name", "version", "floor"),
    [("torch", "2.9.1+cpu", "2.10"), ("transformers", "5.2", "5.3"), ("pillow", "11.0", "12.1")],
)
def test_a_version_below_its_security_floor_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, name: str, version: str, floor: str
) -> None:
    finding = findings(monkeypatch, {name: version})[name]
    assert finding.level == "problem"
    assert f"{version} is older than {floor}, the first with its security fixes" in finding.found
    assert finding.fix is not None
    assert finding.fix.startswith("pip install -U")


def test_a_version_newer_than_what_was_tested_is_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = findings(monkeypatch, {"torch": "99.0"})["torch"]
    assert finding.level == "notice"
    assert "newer than what was tested" in finding.found


def test_what_always_comes_along_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = findings(monkeypatch, {"safetensors": None})["safetensors"]
    assert finding.level == "problem"
    assert finding.fix == "pip install -U 'safetensors>=0.5'"


def test_what_is_optional_names_its_use_and_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = findings(monkeypatch, {"bitsandbytes": None})["bitsandbytes"]
    assert finding.level == "notice"
    assert finding.found == "bitsandbytes is not installed: `--quantize` needs it"
    assert finding.fix == "pip install -U 'vlinstruct[quantize]'"


def test_without_metadata_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "metadata", fail)
    (finding,) = packages.packages(WANTED)
    assert finding.level == "notice"
    assert "vlinstruct is not installed" in finding.found
