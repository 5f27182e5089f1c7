"""Work of an earlier run is gone on with only by a model that computes the same: every file that is read counts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from vlinstruct.errors import CheckpointError
from vlinstruct.weights.fingerprint import adapter_fingerprint, fingerprint


@pytest.fixture
def folder(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama folder with every settings file that a loader may read."""
    folder = Path(shutil.copytree(tiny_folders["llama"], tmp_path / "model"))
    for name in ("processor_config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_text("{}")
    (folder / "qformer_tokenizer" / "tokenizer_config.json").write_text("{}")
    (folder / "qformer_tokenizer" / "vocab.txt").write_text("a")
    return folder


def test_copies_have_one_fingerprint_and_every_files_content_changes_it(folder: Path, tmp_path: Path) -> None:
    before = fingerprint(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for path in copy.rglob("*"):
        path.touch()
    assert fingerprint(copy) == before
    paths = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.suffix != ".safetensors"]
    assert len(paths) == 10
    seen = {before}
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        seen.add(fingerprint(copy))
        path.write_bytes(content)
    assert len(seen) == 11


def test_other_weights_of_the_same_shape_change_it(folder: Path) -> None:
    before, state = fingerprint(folder), load_file(folder / "model.safetensors")
    state["query_tokens"].add_(1)
    (folder / "model.safetensors").unlink()  # safetensors 0.5 writes into the file, which may be mapped
    save_file(state, folder / "model.safetensors")
    assert fingerprint(folder) != before


def test_an_adapters_lora_is_part_of_it(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    (adapter / "lora").mkdir(parents=True)
    for name in (
        "alignment_config.json",
        "alignment.safetensors",
        "lora/adapter_config.json",
        "lora/adapter_model.safetensors",
    ):
        (adapter / name).write_text(json.dumps(name))
    before = adapter_fingerprint(adapter)
    (adapter / "README.md").write_text("for people")
    assert adapter_fingerprint(adapter) == before
    (adapter / "lora" / "adapter_model.safetensors").write_text("other")
    assert adapter_fingerprint(adapter) != before


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json"])
def test_a_pipe_or_a_device_in_the_folder_is_refused_at_once(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match="not a regular file"):
        fingerprint(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="not a regular file"):
        fingerprint(folder)
