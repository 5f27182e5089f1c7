"""What is written piece by piece is what safetensors would have written, in less memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlinstruct.conversion import weights
from vlinstruct.conversion.shard_writer import plan_shards, write_shards
from vlinstruct.conversion.weights import Weight, as_dtype, joined, plus_low_rank, stored, whole, with_mean_rows

MB = 10**6


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of three rows or so: tiny tensors have many."""
    monkeypatch.setattr(weights, "_PIECE_BYTES", 100)


def write(folder: Path, tensors: dict[str, Tensor], max_shard_bytes: int = 10**9) -> dict[str, Tensor]:
    """Writes tensors and reads them with safetensors' own reader."""
    made = {name: stored(tensor) for name, tensor in tensors.items()}
    written = write_shards(folder, made, max_shard_bytes=max_shard_bytes, on_shard=lambda done, total: None)
    assert written.not_finite == ()
    return {name: tensor for file in written.files for name, tensor in load_file(folder / file).items()}


def same(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)


def test_every_type_and_shape_is_written_as_safetensors_reads_it(tmp_path: Path) -> None:
    tensors = {
        f"{str(dtype)[6:]}.{shape}": torch.randn(shape).to(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
        for shape in ((), (1,), (0, 3), (7,), (20, 9), (1, 5, 300))
    }
    read = write(tmp_path, tensors)
    assert read.keys() == tensors.keys()
    assert all(same(read[name], tensor) for name, tensor in tensors.items())
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_bytes_are_those_of_safetensors_own_writer(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(20, 9), "a": torch.randn(3).half(), "c": torch.randn(2, 2).double()}
    write(tmp_path, tensors)
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_shared_and_scattered_tensors_are_written_by_value(tmp_path: Path) -> None:
    base = torch.randn(12, 10)
    tensors = {"whole": base, "same": base, "part": base[3:5], "turned": base.t(), "stride": base[::2, ::3]}
    tensors["repeated"] = torch.tensor([1.5]).expand(40, 8)
    read = write(tmp_path, tensors)
    assert all(same(read[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("max_shard_bytes", [1, 90, 400, 10**9])
def test_shards_hold_every_tensor_once_in_order_and_keep_their_size(tmp_path: Path, max_shard_bytes: int) -> None:
    tensors = {f"layer.{index}": torch.randn(index % 7 + 1, 5) for index in range(20)}
    assert write(tmp_path, tensors, max_shard_bytes).keys() == tensors.keys()
    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    plan = plan_shards(sizes, max_shard_bytes)
    assert [name for names in plan for name in names] == list(tensors)
    assert all(len(names) == 1 or sum(sizes[name] for name in names) <= max_shard_bytes for names in plan)
    if len(plan) > 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"] == {"total_size": sum(sizes.values())}
        assert list(index["weight_map"]) == list(tensors)


def test_tensors_that_are_not_finite_are_named(tmp_path: Path) -> None:
    made = {"good": stored(torch.ones(50)), "nan": stored(torch.full((50,), torch.nan))}
    made["large"] = as_dtype(stored(torch.full((2, 50), 1e30)), torch.float16)
    written = write_shards(tmp_path, made, max_shard_bytes=10**9, on_shard=lambda done, total: None)
    assert set(written.not_finite) == {"nan", "large"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_made_in_pieces_is_what_would_be_made_at_once(dtype: torch.dtype) -> None:
    table, a, b = torch.randn(50, 6).to(dtype), torch.randn(2, 6), torch.randn(50, 2)
    mean = table.double().mean(dim=0).to(dtype).expand(3, -1)
    expected: dict[str, tuple[Weight, Tensor]] = {
        "as it is": (stored(table), table),
        "rounded": (as_dtype(stored(table), torch.float16), table.half()),
        "joined": (joined(stored(table), stored(table[:4].double())), torch.cat([table, table[:4]]).double()),
        "longer": (with_mean_rows(stored(table), 3), torch.cat([table, mean])),
        "merged": (
            plus_low_rank(stored(table), a, b, 0.5, dtype=dtype),
            (table.float() + 0.5 * (b @ a)).to(dtype),
        ),
    }
    for weight, tensor in expected.values():
        assert weight.shape == tuple(tensor.shape)
        torch.testing.assert_close(whole(weight), tensor, rtol=1e-6 if dtype == torch.float32 else 0.01, atol=1e-6)


def test_an_added_row_is_never_the_likeliest_token() -> None:
    head = torch.randn(40, 6)
    logits = torch.randn(100, 6) @ whole(with_mean_rows(stored(head), 2)).T
    assert bool((logits[:, 40:] < logits[:, :40].max(dim=1, keepdim=True).values).all())


MEASURE = """
import sys, threading, time
from vlinstruct.cli.main import run_command
import vlinstruct.conversion.lavis, tokenizers

def anonymous_bytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))

def watch():
    while not done.is_set():
        seen.append(anonymous_bytes())
        time.sleep(0.0005)

seen, done = [anonymous_bytes()], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
code = run_command(sys.argv[1:])
done.set()
watcher.join()
print(code, max(seen) - seen[0], len(seen))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="anonymous memory is Linux's word")
def test_a_conversion_holds_less_than_its_largest_file(tmp_path: Path) -> None:
    """Goal: 1.3 times the largest file. Measured: 18 MB beside files of 67 MB."""
    import lavis_files

    made = lavis_files.write("t5", tmp_path / "lavis", dtype=torch.bfloat16, is_complete=True, prefix="module.")
    num_rows = 600_000
    content = torch.load(made.files[0], weights_only=True)
    for table in ("shared", "lm_head"):
        content["model"][f"module.t5_model.{table}.weight"] = torch.ones(num_rows - 2, 28, dtype=torch.bfloat16)
    torch.save(content, made.files[0])
    config = json.loads(made.config.read_text())
    made.config.write_text(json.dumps({**config, "text_config": {**config["text_config"], "vocab_size": num_rows}}))
    how = ["--dtype", "float32", "--max-shard-size", "70MB", "-q", "-o", tmp_path / "out"]
    arguments = [sys.executable, "-c", MEASURE, "convert", *made.arguments, *how]
    output = subprocess.run([str(one) for one in arguments], capture_output=True, text=True, check=True).stdout
    code, peak_bytes, num_samples = map(int, output.split()[-3:])
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors")]
    assert code == 0
    assert num_samples > 50
    assert sum(sizes) > 130 * MB
    assert peak_bytes <= 1.3 * max(sizes)
