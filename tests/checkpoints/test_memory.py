"""A model that does not fit into memory is refused before a tensor of it is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlinstruct.checkpoints import memory
from vlinstruct.checkpoints.memory import available_bytes, num_weights, require_memory
from vlinstruct.errors import CheckpointError, ResourceError


def write_header(folder: Path, shapes: list[list[int]]) -> None:
    """Writes a file that announces tensors and holds none of their numbers."""
    tensors = {str(index): {"dtype": "F32", "shape": shape} for index, shape in enumerate(shapes)}
    content = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    (folder / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)


def test_weights_are_counted_from_the_header_alone(tmp_path: Path) -> None:
    write_header(tmp_path, [[1000, 1000, 1000], [], [5]])
    assert num_weights(tmp_path) == 10**9 + 1 + 5


def test_a_model_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_header(tmp_path, [[10**9]])
    monkeypatch.setattr(memory, "available_bytes", lambda: 3 * 10**9)
    require_memory(tmp_path, bytes_per_weight=2)
    with pytest.raises(ResourceError, match=r"its weights take 4\.0 GB, 3\.0 GB of memory are free"):
        require_memory(tmp_path, bytes_per_weight=4)


def test_what_is_free_is_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:  42 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    assert available_bytes() == 42 * 1024
    meminfo.unlink()
    assert available_bytes() is None or available_bytes() > 0


def test_nothing_is_refused_where_the_system_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_header(tmp_path, [[10**15]])
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    require_memory(tmp_path, bytes_per_weight=4)


@pytest.mark.parametrize("content", [b"[]", b'{"a": 1}', b'{"a": {"shape": ["x"]}}', b'{"a": {"dtype": "F32"}}'])
def test_a_damaged_header_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    with pytest.raises(CheckpointError, match="header"):
        require_memory(tmp_path, bytes_per_weight=4)
