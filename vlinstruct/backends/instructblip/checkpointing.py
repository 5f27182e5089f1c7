"""Gradient checkpointing: a block's activations are computed anew in the backward pass, not kept until then.

Memory then grows by what goes into a block instead of all that happens in it; the price is a second forward pass. It
draws the random numbers of the first one, so that a dropout drops the same.

Source: Training Deep Nets with Sublinear Memory Cost (Chen et al., 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

Block = Callable[..., Any]


def checkpointed(blocks: Iterable[Block]) -> list[Block]:
    """Returns what runs each block and keeps only its inputs; no cache among them may be filled by a second run."""
    return [partial(checkpoint, block, use_reentrant=False) for block in blocks]
