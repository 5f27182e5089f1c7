"""Mild perspective: where the four corners of a drawn picture end up, and where every point in it does.

Coordinates are fractions of the picture's width and height, so that one warp serves every size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Corners = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]

UNMOVED: Corners = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


@lru_cache(maxsize=256)
def homography(corners: Corners) -> NDArray[np.float64]:
    """Returns the (3, 3) matrix that takes UNMOVED to `corners`, in homogeneous coordinates.

    >>> homography(UNMOVED).round(6).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    rows, targets = [], []
    for (x, y), (u, v) in zip(UNMOVED, corners, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        targets += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(targets)), 1.0).reshape(3, 3)


def moved(points: NDArray[np.float64], corners: Corners | None) -> NDArray[np.float64]:
    """Returns where points (..., 2) end up; None moves nothing."""
    if corners is None:
        return points
    homogeneous = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ homography(corners).T
    return homogeneous[..., :2] / homogeneous[..., 2:]


def pillow_coefficients(corners: Corners, size: tuple[int, int]) -> tuple[float, ...]:
    """Returns what `Image.transform` takes for this warp: eight numbers that lead from the new pixels to the old."""
    to_pixels = np.diag([size[0], size[1], 1.0])
    inverse = to_pixels @ np.linalg.inv(homography(corners)) @ np.linalg.inv(to_pixels)
    return tuple((inverse / inverse[2, 2]).flatten()[:8].tolist())
