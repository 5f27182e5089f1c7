"""What the shell completes in place of a value: names that are known without a model, a network or torch.

Each function takes what was typed so far and returns the names that begin so; where none does, the shell takes files.
"""

from __future__ import annotations

import typer


def backbone_names(incomplete: str) -> list[str]:
    """Returns names of backbones; folders, hub ids and URLs are for the user to know."""
    from vlinstruct.backends.registry import BACKBONES

    return [name for name in BACKBONES if name.startswith(incomplete)]


def adapter_names(incomplete: str) -> list[str]:
    """Returns names of the adapters that ship."""
    from vlinstruct.backends.registry import ADAPTERS

    return [name for name in ADAPTERS if name.startswith(incomplete)]


def benchmark_names(incomplete: str) -> list[str]:
    """Returns names of official benchmarks, and those of mini's tasks where `mini/` was begun."""
    from vlinstruct.evaluation.benchmarks import BENCHMARKS

    names = [*BENCHMARKS, "mini", *(f"mini/{name}" for name in BENCHMARKS if incomplete.startswith("mini/"))]
    return [name for name in names if name.startswith(incomplete)]


def column_fields(ctx: typer.Context, incomplete: str) -> list[str]:
    """Returns the fields that a record may have, behind those that were typed: `image=file,question=`.

    bash, which parts words at `=`, asks for the first of them only.
    """
    from vlinstruct.records.items import ITEM_FIELDS
    from vlinstruct.training.data.reading import RECORD_FIELDS

    typed, comma, last = incomplete.rpartition(",")
    fields = RECORD_FIELDS if ctx.info_name == "finetune" else ITEM_FIELDS
    taken = {pair.partition("=")[0] for pair in typed.split(",")}
    return [f"{typed}{comma}{name}=" for name in fields if name.startswith(last) and name not in taken]
