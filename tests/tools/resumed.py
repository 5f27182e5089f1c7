"""Run by torchrun: a training of several processes, resumed after every update, ends with the same bits.

PYTHONPATH=tests torchrun --nproc-per-node 2 -m tools.resumed BACKBONE FOLDER
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from training.training_set import DROPPING, SETTINGS, job, model, result, samples, write_data

from vlinstruct.training.devices import Devices
from vlinstruct.training.job import Progress
from vlinstruct.training.train import train as run_training

WHOLE = replace(SETTINGS, **DROPPING, per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=12)


def train(backbone: Path, folder: Path, data: Path, devices: Devices, stop_after: int | None = None) -> None:
    """Trains to the end, or so many updates in this call."""
    begun = False
    done = 0

    def on_step(record: object) -> None:
        nonlocal done
        done += 1

    def should_stop() -> bool:
        return stop_after is not None and begun and done >= stop_after - 1

    def on_plan(*_: object) -> None:
        nonlocal begun
        begun = (folder / "features" / "features.json").exists()

    progress = Progress(on_step=on_step, on_plan=on_plan, should_stop=should_stop)
    wanted = job(model(backbone), samples(data), folder, WHOLE, validation=samples(data)[:3], resume=True)
    run_training(wanted, devices=devices, progress=progress)


def main() -> None:
    """Trains once in one go, then stops after every update in turn."""
    backbone, root = Path(sys.argv[1]), Path(sys.argv[2])
    devices = Devices(cpu=True)
    with devices.main_first():
        if devices.is_main:
            write_data(root / "data")
    train(backbone, root / "whole", root / "data", devices)
    for step in range(1, 12):
        folder = root / str(step)
        train(backbone, folder, root / "data", devices, stop_after=step)
        train(backbone, folder, root / "data", devices)
        if devices.is_main:
            whole, resumed = result(root / "whole"), result(folder)
            differing = [name for name in whole if whole[name] != resumed[name]]
            assert not differing, f"resumed after update {step}: {differing}"
            print(f"resumed after update {step}: the same {len(whole)} files", flush=True)
    devices.end()


if __name__ == "__main__":
    main()
