"""A tiny training: five pictures, seven samples, a random model; a folder's result as bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

import vlinstruct as vli
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.training.data.conversations import TrainingSample, read_conversations
from vlinstruct.training.job import Job
from vlinstruct.training.settings import TrainingSettings

SETTINGS = TrainingSettings(
    learning_rate=1e-2,
    warmup_steps=2,
    num_train_epochs=4,
    max_steps=12,
    per_device_train_batch_size=1,
    gradient_accumulation_steps=2,
    save_steps=3,
    eval_steps=5,
)
# Everything that can learn, with random numbers in every update.
DROPPING: dict[str, Any] = {"lora": True, "lora_r": 2, "lora_dropout": 0.3, "learned_cmaa": True, "ln_vision": True}


def write_data(folder: Path) -> Path:
    """Seven samples over five pictures, so that the last batch of an epoch is a partial one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(5):
        if (folder / f"{number}.png").exists():
            continue
        Image.new("RGB", (30, 20), (40 * number, 90, 200 - 30 * number)).save(folder / f"{number}.png")
    records = [
        {"id": f"s{number}", "image": f"{number % 5}.png", "instruction": f"what is {number}?", "answer": "a" * length}
        for number, length in enumerate(range(1, 8))
    ]
    path = folder / "data.jsonl"
    if not path.exists():
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def samples(folder: Path) -> list[TrainingSample]:
    return read_conversations(write_data(folder), image_root=None)


def job(
    ours: InstructBlipBackend, learned: list[TrainingSample], folder: Path, settings: TrainingSettings, **more: Any
) -> Job:
    return Job(backend=ours, samples=learned, folder=folder, settings=settings, backbone="tiny", weights="w", **more)


def model(folder: Path) -> InstructBlipBackend:
    return vli.load(str(folder), device="cpu").backend


def result(folder: Path) -> dict[str, bytes]:
    """Everything that must be the same however often the training was stopped."""
    last = max((folder / "checkpoints").glob("step-*"))
    files = [folder / "log.jsonl", *folder.glob("*.safetensors"), *folder.glob("lora/*.safetensors")]
    files += [*folder.glob("best/**/*.safetensors"), *last.glob("*.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
