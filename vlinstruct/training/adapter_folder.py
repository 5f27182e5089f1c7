"""What a training leaves in its folder for those who use it: adapter, model card, curve of the log, settings.

The adapter comes last: where its `alignment_config.json` stands, everything else does, and `--resume` has nothing to
do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlinstruct.backends.instructblip.adapter import CONFIG_FILE, save_adapter
from vlinstruct.files import written_atomically
from vlinstruct.training.curve import CURVE_FILE, save_curve
from vlinstruct.training.experiment import SETTINGS_FILE, write_experiment
from vlinstruct.training.job import Finetuned, Job, Plan

LOCK_FILE = ".lock"
_OURS = (
    CONFIG_FILE,
    "alignment.safetensors",
    "lora",
    "best",
    "checkpoints",
    "log.jsonl",
    SETTINGS_FILE,
    "README.md",
    CURVE_FILE,
    "curve.png",  # of 0.1.0
)
_CARD = """---
library_name: vlinstruct
pipeline_tag: image-text-to-text
tags:
- instructblip
- vislinginstruct
---

# {name}

Alignment layers for `{backbone}`, trained with `vlinstruct finetune` (VisLingInstruct, section 3.1).

    vlinstruct ask IMAGE QUESTION --backbone {backbone} --adapter FOLDER{quantize}

The backbone and the training data have licences of their own.

| what learned | numbers |
|---|---|
{learning}

| setting | value |
|---|---|
{settings}

`log.jsonl` holds the loss of every update, `curve.svg` draws them.
"""


def write_settings(job: Job) -> None:
    """Writes what was asked for as a file for `--config`, and for `--resume` alone."""
    write_experiment(job.folder / SETTINGS_FILE, job.source, job.settings)


def holds_run(folder: Path) -> bool:
    """Says whether a training has written into a folder, or has made an adapter of it."""
    return any((folder / name).exists() for name in (CONFIG_FILE, "checkpoints", LOCK_FILE))


def foreign_files(folder: Path) -> list[str]:
    """Returns what stands in a folder under the names of a training's files, and is of no training."""
    return [] if holds_run(folder) else [name for name in _OURS if os.path.lexists(folder / name)]


def remove_run(folder: Path) -> None:
    """Removes an earlier run's files, and nothing else; its frozen features stay, which a new run may share."""
    for name in _OURS:  # the adapter's configuration first: what is left of a killed removal is no adapter
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def finish(job: Job, plan: Plan, outcome: Finetuned) -> None:
    """Writes the curve, the card and, last, the adapter of a training that is through."""
    save_curve(job.folder)
    facts = {**_facts(job, plan), "best_step": outcome.best_step, "best_eval_loss": outcome.best_loss}
    text = card(facts, plan.learning, name=job.folder.resolve().name, backbone=job.backbone)
    with written_atomically(job.folder / "README.md") as path:
        path.write_text(text, encoding="utf-8")
    save(job, job.folder, plan)


def save(job: Job, folder: Path, plan: Plan) -> None:
    """Writes what was learned so far as an adapter."""
    settings, facts = job.settings, _facts(job, plan)
    save_adapter(folder, job.backend.network, layers=settings.layers, lora=settings.lora, training=facts)


def _facts(job: Job, plan: Plan) -> dict[str, Any]:
    counts = {"num_samples": plan.num_samples, "num_steps": plan.num_steps, "batch_size": plan.batch_size}
    base = {"backbone": job.backbone, "weights": job.weights}
    base |= {} if job.revision is None else {"revision": job.revision}
    return {**base, **asdict(job.settings), **counts}


def card(facts: Mapping[str, Any], learning: Mapping[str, int], *, name: str, backbone: str) -> str:
    """Returns the README.md of an adapter folder.

    Args:
        facts: the settings, the number of samples and of updates.
        learning: what learned, by name with its count.
        name: the title.
        backbone: what it was trained on, as people call it.
    """
    # Replaced, not formatted: a folder's name may hold braces.
    text = _CARD
    quantize = f" --quantize {facts['quantize']}" if facts.get("quantize") else ""
    values = {
        "name": name,
        "backbone": backbone,
        "quantize": quantize,
        "learning": _rows(learning),
        "settings": _rows(facts),
    }
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def _rows(values: Mapping[str, Any]) -> str:
    return "\n".join(f"| `{name}` | {value} |" for name, value in values.items())
