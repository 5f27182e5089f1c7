"""The small JSON files of a model or adapter folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlinstruct.errors import CheckpointError

_MAX_BYTES = 50_000_000  # a real tokenizer.json has 2-17 MB


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: the file is missing, too large, not UTF-8, no JSON or no object.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{path} is larger than {_MAX_BYTES} bytes: not a configuration file.")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.name} is missing in {path.parent}", advice="Give a complete model folder."
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is damaged: not valid JSON", advice="Download or copy it again.") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: a JSON object was expected, got {type(values).__name__}.")
    return values
