"""The rows of a table: the backbone as it is, and with the adapters that were named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlinstruct.backends.registry import BACKBONES, DEFAULT_BACKBONE
from vlinstruct.errors import UsageError
from vlinstruct.evaluation.benchmarks.selection import Kind


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row.

    Args:
        name: what it is called.
        adapter: what is put onto the backbone; None for nothing.
    """

    name: str
    adapter: str | None = None


_VANILLA = Row(name="vanilla")


def _shipped(backbone: str) -> Sequence[Row]:
    """Returns the rows of what ships for a backbone; for one that is not of this package, mini's."""
    known = BACKBONES.get(backbone)
    name = backbone if known is not None and known.is_built_in else DEFAULT_BACKBONE
    return (
        _VANILLA,
        Row(name="projection", adapter=f"{name}-projection"),
        Row(name="EMA", adapter=f"{name}-ema"),
    )


def rows(kind: Kind, *, ablation: bool, adapters: Sequence[str], backbone: str) -> Sequence[Row]:
    """Returns a table's rows.

    Args:
        kind: mini's table or the official benchmarks'.
        ablation: whether the backbone without an adapter has a row beside those of the adapters.
        adapters: folders or names; under `ablation` those that ship with the backbone if none is given.
        backbone: as it was named.

    Raises:
        UsageError: the options contradict each other.
    """
    named = [Row(name=one, adapter=one) for one in adapters]
    if not ablation:
        if len(named) > 1:
            raise UsageError("--adapter is given twice: with --ablation each has a row of its own.")
        return named or [_VANILLA]
    known = BACKBONES.get(backbone)
    if not named and kind == "official" and not (known is not None and known.is_built_in):
        raise UsageError("--ablation compares adapters: name at least one with --adapter.")
    if len({_VANILLA.name, *adapters}) <= len(adapters):
        raise UsageError("--adapter: two rows would have one name.")
    return [_VANILLA, *named] if named else _shipped(backbone)
