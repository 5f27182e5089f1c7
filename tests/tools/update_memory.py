"""Prints what one update of a training takes in memory beside the weights, of 147 million (T5) or 135 million (Llama).

    PYTHONPATH=tests python -m tools.update_memory llama --batch-size 16

A process of its own, since its peak does not fall again: resident memory at its highest above that before the update,
of samples of LLaVA-like lengths, on a CPU in float32. Linux alone tells it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

from bench.instructblip_shapes import TEXT, config_of

from vlinstruct.bench.models import random_backbone
from vlinstruct.bench.training import OurTraining, training_config
from vlinstruct.bench.workload import draw_samples, training_workloads
from vlinstruct.training.state import Log


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Measures what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=TEXT)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config_of(options.kind)), encoding="utf-8")
        model = random_backbone(str(folder), device="cpu", dtype="float32")
        _, llava_like = training_workloads(options.batch_size)
        workload = dataclasses.replace(llava_like, num_updates=1)
        samples, settings = draw_samples(workload, model, folder), training_config(options.batch_size, ema=True)
        training = OurTraining(model, samples, folder / "training", settings)
        with Log(folder / "log.jsonl", last_step=0, last_validation=0) as log:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest so far is forgotten
            before, began = _status_bytes("VmRSS"), time.perf_counter()
            training.advance(log)
            seconds, peak = time.perf_counter() - began, _status_bytes("VmHWM") - before
    print(json.dumps({"kind": options.kind, "batch_size": options.batch_size, "peak_bytes": peak, "seconds": seconds}))


if __name__ == "__main__":
    main()
