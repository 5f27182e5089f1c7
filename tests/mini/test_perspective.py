import numpy as np
import pytest

from vlinstruct.mini.draw import moved, pillow_coefficients
from vlinstruct.mini.scene import UNMOVED, Corners

TILTED: Corners = ((0.05, 0.02), (0.97, 0.06), (0.94, 0.99), (0.01, 0.93))


def test_corners_end_up_where_they_are_put() -> None:
    assert moved(np.array(UNMOVED), TILTED) == pytest.approx(np.array(TILTED))


def test_no_perspective_moves_nothing() -> None:
    points = np.array([[0.3, 0.8]])
    assert (moved(points, None) == points).all()
    assert moved(points, UNMOVED) == pytest.approx(points)


def test_pillows_coefficients_lead_back() -> None:
    a, b, c, d, e, f, g, h = pillow_coefficients(TILTED, (200, 100))
    x, y = moved(np.array([0.25, 0.6]), TILTED) * (200, 100)
    scale = g * x + h * y + 1
    assert ((a * x + b * y + c) / scale, (d * x + e * y + f) / scale) == pytest.approx((50, 60))
