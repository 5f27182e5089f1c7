"""`vlinstruct backbones`: the models that are known by name, and what one of them takes in memory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vlinstruct.cli.command import takes
from vlinstruct.cli.completion import backbone_names
from vlinstruct.cli.options import PrintOptions
from vlinstruct.cli.tables import Grid, Line, draw
from vlinstruct.cli.terminal import show_record, show_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vlinstruct.backends.memory import Footprint, MemoryPlan
    from vlinstruct.backends.registry import Backbone


@takes(PrintOptions)
def backbones(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A name, a folder or a cached hub id: plan its memory.",
            autocompletion=backbone_names,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Pictures that go through it together.")] = 1,
    prompt_tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Tokens of each instruction.")] = 128,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Tokens of each answer.")] = 64,
    *,
    printing: PrintOptions,
) -> None:
    """List the models known by name, or plan the memory of one.

    --backbone takes these names. With a NAME or a folder it says what fits, before anything is loaded.

    \b
    vlinstruct backbones flant5-xl
    """
    from vlinstruct.backends.registry import BACKBONES

    if name is not None:
        from vlinstruct.backends.memory import plan_memory

        plan = plan_memory(name, batch_size=batch_size, prompt_tokens=prompt_tokens, max_new_tokens=max_new_tokens)
        _show_plan(plan, printing.as_json)
        return
    records = [_record(backbone) for backbone in BACKBONES.values()]
    if printing.as_json:
        for record in records:
            show_record(record)
    elif sys.stdout.isatty():
        # What is here is asked at once, the others cost a download first.
        lines = [Line(cells=_cells(record), style="bold" if record["is_here"] else "") for record in records]
        draw(Grid(heads=_HEADS, lines=lines, numbers=(1, 2)))
    else:
        for cells in (_HEADS, *map(_cells, records)):
            show_report(_line(cells))


def _record(backbone: Backbone) -> dict[str, object]:
    from vlinstruct.backends.registry import is_cached

    return {
        "schema": "vlinstruct.backbone/1",
        "id": backbone.name,
        "status": "ok",
        "source": backbone.hub_id or "in this package",
        "parameters_billion": backbone.parameters,
        "download_gb": backbone.download_gb,
        "licence": backbone.licence,
        "is_here": is_cached(backbone),
    }


_HEADS = ("name", "weights", "download", "source", "licence")


def _cells(record: dict[str, object]) -> tuple[str, ...]:
    download = "here" if record["is_here"] else f"{record['download_gb']} GB"
    size = f"{record['parameters_billion']:>5} B"
    return (str(record["id"]), size, download, str(record["source"]), str(record["licence"]))


def _line(cells: tuple[str, ...]) -> str:
    name, size, download, source, licence = cells
    return f"{name:18} {size:>7} {download:>8} {source:42} {licence}"


def _show_plan(plan: MemoryPlan, as_json: bool) -> None:
    if not as_json and sys.stdout.isatty():
        heads, *rows = map(_plan_cells, (None, *plan.footprints))
        lines = [Line(cells=cells, style="dim" if cells[-1] == "-" else "") for cells in rows]
        draw(*_plan_facts(plan), Grid(heads=heads, lines=lines, numbers=(2, 3, 4, 5)))
        return
    if not as_json:
        show_report("\n".join(_plan_lines(plan)))
        return
    from dataclasses import asdict

    record: dict[str, object] = {"schema": "vlinstruct.memory_plan/1", "id": plan.backbone, "status": "ok"}
    settings = [{**asdict(footprint), "total_bytes": footprint.total_bytes} for footprint in plan.footprints]
    show_record(
        {
            **record,
            "parameters": plan.weights.parts,
            "media_tokens": plan.media_tokens,
            "free_bytes": plan.free,
            "settings": settings,
        }
    )


def _plan_lines(plan: MemoryPlan) -> Iterator[str]:
    yield from _plan_facts(plan)
    for dtype, quantize, weights, caches, activations, total, devices in map(_plan_cells, (None, *plan.footprints)):
        yield f"{dtype:10}{quantize:12}{weights:>11}{caches:>10}{activations:>13}{total:>11}  {devices}"


def _plan_facts(plan: MemoryPlan) -> Iterator[str]:
    parts = ", ".join(f"{part} {count / 1e6:,.1f} M" for part, count in plan.weights.parts.items())
    yield f"{plan.weights.total / 1e9:.2f} B parameters: {parts}"
    free = [f"{device} {'?' if size is None else _gb(size)}" for device, size in plan.free.items()]
    yield f"free here: {', '.join(free)}"
    load = plan.load
    at_once = f"{load.rows} x ({load.prompt_tokens} + {load.new_tokens}) tokens at once"
    yield f"{at_once}, {plan.media_tokens} more a picture; caches and activations are estimates"


def _plan_cells(footprint: Footprint | None) -> tuple[str, ...]:
    """Returns a line of the plan; None for the heads."""
    if footprint is None:
        return ("--dtype", "--quantize", "weights", "caches", "activations", "in all", "fits on")
    sizes = (footprint.weights_bytes, footprint.cache_bytes, footprint.activation_bytes, footprint.total_bytes)
    devices = ", ".join(footprint.fits_on) or "-"
    return (footprint.dtype, footprint.quantize or "-", *map(_gb, sizes), devices)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
