"""The log as a picture: the loss of every update, smoothed, and of every validation."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from vlinstruct.files import written_atomically

_SMOOTHING = 0.95


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
    """
    if importlib.util.find_spec("matplotlib") is None:
        return f"{picture.name} was not drawn, it needs matplotlib: pip install 'vlinstruct[plots]'."
    from matplotlib.figure import Figure

    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    _draw(figure.subplots(), records)
    with written_atomically(picture) as path:
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
