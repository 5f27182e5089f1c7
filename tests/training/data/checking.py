"""Checks training data as `--check-data` does, for laws about what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlinstruct.training.data.checking import check_data


def problems_of(path: Path, *, image_root: Path | None, **more: Any) -> list[str]:
    """Returns what is wrong with the records, a line each."""
    return [problem.message for problem in check_data(path, image_root=image_root, **more).problems]
