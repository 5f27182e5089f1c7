"""What a training leaves in its folder for those who use it: adapter, model card, curve of the log, settings.

The adapter comes last: where its `alignment_config.json` stands, everything else does, and `--resume` has nothing to
do.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlinstruct.backends.instructblip.adapter import save_adapter
from vlinstruct.files import written_atomically
from vlinstruct.training.job import Finetuned, Job, Plan, Progress
from vlinstruct.training.state import read_log

_SMOOTHING = 0.95
_CARD = """---
library_name: vlinstruct
pipeline_tag: image-text-to-text
tags:
- instructblip
- vislinginstruct
---

# {name}

Alignment layers for `{backbone}`, trained with `vlinstruct finetune` (VisLingInstruct, section 3.1).

    vlinstruct ask IMAGE QUESTION --backbone {backbone} --adapter FOLDER

The backbone and the training data have licences of their own.

| what learned | numbers |
|---|---|
{learning}

| setting | value |
|---|---|
{settings}

`log.jsonl` holds the loss of every update.
"""


def write_settings(job: Job) -> None:
    """Writes the settings as a file for `--config`."""
    import yaml

    with written_atomically(job.folder / "settings.yaml") as path:
        path.write_text(yaml.safe_dump(asdict(job.settings), sort_keys=False), encoding="utf-8")


def finish(job: Job, plan: Plan, outcome: Finetuned, progress: Progress) -> None:
    """Writes the curve, the card and, last, the adapter of a training that is through."""
    notice = save_curve(job.folder / "log.jsonl", job.folder / "curve.png")
    if notice is not None:
        progress.notify(notice)
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
    values = {"name": name, "backbone": backbone, "learning": _rows(learning), "settings": _rows(facts)}
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def _rows(values: Mapping[str, Any]) -> str:
    return "\n".join(f"| `{name}` | {value} |" for name, value in values.items())


def smoothed(values: list[float]) -> list[float]:
    """Returns the exponential moving average.

    >>> smoothed([1.0, 1.0, 0.0])
    [1.0, 1.0, 0.95]
    """
    smooth = values[:1]
    for value in values[1:]:
        smooth.append(_SMOOTHING * smooth[-1] + (1 - _SMOOTHING) * value)
    return smooth


def save_curve(log: Path, picture: Path) -> str | None:
    """Draws a training's log.

    Args:
        log: its JSON lines.
        picture: the PNG to write.

    Returns:
        What a user should know where it cannot be drawn.

    Raises:
        ResourceError: it cannot be written.
        DataError: the log is none.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return f"{picture.name} was not drawn, it needs matplotlib: pip install 'vlinstruct[plots]'."
    from matplotlib.figure import Figure

    records = read_log(log)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    _draw(figure.subplots(), records)
    with written_atomically(picture) as path:
        # matplotlib would write its version into the file: equal curves are to be equal bytes.
        figure.savefig(path, dpi=120, format="png", metadata={"Software": None})
    return None


def _draw(axes: Any, records: list[dict[str, Any]]) -> None:
    updates = [record for record in records if record.get("loss") is not None]
    validations = [record for record in records if "eval_loss" in record]
    steps, losses = [record["step"] for record in updates], [record["loss"] for record in updates]
    axes.plot(steps, losses, color="#c6d9ec", linewidth=0.8, label="update")
    axes.plot(steps, smoothed(losses), color="#1f77b4", label=f"update, smoothed ({_SMOOTHING})")
    if validations:
        places, values = zip(*((record["step"], record["eval_loss"]) for record in validations), strict=True)
        axes.plot(places, values, "o-", color="#d62728", markersize=4, label="validation")
    axes.set_xlabel("update")
    axes.set_ylabel("loss, nats per answer token")
    axes.grid(alpha=0.3)
    axes.legend()
