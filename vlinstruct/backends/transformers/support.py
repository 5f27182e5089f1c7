"""Can transformers run this model here: told by its settings alone, before its weights are downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def require_supported(folder: Path, config: Mapping[str, Any], *, name: str) -> None:
    """Refuses a model that transformers does not know, that lacks a processor, or that needs a missing package.

    Args:
        folder: with its settings; weights may be missing.
        config: the content of its config.json.
        name: what messages call it.

    Raises:
        CheckpointError: nothing here runs it.
        ResourceError: a package that it needs is not installed.
    """
