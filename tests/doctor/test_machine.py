"""Libraries, variables, the processor and the GPUs: what is wrong with them is named."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch

from vlinstruct.doctor import cache, diagnosis, machine
from vlinstruct.doctor.finding import DoctorSettings, Finding

SETTINGS = DoctorSettings(backbone="mini", offline=True)
Check = Callable[[DoctorSettings], Iterator[Finding]]
REQUIRED = ("torch", "tokenizers", "safetensors", "huggingface_hub", "pillow", "accelerate")
OPTIONAL = ("transformers", "peft", "bitsandbytes", "torchao", "tensorboard", "matplotlib")


def only(check: Check, settings: DoctorSettings = SETTINGS) -> Finding:
    (finding,) = check(settings)
    return finding


def worst(check: Check, settings: DoctorSettings = SETTINGS) -> Finding:
    """Returns the one finding that is not ok."""
    (finding,) = [one for one in check(settings) if one.level != "ok"]
    assert finding.fix
    return finding


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Two GPUs; the dictionary changes them."""
    values: dict[str, object] = {"capability": (9, 0), "available": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: values["available"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (70 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"NVIDIA H100 {index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: values["capability"])
    return values


def test_nothing_is_a_problem_here() -> None:
    found = diagnosis.examine_machine(SETTINGS)
    assert [one for one in found if one.level == "problem"] == []
    assert {"python", "package", "processor", "gpu", "device", "disk", "cache"} <= {one.check for one in found}


def test_every_gpu_has_its_name_memory_and_number_type(gpus: dict[str, object]) -> None:
    first, second = machine.gpu(SETTINGS)
    assert first.found == "cuda:0 NVIDIA H100 0, 70.0 of 80.0 GB free, bfloat16"
    assert second.found.startswith("cuda:1 NVIDIA H100 1")
    gpus["capability"] = (7, 5)
    first, _ = machine.gpu(SETTINGS)
    assert "no bfloat16" in first.found


def test_no_gpu_is_fine(gpus: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus["available"] = False
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert only(machine.gpu).found == "none, the CPU computes"


@pytest.mark.parametrize(
    ("cuda", "visible", "words"),
    [
        (None, None, "this torch is a CPU build"),
        ("13.0", "99", "CUDA_VISIBLE_DEVICES is '99'"),
        ("13.0", None, "sees none"),
    ],
)
def test_a_gpu_that_is_not_seen_is_explained(
    gpus: dict[str, object], monkeypatch: pytest.MonkeyPatch, cuda: str | None, visible: str | None, words: str
) -> None:
    gpus["available"] = False
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert words in worst(machine.gpu).found


def test_cores_threads_and_memory_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda: 5 * 10**9)
    assert only(machine.processor).found.endswith("threads of torch: 1, 5.0 GB of memory free")
    monkeypatch.setattr(machine, "available_bytes", lambda: 10**8)
    assert worst(machine.processor).found == "only 0.1 GB are free"


def test_a_device_that_is_not_here_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        only(machine.device, DoctorSettings(backbone="mini", device="cpu")).found
        == "commands compute on cpu in float32"
    )
    assert worst(machine.device, DoctorSettings(backbone="mini", device="cuda:99")).found.startswith(
        "--device is 'cuda:99'"
    )
    monkeypatch.setenv("VLINSTRUCT_DEVICE", "nonsense")
    for settings in (DoctorSettings(backbone="mini", device="cpu"), DoctorSettings(backbone="mini", device="nonsense")):
        finding = worst(machine.device, settings)
        assert finding.level == "problem"
        assert finding.found.startswith("$VLINSTRUCT_DEVICE is 'nonsense'")


def test_a_switch_that_is_neither_on_nor_off_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "maybe")
    finding = worst(machine.variables)
    assert (finding.check, finding.level) == ("$HF_HUB_OFFLINE", "notice")
    assert "'maybe' is neither on nor off, and is taken for off" in finding.found
    for value in ("1", "true", "0", "off", ""):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert only(machine.variables).level == "ok"


def test_a_default_backbone_that_is_none_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", "flant5-xll")
    assert worst(machine.variables).level == "problem"
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", "vicuna-7b")
    assert only(machine.variables).level == "ok"


def test_an_endpoint_that_is_no_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    assert worst(machine.variables).check == "$HF_ENDPOINT"


def test_a_token_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert not any("hf_secret" in str(one) for one in diagnosis.examine_machine(SETTINGS))


def test_a_library_that_cannot_be_imported_is_a_problem_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: DoctorSettings) -> Iterator[Finding]:
        raise ImportError("libcudart.so")

    monkeypatch.setattr(diagnosis, "MACHINE", (fail, cache.hub))
    broken, hub = diagnosis.examine_machine(SETTINGS)
    assert (broken.check, broken.level, broken.found) == ("fail", "problem", "this check failed (ImportError)")
    assert hub.level == "ok"


def findings(monkeypatch: pytest.MonkeyPatch, changed: Mapping[str, str | None]) -> dict[str, Finding]:
    """Returns the findings by package, where some have another version or are missing (None)."""

    def version(name: str) -> str:
        installed = changed[name.lower()] if name.lower() in changed else here.get(name, "99.0")
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    here = {name: importlib.metadata.version(name) for name in REQUIRED}
    monkeypatch.setattr(machine, "version", version)
    return {finding.found.split()[0].lower(): finding for finding in machine.packages(SETTINGS)}


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


def test_what_is_left_out_is_one_line_by_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = findings(monkeypatch, {"tensorboard": None, "soxr": None, "pycocoevalcap": None})["optional,"]
    assert finding.level == "notice"
    assert finding.found == "optional, not installed: tensorboard (tensorboard), audio (soxr), pycocoevalcap"
    assert finding.fix == "pip install -U 'vlinstruct[tensorboard,audio]', or what you use"


def test_without_metadata_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine, "metadata", fail)
    (finding,) = machine.packages(SETTINGS)
    assert finding.level == "notice"
    assert "vlinstruct is not installed" in finding.found
