"""A language model that computes its logits as ever and then favours the next token of a script.

Legend: B rows, S fed tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlinstruct.backends.instructblip.language_model import DecoderState, LanguageModel

_CERTAIN = 1e4


class ReplayedState:
    """A state, and how many tokens each row has written into it."""

    def __init__(self, state: DecoderState, script: Sequence[int], num_rows: int) -> None:
        self.state = state
        self.script = script
        self.written = [0] * num_rows

    def drop(self, counts: Sequence[int]) -> None:
        self.state.drop(counts)
        self.written = [written - count for written, count in zip(self.written, counts, strict=True)]

    def select(self, rows: Tensor) -> None:
        self.state.select(rows)
        self.written = [self.written[row] for row in rows.tolist()]


class ReplayedLanguageModel(LanguageModel):
    """Wraps a language model.

    Args:
        language_model: computes.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__()
        self.inner = language_model
        self.scripts: list[Sequence[int]] = []

    def replay(self, scripts: Sequence[Sequence[int]]) -> None:
        """Lays down what the next texts will be, ids with their end token, one script per call of `generate`."""
        self.scripts = list(scripts)

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        return self.inner.embed_tokens(input_ids)

    def prefill(
        self, inputs_embeds: Tensor, attention_mask: Tensor, draft_ids: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        logits, state = self.inner.prefill(inputs_embeds, attention_mask, draft_ids)
        replayed = ReplayedState(state, self.scripts.pop(0), len(logits))
        favour(logits, replayed.script, replayed.written)
        replayed.written = [logits.shape[1] - 1] * len(logits)
        return logits, replayed

    def decode(self, input_ids: Tensor, state: DecoderState) -> Tensor:
        assert isinstance(state, ReplayedState)
        logits = self.inner.decode(input_ids, state.state)
        favour(logits, state.script, [written + 1 for written in state.written])
        state.written = [written + input_ids.shape[1] for written in state.written]
        return logits

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        return self.inner.target_logits(inputs_embeds, attention_mask, target_ids)


def favour(logits: Tensor, script: Sequence[int], starts: Sequence[int]) -> None:
    """Makes the script's tokens the likeliest, in place.

    Args:
        logits: (B, S, V).
        script: ids; behind its end, its last one.
        starts: per row, which of the script's tokens the first logits are for.
    """
    num_new = logits.shape[1]
    wanted = [[script[min(start + i, len(script) - 1)] for i in range(num_new)] for start in starts]
    logits.scatter_(2, torch.tensor(wanted, device=logits.device)[..., None], _CERTAIN)


class ScriptedLogits:
    """The same for transformers' `generate`: a logits processor.

    Args:
        script: ids; behind its end, its last one.
    """

    def __init__(self, script: Sequence[int]) -> None:
        self.script = script
        self.written = 0

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        favour(scores[:, None], self.script, [self.written] * len(scores))
        self.written += 1
        return scores
