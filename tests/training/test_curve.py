"""The curve of a training: smoothed without a lag that the first value causes, drawn without another package."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from vlinstruct.errors import DataError
from vlinstruct.training import curve
from vlinstruct.training.curve import as_svg, save_curve, smoothed


@pytest.mark.parametrize("count", [1, 2, 40, 80, 5000])
def test_smoothing_shows_what_is_there_whatever_the_length(count: int) -> None:
    assert smoothed([2.0] * count) == [2.0] * count
    falling = [10.0] * (count // 2) + [0.05] * (count - count // 2)
    smooth = smoothed(falling)
    assert min(falling) <= min(smooth) <= max(smooth) <= max(falling)
    assert smooth[-1] == pytest.approx(0.05, abs=0.001), "half a run later the high start is forgotten"
    assert smoothed([]) == []


def test_smoothing_takes_the_noise_from_a_long_run() -> None:
    noisy = [1.0 + (-1) ** number * 0.5 for number in range(2000)]
    smooth = smoothed(noisy)[100:]
    assert max(smooth) - min(smooth) < 0.02


@pytest.mark.parametrize(
    ("updates", "validations"),
    [
        ([], []),
        ([(1, 0.0)], []),
        ([(1, 2.5), (2, 2.5)], [(0, 2.5)]),
        ([(step, 1e-9 * step) for step in range(1, 9)], []),
        ([(step, 10.0 - step) for step in range(1, 9)], [(0, 3e7), (8, 1.0)]),
    ],
)
def test_every_point_lies_in_the_drawing(
    updates: list[tuple[float, float]], validations: list[tuple[float, float]]
) -> None:
    root = ElementTree.fromstring(as_svg(updates, validations))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    lines = root.findall("{*}polyline")
    assert len(lines) == 2 + bool(validations)
    points = [tuple(map(float, point.split(","))) for line in lines for point in line.attrib["points"].split()]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
    assert len(points) == 2 * len(updates) + len(validations)
    low = {y for (_, loss), (_, y) in zip(updates, points, strict=False) if loss == min((v for _, v in updates))}
    assert len(low) <= 1, "equal losses have equal heights"


def test_a_curve_is_drawn_anew_from_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        save_curve(tmp_path)
    lines = [{"step": 0, "eval_loss": 2.0}, {"step": 1, "loss": 1.0}, {"step": 2, "loss": None}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(sys, "argv", ["curve", str(tmp_path)])
    curve.main()
    assert "validation" in (tmp_path / "curve.svg").read_text()
    monkeypatch.setattr(sys, "argv", ["curve", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="error: cannot draw"):
        curve.main()
