"""An adapter's model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def card(facts: Mapping[str, Any], learning: Mapping[str, int], *, name: str, backbone: str) -> str:
    """Returns the README.md of an adapter folder.

    Args:
        facts: the settings, the number of samples and of updates.
        learning: what learned, by name with its count.
        name: the title.
        backbone: what it was trained on, as people call it.
    """
    text = _CARD
    values = {"name": name, "backbone": backbone, "learning": _rows(learning), "settings": _rows(facts)}
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def _rows(values: Mapping[str, Any]) -> str:
    return "\n".join(f"| `{name}` | {value} |" for name, value in values.items())
