"""Beam search, equal to transformers' with `early_stopping=False`.

A beam that ends is kept as a finished text with its log-likelihood divided by length^length_penalty; a row is done when
its best open beam, so divided, could not enter its N finished texts any more.

Legend: B rows, N beams, V vocabulary, K candidates per row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlinstruct.backends.instructblip.language_model import Context, LanguageModel
from vlinstruct.backends.instructblip.logits import penalize_repetition, require_finite, seen_tokens
from vlinstruct.settings import GenerationSettings

_IMPOSSIBLE = -1e9  # transformers' value: a finite one, so that sums of it stay ordered


class FinishedTexts:
    """The best N ended beams of one row, best first."""

    def __init__(self, num_beams: int) -> None:
        self.num_beams = num_beams
        self.entries: list[tuple[float, list[int]]] = []
        self.is_done = False

    def add(self, score: float, ids: list[int]) -> None:
        """Offers an ended beam; the row ignores it when it is done or the beam is worse than the N it has."""
        if not self.is_done:
            self.entries = sorted([*self.entries, (score, ids)], key=lambda entry: -entry[0])[: self.num_beams]

    def settle(self, best_open_score: float) -> None:
        """Marks the row done when no open beam can improve it."""
        is_full = len(self.entries) == self.num_beams
        self.is_done = self.is_done or (is_full and best_open_score <= self.entries[-1][0])


class Beams:
    """The open beams of all rows.

    Args:
        num_rows: B.
        config: beams, penalties and the longest text.
        stop_ids: ids that end a text.
        device: where the model computes.
    """

    def __init__(
        self, num_rows: int, config: GenerationSettings, stop_ids: Sequence[int], device: torch.device
    ) -> None:
        self.config = config
        self.stop_ids = torch.tensor(stop_ids, device=device)
        self.num_candidates = (1 + len(stop_ids)) * config.num_beams  # enough open ones even if all others end
        self.ids = torch.empty(num_rows, config.num_beams, 0, dtype=torch.long, device=device)
        self.scores = torch.full((num_rows, config.num_beams), _IMPOSSIBLE, device=device)
        self.scores[:, 0] = 0.0  # all beams start equal: only the first one counts
        self.finished = [FinishedTexts(config.num_beams) for _ in range(num_rows)]

    def advance(self, log_probs: Tensor) -> Tensor:
        """Takes one step.

        Args:
            log_probs: log-probabilities of every beam's next token, (B, N, V).

        Returns:
            For every new beam, the row of B*N that it continues, (B*N,).
        """
        num_rows, num_beams, vocabulary = log_probs.shape
        scores, flat = (log_probs + self.scores[..., None]).flatten(1).topk(self.num_candidates)  # (B, K)
        parents, tokens = flat // vocabulary, flat % vocabulary
        ids = torch.cat([self.ids.take_along_dim(parents[..., None], 1), tokens[..., None]], dim=2)
        is_last_step = ids.shape[2] == self.config.max_new_tokens
        is_ended = torch.isin(tokens, self.stop_ids) | is_last_step
        self._finish(scores, ids, is_ended)
        open_scores, order = (scores + is_ended * _IMPOSSIBLE).topk(num_beams)
        self.scores, self.ids = open_scores, ids.take_along_dim(order[..., None], 1)
        self._settle(is_last_step)
        first_beams = torch.arange(num_rows, device=flat.device)[:, None] * num_beams
        return (first_beams + parents.take_along_dim(order, 1)).flatten()

    def _finish(self, scores: Tensor, ids: Tensor, is_ended: Tensor) -> None:
        """Keeps the ended ones among the first N candidates; the others are only there to go on with."""
        length_norm = ids.shape[2] ** self.config.length_penalty
        for row, candidate in is_ended[:, : self.config.num_beams].nonzero().tolist():
            self.finished[row].add(float(scores[row, candidate]) / length_norm, ids[row, candidate].tolist())

    def _settle(self, is_last_step: bool) -> None:
        length_norm = self.ids.shape[2] ** self.config.length_penalty
        for row, finished in enumerate(self.finished):
            finished.settle(float(self.scores[row, 0]) / length_norm)
            finished.is_done |= is_last_step

    @property
    def is_done(self) -> bool:
        """Whether no row can improve."""
        return all(finished.is_done for finished in self.finished)

    def best(self) -> list[list[int]]:
        """The best finished text of every row, its stop id included."""
        return [finished.entries[0][1] for finished in self.finished]


def beam_search(
    language_model: LanguageModel, context: Context, config: GenerationSettings, stop_ids: Sequence[int]
) -> list[list[int]]:
    """Returns the best text of every row as ids, the stop id included.

    Args:
        language_model: the model.
        context: what it reads first.
        config: `num_beams`, `max_new_tokens`, `length_penalty`, `repetition_penalty`.
        stop_ids: ids that end a text.
    """
    first_logits, state = language_model.prefill(context.inputs_embeds, context.attention_mask)
    logits = first_logits[:, -1]
    num_beams = config.num_beams
    first = torch.arange(len(logits), device=logits.device).repeat_interleave(num_beams)
    beams = Beams(len(logits), config, stop_ids, logits.device)
    seen = seen_tokens(context.seen_ids, logits)[first]
    logits = logits[first]
    state.select(first)
    while True:
        require_finite(logits)
        log_probs = penalize_repetition(logits.float().log_softmax(dim=-1), seen, config.repetition_penalty)
        parents = beams.advance(log_probs.view(-1, num_beams, log_probs.shape[-1]))
        if beams.is_done:
            return beams.best()
        last_ids = beams.ids[..., -1].flatten()
        seen = seen[parents].scatter(1, last_ids[:, None], True)
        state.select(parents)
        logits = language_model.decode(last_ids[:, None], state)[:, -1]
