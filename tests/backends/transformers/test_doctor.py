"""Doctor on models of other families: what is sound answers twice alike, and what does not hold is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vlinstruct.backends.transformers.any_vlm import TransformersBackend
from vlinstruct.doctor.backbone import examine_backbone
from vlinstruct.doctor.finding import DoctorSettings, Finding


def examined(folder: Path) -> dict[str, Finding]:
    findings = examine_backbone(DoctorSettings(backbone=str(folder), device="cpu", offline=True))
    return {finding.check: finding for finding in findings}


@pytest.mark.parametrize("name", ["qwen2_5_vl", "paligemma"])
def test_a_sound_folder_has_no_problem_and_answers(name: str, folder_of: Callable[[str], Path]) -> None:
    found = examined(folder_of(name))
    assert {finding.level for finding in found.values()} == {"ok"}
    assert "twice the same" in found["answer"].found


def test_damaged_weights_are_named_and_nothing_is_asked(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(folder_of("llava"), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    found = examined(folder)
    assert found["files"].level == "problem"
    assert "not tried" in found["answer"].found


def test_likelihoods_that_differ_from_transformers_are_told(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TransformersBackend.plain_nll
    monkeypatch.setattr(TransformersBackend, "plain_nll", lambda *given: [nats + 1 for nats in plain(*given)])
    assert examined(folder_of("llava"))["shared picture"].level == "notice"
