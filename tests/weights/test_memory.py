"""A model that does not fit into memory is refused before a tensor of it is read, with what would make it fit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_config

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import empty_model
from vlinstruct.backends.instructblip.memory import InstructBlipNeeds, place
from vlinstruct.backends.memory import Load, working_bytes
from vlinstruct.backends.registry import BACKBONES, identity_of
from vlinstruct.bench.models import random_model
from vlinstruct.errors import CheckpointError, ResourceError
from vlinstruct.weights import memory
from vlinstruct.weights.memory import (
    Quantizable,
    WeightCount,
    available_bytes,
    count_weights,
    remedies,
    require_memory,
    stored_shapes,
)

BILLION = WeightCount(parts={"vision_model": 2 * 10**8, "language_model": 8 * 10**8}, quantizable=8 * 10**8)


def write_header(folder: Path, shapes: list[list[int]]) -> None:
    """Writes a file that announces tensors, and in place of their numbers has a hole."""
    tensors = {str(index): {"dtype": "F32", "shape": shape} for index, shape in enumerate(shapes)}
    content = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(file.tell() + 4 * sum(math.prod(shape) for shape in shapes))


def test_weights_are_counted_from_the_header_alone(tmp_path: Path) -> None:
    write_header(tmp_path, [[1000, 1000, 1000], [], [5]])
    assert count_weights(stored_shapes(tmp_path), Quantizable(part="x")).total == 10**9 + 1 + 5


@pytest.mark.parametrize(
    "content",
    [b"[]", b'{"a": 1}', b'{"a": {"shape": ["x"]}}', b'{"a": {"dtype": "F32"}}', b'{"a": {"shape": [99999]}}'],
)
def test_a_damaged_header_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    with pytest.raises(CheckpointError, match="damaged"):
        stored_shapes(tmp_path)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_headers_and_configurations_count_the_same(kind: str, tiny_folders: dict[str, Path]) -> None:
    config = InstructBlipConfig.from_dict(tiny_config(kind))
    model = empty_model(config)
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    counted = count_weights(shapes, config.quantizable)
    stored = count_weights(stored_shapes(tiny_folders[kind]), config.quantizable)
    assert counted.quantizable == stored.quantizable > stored.only_4bit == counted.only_4bit
    assert (counted.only_4bit > 0) == (kind == "t5")
    assert counted.total == sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize("name", ["flant5-xl", "vicuna-7b"])
def test_what_is_quantized_are_the_linear_layers_of_the_language_models_blocks(name: str) -> None:
    config = InstructBlipConfig.from_dict(BACKBONES[name].config())
    model = empty_model(config)
    expected = {
        f"{path}.weight"
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and path.startswith("language_model.") and "lm_head" not in path
    }
    assert expected
    assert {
        key for key, value in model.state_dict().items() if config.quantizable.includes(key, value.shape)
    } == expected


def test_a_model_larger_than_memory_is_refused_with_what_would_fit() -> None:
    require_memory(BILLION, "it", itemsize=2, available=2 * 10**9)
    with pytest.raises(
        ResourceError,
        match=r"its weights take 4\.0 GB, 3\.0 GB of memory are free\. "
        r"Use --dtype bfloat16 \(2\.0 GB\) or --quantize 8bit \(1\.6 GB\)",
    ):
        require_memory(BILLION, "it", itemsize=4, available=3 * 10**9)
    with pytest.raises(ResourceError, match="use a smaller --backbone"):
        require_memory(BILLION, "it", itemsize=4, available=10**8)
    require_memory(BILLION, "it", itemsize=4, available=None)  # the system does not tell


def test_what_it_needs_while_it_computes_counts() -> None:
    require_memory(BILLION, "it", itemsize=4, available=4 * 10**9)
    with pytest.raises(ResourceError):
        require_memory(BILLION, "it", itemsize=4, available=4 * 10**9, working=1)


@pytest.mark.parametrize("available", range(10**8, 5 * 10**9, 3 * 10**8))
def test_what_is_advised_fits_and_is_smaller(available: int) -> None:
    for typed in remedies(BILLION, itemsize=4, quantize=None, available=available):
        itemsize = 2 if "bfloat16" in typed else 4
        quantize = "8bit" if "8bit" in typed else "4bit" if "4bit" in typed else None
        assert BILLION.num_bytes(itemsize, quantize) <= available  # type: ignore[arg-type]
        assert BILLION.num_bytes(itemsize, quantize) < BILLION.num_bytes(4)  # type: ignore[arg-type]


def test_what_is_free_is_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:  42 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "none")
    assert available_bytes() == 42 * 1024
    meminfo.unlink()
    assert available_bytes() is None or available_bytes() > 0


GROUPS = {
    "second": ("0::{}", "", "memory.max", "memory.current", ""),
    "first": ("4:cpu,memory:{}", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


@pytest.mark.parametrize("version", GROUPS)
@pytest.mark.parametrize(("path", "place"), [("/", "."), ("/pod/one", "pod/one"), ("/pod/one", "pod"), ("/pod/x", ".")])
@pytest.mark.parametrize(("limit", "left"), [("1000", 1000 - 700 + 150), ("500", 0), ("max", None)])
def test_a_container_has_what_its_limit_leaves(
    version: str, path: str, place: str, limit: str, left: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, root, limit_name, used_name, prefix = GROUPS[version]
    folder = tmp_path / "groups" / root / place
    folder.mkdir(parents=True)
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / used_name).write_text("700\n")
    (folder / "memory.stat").write_text(f"anon 500\n{prefix}active_file 50\n{prefix}inactive_file 100\nshmem 9\n")
    (tmp_path / "own").write_text(f"9:name=systemd:/\n{line.format(path)}\n")
    (tmp_path / "meminfo").write_text("MemAvailable:  42 kB\n")
    for name, where in {"_OWN_CGROUPS": "own", "_CGROUPS": "groups", "_MEMINFO": "meminfo"}.items():
        monkeypatch.setattr(memory, name, tmp_path / where)
    assert available_bytes() == (42 * 1024 if left is None else left)


def test_a_folder_that_does_not_fit_is_refused_before_it_is_read(
    tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlinstruct.weights.placement.available_bytes", lambda: 100_000)
    with pytest.raises(ResourceError, match="of memory are free"):
        place(identity_of(tiny_folders["t5"]), torch.device("cpu"), itemsize=4, quantize=None, may_spread=True)


@pytest.mark.parametrize(("kind", "num_written"), [("t5", 4), ("llama", 3)])  # T5 has a start token
def test_the_caches_are_as_large_as_the_real_ones(kind: str, num_written: int) -> None:
    config = InstructBlipConfig.from_dict(tiny_config(kind))
    model = random_model(config, torch.device("cpu"), torch.float32).language_model
    needs, load = InstructBlipNeeds(config), Load(rows=2, prompt_tokens=5, new_tokens=num_written)
    embeds = torch.zeros(2, needs.media_tokens + 5, config.text_config.hidden_size)
    _, state = model.prefill(embeds, torch.ones(embeds.shape[:2]), torch.zeros(2, 3, dtype=torch.long))
    caches = [*state.own, *state.context] if kind == "t5" else state.caches  # type: ignore[attr-defined]
    real = sum(one.keys.nbytes + one.values.nbytes for one in caches)
    assert needs.cache_bytes(load, 4) == real


def test_more_at_once_takes_more() -> None:
    needs = InstructBlipNeeds(InstructBlipConfig.from_dict(BACKBONES["flant5-xl"].config()))
    sizes = [
        working_bytes(needs, Load(rows=rows, prompt_tokens=tokens), 2) for rows, tokens in ((1, 9), (1, 99), (8, 99))
    ]
    assert sizes == sorted(set(sizes))
