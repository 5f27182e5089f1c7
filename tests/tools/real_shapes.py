"""What training and answering cost at a backbone's real shapes, with random weights: for an accelerator.

PYTHONPATH=tests python -m bench.real_shapes training flant5-xl
PYTHONPATH=tests python -m bench.real_shapes answers vicuna-7b --folder FOLDER [--quantize 4bit]

REAL_SHAPES.md has what was printed. `training` is ours alone, at several batch sizes; `vlinstruct bench --training` has
transformers beside it. `answers` writes FOLDER where it is missing, and loads it as any other.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import torch

import vlinstruct
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.registry import BACKBONES, mini_folder
from vlinstruct.bench.compare import picture
from vlinstruct.bench.random_weights import random_backbone
from vlinstruct.bench.training import OurTraining, training_config
from vlinstruct.bench.training_workload import TrainingWorkload, draw_samples, training_workloads
from vlinstruct.conversion.shard_writer import write_shards
from vlinstruct.conversion.weights import stored
from vlinstruct.settings import GenerationSettings

T = TypeVar("T")
_RECIPE_SAMPLES = 3 * 150_000
_GB = 1e9
_SHARD_BYTES = 4_000_000_000


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Returns what work returned, and its seconds, the accelerator's included."""
    began = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - began


def peak_gb() -> float | None:
    """Returns the most memory that torch held on the accelerator."""
    return round(torch.cuda.max_memory_allocated() / _GB, 2) if torch.cuda.is_available() else None


@torch.inference_mode()
def frozen_parts(model: InstructBlipBackend, rows: int) -> dict[str, Any]:
    """Returns the milliseconds of a batch of pictures, and of rows, and whether a row depends on its place."""
    size = model.image_processor.image_size
    pixels = torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
    ids = model.qformer_ids(["what is in the picture here?"] * rows, 16)
    seen = model.network.encode_image(pixels)
    model.network.alignment_input(seen, *ids)
    vision = statistics.median(timed(lambda: model.network.encode_image(pixels))[1] for _ in range(3))
    qformer = statistics.median(timed(lambda: model.network.alignment_input(seen, *ids))[1] for _ in range(3))
    moved = model.network.encode_image(pixels.roll(1, 0)).roll(-1, 0)
    equal = torch.equal(moved, seen)
    return {"rows": rows, "vision_ms": 1e3 * vision, "qformer_ms": 1e3 * qformer, "same_bits_at_any_place": equal}


def training(model: InstructBlipBackend, workload: TrainingWorkload, epochs: int) -> dict[str, Any]:
    """Returns the speed of later epochs with EMA; the features' values make no difference and are left at zero."""
    with tempfile.TemporaryDirectory() as folder, mock.patch("vlinstruct.bench.training.compute_features"):
        samples = draw_samples(workload, model, Path(folder))
        ours = OurTraining(model, samples, Path(folder) / "ours", training_config(workload.batch_size, ema=True))
        _, first = timed(ours.epoch)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        seconds = [timed(ours.epoch)[1] for _ in range(epochs)]
        flops = ours.flops().total
    speeds = sorted(workload.num_samples / taken for taken in seconds)
    speed = statistics.median(speeds)
    return {
        "workload": workload.name,
        "batch_size": workload.batch_size,
        "samples_per_s": speed,
        "from_to": [speeds[0], speeds[-1]],
        "first_epoch_samples_per_s": workload.num_samples / first,
        "peak_gb": peak_gb(),
        "tflop_per_s": flops * speed / 1e12,
        "recipe_minutes": _RECIPE_SAMPLES / speed / 60,
    }


def write_folder(backbone: str, folder: Path, device: str = "auto") -> None:
    """Writes a backbone's shapes with random bfloat16 weights and mini's tokenizers."""
    model = random_backbone(backbone, device=device, dtype="bfloat16").backend
    shutil.copytree(mini_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors", "preprocessor_config.json"))
    (folder / "config.json").write_text(json.dumps(BACKBONES[backbone].config()), encoding="utf-8")
    weights = {name: stored(tensor.cpu()) for name, tensor in model.state_dict().items()}
    write_shards(folder, weights, max_shard_bytes=_SHARD_BYTES, on_shard=lambda number, total: None)


def answers(folder: Path, quantize: Any, device: str = "auto") -> dict[str, Any]:
    """Returns the seconds until a first answer and of what follows, with the peak memory."""
    image, generation = picture(), GenerationSettings(max_new_tokens=10)
    pipeline, loading = timed(lambda: vlinstruct.load(str(folder), device=device, dtype="bfloat16", quantize=quantize))

    def ask(instruction: str, *, optimize: bool = False) -> Any:
        return pipeline.ask(image, instruction, optimize=optimize, generation=generation)

    stages: dict[str, Callable[[], Any]] = {
        "first_answer_s": lambda: ask("What is in the picture?"),
        "answer_s": lambda: ask("What is in the picture?"),
        "score_s": lambda: pipeline.score(image, "What is in the picture?"),
        "first_optimized_answer_s": lambda: ask("what here", optimize=True),
        "optimized_answer_s": lambda: ask("what here", optimize=True),
    }
    return {
        "quantize": quantize,
        "load_s": loading,
        **{name: timed(stage)[1] for name, stage in stages.items()},
        "peak_gb": peak_gb(),
    }


def _show(record: dict[str, Any]) -> None:
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in record.items()}
    print(json.dumps(rounded), flush=True)


def _show_training(backbone: str) -> None:
    model = random_backbone(backbone, device="auto", dtype="bfloat16")
    for rows in (1, 16):
        _show(frozen_parts(model, rows))
    short, llava_like = training_workloads(1)
    for workload, batch_sizes in ((llava_like, (8, 16, 32, 64)), (short, (64,))):
        for size in batch_sizes:
            _show(training(model, dataclasses.replace(workload, batch_size=size, num_updates=4), epochs=3))


def main() -> None:
    """Measures what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["training", "answers"])
    parser.add_argument("backbone", choices=list(BACKBONES))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--quantize", choices=["8bit", "4bit"])
    given = parser.parse_args()
    if given.what == "training":
        _show_training(given.backbone)
        return
    if not given.folder.exists():
        write_folder(given.backbone, given.folder)
    _show(answers(given.folder, given.quantize))


if __name__ == "__main__":
    main()
