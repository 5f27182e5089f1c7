"""What a training leaves in its folder for those who use it: adapter, card, curve, settings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlinstruct.backends.instructblip.adapter import save_adapter
from vlinstruct.files import written_atomically
from vlinstruct.training.card import card
from vlinstruct.training.curve import save_curve
from vlinstruct.training.job import Finetuned, Job, Progress
from vlinstruct.training.plan import Plan


def write_settings(job: Job) -> None:
    """Writes the settings as a file for `--config`."""
    import yaml

    with written_atomically(job.folder / "settings.yaml") as path:
        path.write_text(yaml.safe_dump(asdict(job.config), sort_keys=False), encoding="utf-8")


def finish(job: Job, planned: Plan, outcome: Finetuned, progress: Progress) -> None:
    """Writes the curve, the card and, last, the adapter of a training that is through."""
    notice = save_curve(job.folder / "log.jsonl", job.folder / "curve.png")
    if notice is not None:
        progress.notify(notice)
    facts = {**_facts(job, planned), "best_step": outcome.best_step, "best_eval_loss": outcome.best_loss}
    text = card(facts, planned.learning, name=job.folder.resolve().name, backbone=job.backbone)
    with written_atomically(job.folder / "README.md") as path:
        path.write_text(text, encoding="utf-8")
    save(job, job.folder, planned)


def save(job: Job, folder: Path, planned: Plan) -> None:
    """Writes what was learned so far as an adapter."""
    config = job.config
    facts = _facts(job, planned)
    save_adapter(folder, job.model.network, layers=config.layers, lora=config.lora, training=facts)


def _facts(job: Job, planned: Plan) -> dict[str, Any]:
    counts = {"num_samples": planned.num_samples, "num_steps": planned.num_steps, "batch_size": planned.batch_size}
    base = {"backbone": job.backbone, "weights": job.weights}
    base |= {} if job.revision is None else {"revision": job.revision}
    return {**base, **asdict(job.config), **counts}
