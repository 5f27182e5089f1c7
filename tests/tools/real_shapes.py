"""What training and answering cost at a backbone's real shapes, with random weights: for an accelerator.

PYTHONPATH=tests python -m tools.real_shapes training flant5-xl [--small]
PYTHONPATH=tests python -m tools.real_shapes graphs flant5-xl
PYTHONPATH=tests python -m tools.real_shapes answers vicuna-7b --folder FOLDER [--quantize 4bit]
PYTHONPATH=tests python -m tools.real_shapes table RESULTS

`training` is ours alone, at several batch sizes; `vlinstruct bench --training` has transformers beside it. `graphs`
says how far what CUDA graphs replay lies from what is computed anew; `vlinstruct bench --compile` times them.
`answers` writes FOLDER where it is missing, and loads it as any other. All print a JSON line per measurement, at once.
`accelerator.sh` runs them and bench, and prints its results with `table`. REAL_SHAPES.md has what was printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import torch

import vlinstruct
from vlinstruct.backend import Row, Written
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.recordings import Recordings, record_on_cuda
from vlinstruct.backends.registry import BACKBONES, instructblip_backbones, mini_folder
from vlinstruct.bench.models import random_backbone
from vlinstruct.bench.timing import picture
from vlinstruct.bench.training import OurTraining, training_config
from vlinstruct.bench.workload import TrainingWorkload, draw_samples, training_workloads
from vlinstruct.conversion.shard_writer import write_shards
from vlinstruct.conversion.weights import stored
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import TokenScores, good

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
    """Returns the speed of later epochs with EMA; the features stay zero, as no speed depends on their values."""
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


def graphs(model: InstructBlipBackend, recordings: Recordings) -> dict[str, Any]:
    """Returns how far replayed scores and texts lie from those computed anew: nats of a token, and texts alike."""
    questions, settings = ("What is in the picture?", "Say in one sentence what there is."), GenerationSettings()

    def measured() -> tuple[list[TokenScores], list[Written]]:
        (seen,) = map(good, model.see([picture()]))
        rows = [Row(prompt=text, seen=(seen,), reads=text, guess=guess) for text in questions for guess in ("", text)]
        scores = model.score(rows, [[row.prompt] for row in rows])
        # One by one: beside a row with a guess, one without is drafted, too.
        return [good(row)[0] for row in scores], [good(model.write([row], settings)[0]) for row in rows]

    plain_scores, plain_texts = measured()
    model.recordings = recordings
    measured()  # records
    scores, texts = measured()
    model.recordings = None
    # Behind another token all others differ.
    alike = [(plain, text) for plain, text in zip(plain_texts, texts, strict=True) if plain.text == text.text]
    compared = [*zip(plain_scores, scores, strict=True), *alike]
    return {
        "is_recorded": not recordings.is_broken,
        "replays": recordings.num_replays,
        "texts_alike": len(alike) / len(texts),
        "largest_difference_nats": max(
            abs(a - b)
            for plain, replayed in compared
            for a, b in zip(plain.token_nll or (), replayed.token_nll or (), strict=True)
        ),
    }


def write_folder(backbone: str, folder: Path, device: str = "auto") -> None:
    """Writes a backbone's shapes with random bfloat16 weights and mini's tokenizers."""
    model = random_backbone(backbone, device=device, dtype="bfloat16").network
    shutil.copytree(mini_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors", "preprocessor_config.json"))
    (folder / "config.json").write_text(json.dumps(BACKBONES[backbone].config()), encoding="utf-8")
    weights = {name: stored(tensor.cpu()) for name, tensor in model.state_dict().items()}
    write_shards(folder, weights, max_shard_bytes=_SHARD_BYTES, on_shard=lambda number, total: None)


def answers(folder: Path, quantize: Any, device: str = "auto") -> dict[str, Any]:
    """Returns the seconds until a first answer and of what follows, with the peak memory."""
    image, generation = picture(), GenerationSettings(max_new_tokens=10)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()  # the folder may have been written by this process
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


def _show_training(backbone: str, *, small: bool) -> None:
    model = random_backbone(backbone, device="auto", dtype="bfloat16")
    for rows in (1, 2 if small else 16):
        _show(frozen_parts(model, rows))
    short, llava_like = training_workloads(1)
    long_batches, short_batches = ((1, 2), (2,)) if small else ((8, 16, 32, 64), (64,))
    for workload, batch_sizes in ((llava_like, long_batches), (short, short_batches)):
        for size in batch_sizes:
            updates = 1 if small else 4
            _show(training(model, dataclasses.replace(workload, batch_size=size, num_updates=updates), epochs=3))


def table(lines: Iterable[str]) -> Iterator[str]:
    """Yields what `accelerator.sh` prints last: a line per step, and below it one per measurement.

    Args:
        lines: JSON; the measurements of a step, then the step with its exit code and seconds.
    """
    records: list[dict[str, Any]] = []
    for line in lines:
        record = json.loads(line)
        if "exit_code" not in record:
            records.append(record)
            continue
        outcome = "ok" if record["exit_code"] == 0 else f"failed with exit code {record['exit_code']}"
        yield f"{record['step']}: {outcome}, {record['seconds']} s"
        for measured in records:
            yield from (f"  {row}" for row in _rows(measured))
        records = []


def _rows(record: dict[str, Any]) -> Iterator[str]:
    """Yields the medians of a record of `vlinstruct bench`, or the fields of one of ours."""
    schema = record.get("schema", "")
    if schema == "vlinstruct.bench/1":
        for one in record["comparisons"]:
            share = f"{100 * one['acceptance']:.0f} % of drafts right"
            yield f"batch {one['batch']}, answers of {one['answer_tokens']} tokens, {share}: {_medians(one['seconds'])}"
    elif schema == "vlinstruct.bench.any_vlm/1":
        for one in record["comparisons"]:
            yield f"batch {one['batch']}, answers of {one['answer_tokens']} tokens: {_medians(one['seconds'])}"
            for what in ("peak_bytes", "cache_bytes"):
                sizes = ", ".join(f"{arm} {size / _GB:.2f} GB" for arm, size in one[what].items())
                yield f"  {what.replace('_bytes', '')}: {sizes or 'not told'}"
            texts = "the same texts" if one["has_same_texts"] else "different texts"
            yield f"  {texts}, likelihoods within {one['largest_difference']:.0e} nats"
    elif schema == "vlinstruct.bench.training/1":
        for one in record["trainings"]:
            speeds = ", ".join(f"{arm} {speed:.1f}" for arm, speed in one["median_samples_per_s"].items())
            yield f"{one['lengths']}, batches of {one['batch']}, samples/s: {speeds}"
    elif schema == "vlinstruct.bench.ranking/1":
        yield f"{record['candidates']} candidates: {_medians(record['seconds'])}"
    elif schema == "vlinstruct.doctor/1":
        told = [finding for finding in record["findings"] if finding["level"] != "ok" or finding["check"] == "gpu"]
        yield from (f"{finding['level']}, {finding['check']}: {finding['found']}" for finding in told)
    else:
        yield ", ".join(f"{name} {value}" for name, value in record.items())


def _medians(seconds: dict[str, list[float]]) -> str:
    return ", ".join(f"{arm} {1e3 * statistics.median(runs):.1f} ms" for arm, runs in seconds.items())


def main() -> None:
    """Measures what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("training", "graphs", "answers"):
        command = commands.add_parser(name)
        command.add_argument("backbone", choices=[backbone.name for backbone in instructblip_backbones()])
    commands.choices["training"].add_argument("--small", action="store_true", help="small batches, for a CPU")
    commands.choices["answers"].add_argument("--folder", type=Path, required=True)
    commands.choices["answers"].add_argument("--quantize", choices=["8bit", "4bit"])
    commands.add_parser("table").add_argument("results", type=Path)
    options = parser.parse_args()
    if options.command == "training":
        _show_training(options.backbone, small=options.small)
    elif options.command == "graphs":
        if torch.cuda.is_available():
            _show(
                graphs(
                    random_backbone(options.backbone, device="cuda", dtype="bfloat16"),
                    Recordings(record_on_cuda),
                )
            )
        else:
            _show({"is_recorded": False, "why": "no CUDA device"})
    elif options.command == "table":
        print("\n".join(table(options.results.read_text(encoding="utf-8").splitlines())))
    else:
        if not options.folder.exists():
            write_folder(options.backbone, options.folder)
        _show(answers(options.folder, options.quantize))


if __name__ == "__main__":
    main()
