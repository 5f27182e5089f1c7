"""An adapter's model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CARD = """---
library_name: vlinstruct
pipeline_tag: image-text-to-text
tags:
- instructblip
- vislinginstruct
---

# Alignment layers

Trained with `vlinstruct finetune` (VisLingInstruct, section 3.1); load them with `--adapter FOLDER`. The backbone and
the training data have licences of their own.

| what learned | numbers |
|---|---|
{learning}

| setting | value |
|---|---|
{settings}

`log.jsonl` holds the loss of every update.
"""


def card(facts: Mapping[str, Any], learning: Mapping[str, int], folder: str) -> str:
    """Returns the README.md of an adapter folder.

    Args:
        facts: the settings, the number of samples and of updates.
        learning: what learned, by name with its count.
        folder: whose name is the title.
    """
    rows = {"learning": _rows(learning), "settings": _rows(facts)}
    text = _CARD.replace("# Alignment layers", f"# {Path(folder).resolve().name}", 1)
    for name, value in rows.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _rows(values: Mapping[str, Any]) -> str:
    return "\n".join(f"| `{name}` | {value} |" for name, value in values.items())
