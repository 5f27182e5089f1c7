"""What cannot be run is refused in one line, from its settings alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from picture_fixtures import assert_one_line

from vlinstruct.backends.registry import check_runnable
from vlinstruct.backends.transformers import support
from vlinstruct.errors import CheckpointError, ResourceError, VlinstructError


def settings_folder(folder: Path, config: dict[str, Any], **files: dict[str, Any]) -> Path:
    """Writes a folder of settings without weights, as it is before a download."""
    for name, content in {"config": config, "preprocessor_config": {}, "tokenizer_config": {}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def refusal(folder: Path, config: dict[str, Any]) -> VlinstructError:
    with pytest.raises(VlinstructError) as caught:
        check_runnable(folder, config, name="somebody/model")
    assert_one_line(caught.value)
    return caught.value


@pytest.mark.parametrize("config", [{"num_hidden_layers": 10**9}, {"vision_config": {"depth": 0}}])
def test_a_damaged_number_of_layers_is_told_before_they_are_built(config: dict[str, Any], tmp_path: Path) -> None:
    config = {"model_type": "qwen3_vl", "text_config": config}
    assert "its config.json says" in refusal(settings_folder(tmp_path, config), config).message


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("kosmos-2", "not supported"),
        ("instructblipvideo", "takes clips"),
        ("a_kind_to_come", "knows no models of kind a_kind_to_come"),
        ("bert", "answers no questions about pictures"),
        ("\u001b[31m" + "x" * 300, "knows no models of kind"),
    ],
)
def test_kinds_that_cannot_be_run_are_refused_by_name(kind: str, says: str, tmp_path: Path) -> None:
    config = {"model_type": kind}
    error = refusal(settings_folder(tmp_path, config), config)
    assert isinstance(error, CheckpointError)
    assert says in error.message
    assert "\u001b" not in error.message


@pytest.mark.parametrize(
    ("leave_out", "says"), [("preprocessor_config", "no processor"), ("tokenizer_config", "no tokenizer")]
)
def test_a_folder_without_processor_or_tokenizer_is_refused(leave_out: str, says: str, tmp_path: Path) -> None:
    config = {"model_type": "llava"}
    folder = settings_folder(tmp_path, config)
    check_runnable(folder, config, name="somebody/model")  # complete, as far as it can be told
    (folder / f"{leave_out}.json").unlink()
    assert says in refusal(folder, config).message


@pytest.mark.parametrize(("kind", "missing"), [("smolvlm", "num2words"), ("qwen3_vl", "torchvision")])
def test_a_missing_package_is_named_before_anything_is_downloaded(
    kind: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "find_spec", lambda name: None if name == missing else object())
    config = {"model_type": kind}
    error = refusal(settings_folder(tmp_path, config), config)
    assert isinstance(error, ResourceError)
    assert missing in error.message
    assert "vlinstruct[vlm]" in error.message


def test_a_processor_of_videos_of_any_kind_asks_for_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "find_spec", lambda name: None if name == "torchvision" else object())
    config = {"model_type": "glm4v"}
    folder = settings_folder(tmp_path, config)
    check_runnable(folder, config, name="somebody/model")
    settings_folder(tmp_path, config, processor_config={"video_processor": {}})
    assert "torchvision" in refusal(folder, config).message


def test_a_torchvision_of_another_build_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(support, "import_module", broken)
    config = {"model_type": "internvl"}
    error = refusal(settings_folder(tmp_path, config), config)
    assert isinstance(error, ResourceError)
    assert "does not fit torch" in error.message


def test_versions_that_are_too_old_or_broken_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_type": "llama4"}
    folder = settings_folder(tmp_path, config)
    for here, says in (("5.3.0", "5.23 or newer"), ("5.24.0", "cannot run models of kind llama4")):
        monkeypatch.setattr(support, "version", lambda package, here=here: here)
        assert says in refusal(folder, config).message
    monkeypatch.setattr(support, "version", lambda package: "5.23.0")
    check_runnable(folder, config, name="somebody/model")


def test_weights_that_need_a_missing_package_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "find_spec", lambda name: None if name == "gptqmodel" else object())
    config = {"model_type": "llava", "quantization_config": {"quant_method": "awq"}}
    assert "pip install gptqmodel" in refusal(settings_folder(tmp_path, config), config).message


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights"):
        support.require_safetensors(tmp_path, name="folder")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="never loaded"):
        support.require_safetensors(tmp_path, name="folder")
    (tmp_path / "model.safetensors").write_bytes(b"")
    support.require_safetensors(tmp_path, name="folder")
