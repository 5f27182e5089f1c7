"""Decoding one token after another over whatever model computes the logits: greedy and sampling, for every backend.

Results are those of transformers' `generate`, token for token (`GenerationMixin`), which the tests check.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlinstruct.errors import NON_FINITE_LOGITS, CheckpointError
from vlinstruct.settings import GenerationSettings


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What one row was continued with.

    Args:
        ids: the new ids, without the stop id.
        token_nll: nats of every new token under the model's own distribution, the stop id's last; None for beams.
        is_complete: whether a stop id ended it.
    """

    ids: list[int]
    token_nll: tuple[float, ...] | None
    is_complete: bool


def step_by_step(
    first_logits: Tensor,
    feed: Callable[[Tensor], Tensor],
    settings: GenerationSettings,
    stop_ids: Sequence[int],
    *,
    penalized_ids: Sequence[Sequence[int]],
    draws: Sequence[int] = (),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields every row's next id and its nats, (B,) each, until all rows have stopped.

    A row that has stopped stays in the batch and what it writes then is not read: taking it out would copy the keys and
    values of all others.

    Args:
        first_logits: of the first token, (B, V).
        feed: takes every row's id, (B, 1), and returns the logits of the token after it, (B, V).
        settings: how it writes; beams are no business of this loop.
        stop_ids: ids that end a text.
        penalized_ids: per row the ids that the repetition penalty counts as written already.
        draws: per row which sample it is, or none at all: equal rows of different draws are sampled differently.

    Raises:
        CheckpointError: the model's logits are not finite.
    """
    logits = first_logits
    is_penalized = penalized_tokens(penalized_ids, logits) if settings.repetition_penalty != 1.0 else None
    sampler = _Sampler(settings, draws or [0] * len(logits), logits.device) if settings.do_sample else None
    is_finished = [False] * len(logits)
    for num_written in range(1, settings.max_new_tokens + 1):
        require_finite(logits)
        logits = logits.float()
        scores = logits
        if is_penalized is not None:
            scores = penalize_repetition(logits, is_penalized, settings.repetition_penalty)
        next_ids = scores.argmax(dim=-1) if sampler is None else sampler.draw(scores)
        # Of the logits, not the scores: how sure the model was does not depend on temperature, top_p or penalty.
        yield next_ids, token_nll(logits, next_ids)
        is_finished = [done or token in stop_ids for done, token in zip(is_finished, next_ids.tolist(), strict=True)]
        # The last token is not fed: nobody reads the logits after it.
        if num_written == settings.max_new_tokens or all(is_finished):
            return
        if is_penalized is not None:
            is_penalized.scatter_(1, next_ids[:, None], True)
        logits = feed(next_ids[:, None])


def token_nll(logits: Tensor, ids: Tensor) -> Tensor:
    """Returns the negative log-likelihood of every id, in nats.

    Args:
        logits: (..., V).
        ids: (...), of the tokens that follow.
    """
    # In float32: a bfloat16 log-probability has two to three digits, and scores that differ by less are compared.
    # A fused kernel, seven times as fast on a CPU as `logsumexp`, which makes a pass of its own of every step.
    # Subtracted from 0, not negated: a certain token has 0 nats and not -0, which would be written so.
    return 0 - logits.float().log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]


def until_stop(ids: list[int], nll: Sequence[float] | None, stop_ids: Sequence[int]) -> Continuation:
    """Cuts a row's ids at its first stop id, and their nats behind it."""
    length = next((index for index, token in enumerate(ids) if token in stop_ids), len(ids))
    return Continuation(
        ids=ids[:length],
        token_nll=None if nll is None else tuple(nll[: length + 1]),
        is_complete=length < len(ids),
    )


class _Sampler:
    """Draws tokens; every row has a generator of its own, so that a row's text does not depend on the others."""

    def __init__(self, settings: GenerationSettings, draws: Sequence[int], device: torch.device) -> None:
        self.settings = settings
        self.generators = [torch.Generator(device).manual_seed(settings.seed_of(draw)) for draw in draws]

    def draw(self, logits: Tensor) -> Tensor:
        """(B, V) -> the ids that are drawn, (B,)."""
        # transformers' order: the temperature first, so that a high one lets more tokens into the nucleus.
        probabilities = nucleus(logits / self.settings.temperature, self.settings.top_p).softmax(dim=-1)
        # Row by row: one multinomial for all of them takes one generator.
        next_ids = [
            torch.multinomial(row, 1, generator=generator)
            for row, generator in zip(probabilities, self.generators, strict=True)
        ]
        return torch.cat(next_ids)


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Sets all but the likeliest tokens whose probability reaches `top_p` to -inf (Holtzman et al., 2020).

    >>> nucleus(torch.tensor([[0.0, 5.0, 4.9]]), 0.5).tolist()
    [[-inf, 5.0, -inf]]
    """
    ordered, order = logits.sort(dim=-1, descending=True)
    # The mass before a token decides, not the one with it: the token that crosses `top_p` stays, so one always does.
    mass_before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    is_cut = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, mass_before >= top_p)
    return logits.masked_fill(is_cut, -torch.inf)


def penalized_tokens(penalized_ids: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    """Returns (B, V) booleans: True for the tokens that a row's penalty is for."""
    is_penalized = torch.zeros_like(logits, dtype=torch.bool)
    for row, ids in enumerate(penalized_ids):
        is_penalized[row, list(ids)] = True
    return is_penalized


def penalize_repetition(scores: Tensor, is_penalized: Tensor, penalty: float) -> Tensor:
    """Makes tokens less likely (Keskar et al., 2019): positive scores are divided, negative ones multiplied.

    Args:
        scores: logits or log-probabilities, (B, V).
        is_penalized: (B, V), True where the row has the token already.
        penalty: above 1 discourages, 1 changes nothing.

    >>> penalize_repetition(torch.tensor([[2.0, -2.0, 1.0]]), torch.tensor([[True, True, False]]), 2.0).tolist()
    [[1.0, -4.0, 1.0]]
    """
    if penalty == 1.0:
        return scores
    # Multiplied below 0: a division would make a negative score larger, hence the token likelier.
    return torch.where(is_penalized, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def require_finite(logits: Tensor) -> None:
    """Refuses NaN and infinity: a NaN gives no error by itself, and wins every argmax.

    Raises:
        CheckpointError: with the code `non_finite_logits`.
    """
    # One pass and one number: a sum is not finite where a summand is not. In float32: the sum of many large ones is too
    # much for a narrow type.
    if not math.isfinite(logits.detach().sum(dtype=torch.float32)):
        message = "the model computed values that are not finite. Its weights are damaged or --dtype is too narrow."
        raise CheckpointError(message, code=NON_FINITE_LOGITS)
