"""Beam search, equal to transformers' with `early_stopping=False`.

A beam that ends is kept as a finished text with its log-likelihood divided by length^length_penalty; a row is done when
its best open beam, so divided, could not enter its N finished texts any more.

All rows step together in one tensor, ended ones included: what a row that is done still writes is ignored.

Legend: B rows, N beams, V vocabulary, K candidates per row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlinstruct.backends.decoding import penalize_repetition, penalized_tokens, require_finite
from vlinstruct.backends.instructblip.language_model import Context, LanguageModel
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
        # transformers' rule for `early_stopping=False`: the best open beam at its length now, not at the longest one.
        is_full = len(self.entries) == self.num_beams
        self.is_done = self.is_done or (is_full and best_open_score <= self.entries[-1][0])


class Beams:
    """The open beams of all rows.

    Args:
        num_rows: B.
        settings: beams, penalties and the longest text.
        stop_ids: ids that end a text.
        device: where the model computes.
    """

    def __init__(
        self, num_rows: int, settings: GenerationSettings, stop_ids: Sequence[int], device: torch.device
    ) -> None:
        self.settings = settings
        self.stop_ids = torch.tensor(stop_ids, device=device)
        # Each of N beams may end with each stop id, which takes so many places; N that go on are left even then.
        self.num_candidates = (1 + len(stop_ids)) * settings.num_beams
        self.ids = torch.empty(num_rows, settings.num_beams, 0, dtype=torch.long, device=device)
        self.scores = torch.full((num_rows, settings.num_beams), _IMPOSSIBLE, device=device)
        # All beams start as the same text: if all of them counted, the first step would choose one token N times.
        self.scores[:, 0] = 0.0
        self.finished = [FinishedTexts(settings.num_beams) for _ in range(num_rows)]

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
        ids = torch.cat([self.ids.take_along_dim(parents[..., None], 1), tokens[..., None]], dim=2)  # (B, K, length)
        is_last_step = ids.shape[2] == self.settings.max_new_tokens
        is_ended = torch.isin(tokens, self.stop_ids) | is_last_step
        length_norm = ids.shape[2] ** self.settings.length_penalty
        # Only an ended text among the N best candidates is kept; one behind them would not have been a beam.
        for row, candidate in is_ended[:, :num_beams].nonzero().tolist():
            self.finished[row].add(float(scores[row, candidate]) / length_norm, ids[row, candidate].tolist())
        open_scores, order = (scores + is_ended * _IMPOSSIBLE).topk(num_beams)
        self.scores, self.ids = open_scores, ids.take_along_dim(order[..., None], 1)
        for row, finished in enumerate(self.finished):
            finished.settle(float(open_scores[row, 0]) / length_norm)
            finished.is_done |= is_last_step
        first_beams = torch.arange(num_rows, device=flat.device)[:, None] * num_beams
        return (first_beams + parents.take_along_dim(order, 1)).flatten()

    @property
    def is_done(self) -> bool:
        """Whether no row can improve."""
        return all(finished.is_done for finished in self.finished)

    def best(self) -> list[list[int]]:
        """The best finished text of every row, its stop id included."""
        return [finished.entries[0][1] for finished in self.finished]


def beam_search(
    language_model: LanguageModel, context: Context, settings: GenerationSettings, stop_ids: Sequence[int]
) -> list[list[int]]:
    """Returns the best text of every row as ids, the stop id included.

    Args:
        language_model: the model.
        context: what it reads first.
        settings: `num_beams`, `max_new_tokens`, `length_penalty`, `repetition_penalty`.
        stop_ids: ids that end a text.
    """
    first_logits, state = language_model.prefill(context.inputs_embeds, context.attention_mask)
    logits = first_logits[:, -1]  # (B, V)
    num_beams = settings.num_beams
    rows = torch.arange(len(logits), device=logits.device).repeat_interleave(num_beams)
    beams = Beams(len(logits), settings, stop_ids, logits.device)
    is_penalized = penalized_tokens(context.penalized_ids, logits)[rows]
    logits = logits[rows]  # (B*N, V)
    state.select(rows)  # after the context was read: once per row, not once per beam
    while True:
        require_finite(logits)
        # Log-probabilities are penalised here, logits elsewhere: transformers' orders, and the results differ.
        log_probs = penalize_repetition(logits.float().log_softmax(dim=-1), is_penalized, settings.repetition_penalty)
        parents = beams.advance(log_probs.view(-1, num_beams, log_probs.shape[-1]))
        if beams.is_done:
            return beams.best()
        last_ids = beams.ids[..., -1].flatten()
        is_penalized = is_penalized[parents].scatter(1, last_ids[:, None], True)
        state.select(parents)
        logits = language_model.decode(last_ids[:, None], state)[:, -1]
