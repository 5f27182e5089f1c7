"""Text generation over the language model's interface: greedy and sampling here, beams and drafts beside it.

Why not transformers' `generate`: it runs the vision tower again in every call, and takes no features that were computed
once. Its results are ours token for token (`GenerationMixin`, `early_stopping=False`), which the tests check.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vlinstruct.backends.decoding import Continuation, step_by_step, until_stop
from vlinstruct.backends.instructblip.beam_search import beam_search
from vlinstruct.backends.instructblip.language_model import Context, LanguageModel, Reader
from vlinstruct.backends.instructblip.speculative import generate_from_drafts
from vlinstruct.settings import GenerationSettings


def generate(
    reader: Reader,
    context: Context,
    settings: GenerationSettings,
    stop_ids: Sequence[int],
    *,
    sources: Sequence[Sequence[int]] = (),
    draws: Sequence[int] = (),
) -> list[Continuation]:
    """Continues every row of `context`.

    Args:
        reader: the language model.
        context: what it reads first.
        settings: how it writes.
        stop_ids: ids that end a text.
        sources: per row the ids of a text that it probably repeats, or none at all; they change the speed alone.
        draws: per row which sample it is, or none at all: equal rows of different draws are sampled differently.

    Raises:
        CheckpointError: the model's logits are not finite.
    """
    if settings.num_beams > 1:
        assert isinstance(reader, LanguageModel)  # whose states rows can be selected of
        texts = beam_search(reader, context, settings, stop_ids)
        return [until_stop(ids, None, stop_ids) for ids in texts]
    # A draft is verified against the likeliest token. Under sampling or a penalty another token may be written, so
    # that a verified draft would no longer be the text that the plain loop writes.
    if sources and not settings.do_sample and settings.repetition_penalty == 1.0:
        rows = generate_from_drafts(reader, context, sources, settings.max_new_tokens, stop_ids)
        return [until_stop(row.written, row.token_nll, stop_ids) for row in rows]
    steps = list(_steps(reader, context, settings, stop_ids, draws))
    ids = torch.stack([next_ids for next_ids, _ in steps], dim=1).tolist()
    nll = torch.stack([nats for _, nats in steps], dim=1).tolist()
    return [until_stop(*row, stop_ids) for row in zip(ids, nll, strict=True)]


def stream(
    reader: Reader,
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
        assert isinstance(reader, LanguageModel)
        (ids,) = beam_search(reader, context, settings, stop_ids)
        yield from ((token, None) for token in ids)
        return
    for next_ids, nats in _steps(reader, context, settings, stop_ids, draws):
        token = int(next_ids)
        yield token, float(nats)
        if token in stop_ids:
            return


def _steps(
    reader: Reader,
    context: Context,
    settings: GenerationSettings,
    stop_ids: Sequence[int],
    draws: Sequence[int],
) -> Iterator[tuple[Tensor, Tensor]]:
    first_logits, state = reader.prefill(context.inputs_embeds, context.attention_mask)
    return step_by_step(
        first_logits[:, -1],
        lambda ids: reader.decode(ids, state)[:, -1],
        settings,
        stop_ids,
        penalized_ids=context.penalized_ids,
        draws=draws,
    )
