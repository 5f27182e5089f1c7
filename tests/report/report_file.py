"""What a report holds, read as its own script reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def blocks(path: Path) -> dict[str, list[Any]]:
    """Returns the items, previews and maps of a report, an entry for each item."""
    page = path.read_text(encoding="utf-8")
    return {name: [json.loads(line) for line in _lines(page, name)] for name in ("items", "previews", "maps")}


def _lines(page: str, name: str) -> list[str]:
    block = page.partition(f'<script type="text/plain" id="{name}">\n')[2].partition("</script>")[0]
    return block.split("\n")[:-1]
