"""What the losses know of a language model: how it predicts a target, and what is recorded while it does.

Contexts are laid out as in `Rows`, padded on the right, whatever the model makes of them.

Legend: R rows, C context positions (queries, then prompt), S target tokens, H guided heads, L width, V vocabulary.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a language model did, call by call.

    Args:
        copying: log-probabilities (R, H, S, C) of what is attended to when each target token is predicted; the guided
            layers of a call, then those of the next.
        looking: log-probabilities (R, C, C) of the guided head's attention within the context; likewise.
        encoded: (R, C, L), what is known of the context above the layers that look; one a call.
    """

    copying: list[Tensor] = field(default_factory=list)
    looking: list[Tensor] = field(default_factory=list)
    encoded: list[Tensor] = field(default_factory=list)


class LanguageGuide(Protocol):
    """One kind of language model, as the losses see it."""

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        """Returns (R, S, V).

        Args:
            inputs_embeds: (R, C, L).
            attention_mask: (R, C), nonzero where a position is no padding.
            target_ids: (R, S).
        """
        ...

    def recording(self) -> AbstractContextManager[Recorded]:
        """Records what `target_logits` does until the block ends."""
        ...
