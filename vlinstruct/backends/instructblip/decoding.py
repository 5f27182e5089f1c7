"""Text generation over the language model's interface: greedy and sampling here, beams and drafts beside it.

Why not transformers' `generate`: it runs the vision tower again in every call, and takes no features that were computed
once. Its results are ours token for token (`GenerationMixin`, `early_stopping=False`), which the tests check.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlinstruct.backends.instructblip.beam_search import beam_search
from vlinstruct.backends.instructblip.language_model import (
    Context,
    LanguageModel,
    penalize_repetition,
    penalized_tokens,
    require_finite,
)
from vlinstruct.backends.instructblip.speculative import generate_from_drafts
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


def generate(
    language_model: LanguageModel,
    context: Context,
    settings: GenerationSettings,
    stop_ids: Sequence[int],
    *,
    sources: Sequence[Sequence[int]] = (),
    draws: Sequence[int] = (),
) -> list[Continuation]:
    """Continues every row of `context`.

    Args:
        language_model: the model.
        context: what it reads first.
        settings: how it writes.
        stop_ids: ids that end a text.
        sources: per row the ids of a text that it probably repeats, or none at all; they change the speed alone.
        draws: per row which sample it is, or none at all: equal rows of different draws are sampled differently.

    Raises:
        CheckpointError: the model's logits are not finite.
    """
    if settings.num_beams > 1:
        texts = beam_search(language_model, context, settings, stop_ids)
        return [_until_stop(ids, None, stop_ids) for ids in texts]
    # A draft is verified against the likeliest token. Under sampling or a penalty another token may be written, so
    # that a verified draft would no longer be the text that the plain loop writes.
    if sources and not settings.do_sample and settings.repetition_penalty == 1.0:
        rows = generate_from_drafts(language_model, context, sources, settings.max_new_tokens, stop_ids)
        return [_until_stop(row.written, row.token_nll, stop_ids) for row in rows]
    steps = list(_step_by_step(language_model, context, settings, stop_ids, draws))
    ids = torch.stack([next_ids for next_ids, _ in steps], dim=1).tolist()
    nll = torch.stack([nats for _, nats in steps], dim=1).tolist()
    return [_until_stop(*row, stop_ids) for row in zip(ids, nll, strict=True)]


def stream(
    language_model: LanguageModel,
    context: Context,
    settings: GenerationSettings,
    stop_ids: Sequence[int],
    *,
    draws: Sequence[int] = (),
) -> Iterator[tuple[int, float | None]]:
    """Continues the only row of `context`, and yields every id with its nats as soon as it is chosen, a stop id last.

    Beams come at the end, all ids together and without nats: until then another beam may win.

    Raises:
        CheckpointError: the model's logits are not finite.
    """
    if settings.num_beams > 1:
        (ids,) = beam_search(language_model, context, settings, stop_ids)
        yield from ((token, None) for token in ids)
        return
    for next_ids, nats in _step_by_step(language_model, context, settings, stop_ids, draws):
        token = int(next_ids)
        yield token, float(nats)
        if token in stop_ids:
            return


def _step_by_step(
    language_model: LanguageModel,
    context: Context,
    settings: GenerationSettings,
    stop_ids: Sequence[int],
    draws: Sequence[int],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields every row's next id and its nats, (B,) each, until all rows have stopped.

    A row that has stopped stays in the batch and what it writes then is not read: taking it out would copy the keys and
    values of all others.
    """
    first_logits, state = language_model.prefill(context.inputs_embeds, context.attention_mask)
    logits = first_logits[:, -1]  # (B, V)
    is_penalized = penalized_tokens(context.penalized_ids, logits)
    sampler = _Sampler(settings, draws or [0] * len(logits), logits.device) if settings.do_sample else None
    stops = torch.tensor(stop_ids, device=logits.device)
    is_finished = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    for num_written in range(1, settings.max_new_tokens + 1):
        require_finite(logits)
        logits = logits.float()
        scores = penalize_repetition(logits, is_penalized, settings.repetition_penalty)
        next_ids = scores.argmax(dim=-1) if sampler is None else sampler.draw(scores)
        # Of the logits, not the scores: how sure the model was does not depend on temperature, top_p or penalty.
        yield next_ids, logits.logsumexp(dim=-1) - logits.gather(1, next_ids[:, None])[:, 0]
        is_finished |= torch.isin(next_ids, stops)
        # The last token is not fed: nobody reads the logits after it.
        if num_written == settings.max_new_tokens or bool(is_finished.all()):
            return
        is_penalized.scatter_(1, next_ids[:, None], True)
        logits = language_model.decode(next_ids[:, None], state)[:, -1]


def _until_stop(ids: list[int], nll: Sequence[float] | None, stop_ids: Sequence[int]) -> Continuation:
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
        # 2^64 divided by the golden ratio: neighbouring draws do not become neighbouring seeds.
        seeds = [(settings.seed + draw * 0x9E3779B97F4A7C15) % 2**64 for draw in draws]
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

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
