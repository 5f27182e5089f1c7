"""`vlinstruct backbones`: the models that are known by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vlinstruct.cli.terminal import show

if TYPE_CHECKING:
    from vlinstruct.checkpoints.registry import Backbone


def backbones(
    as_json: Annotated[bool, typer.Option("--json", help="Print records as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """List the models that --backbone takes by name."""
    from vlinstruct.checkpoints.registry import BACKBONES
    from vlinstruct.data.records import json_line

    records = [_record(backbone) for backbone in BACKBONES.values()]
    lines = [json_line(record).decode().rstrip("\n") if as_json else _line(record) for record in records]
    show("\n".join(lines))


def _record(backbone: Backbone) -> dict[str, object]:
    from vlinstruct.checkpoints.registry import is_cached

    return {
        "schema": "vlinstruct.backbone/1",
        "id": backbone.name,
        "status": "ok",
        "source": backbone.hub_id or "in this package",
        "parameters_billion": backbone.parameters,
        "download_gb": backbone.download_gb,
        "is_here": is_cached(backbone),
    }


def _line(record: dict[str, object]) -> str:
    here = "here" if record["is_here"] else f"{record['download_gb']} GB to download"
    return f"{record['id']:11} {record['parameters_billion']:>6} B  {here:20} {record['source']}"
