"""Text generation over the language model's interface: greedy, sampling and beam search, token for token transformers'.

Legend: B rows, V vocabulary.
Semantics: transformers' `GenerationMixin` (`early_stopping=False`), checked against it in the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from vlinstruct.backends.instructblip.beam_search import beam_search
from vlinstruct.backends.instructblip.language_model import Context, LanguageModel
from vlinstruct.backends.instructblip.logits import penalize_repetition, require_finite, seen_tokens
from vlinstruct.backends.instructblip.speculative import generate_from_drafts
from vlinstruct.backends.instructblip.tokenization import TextTokenizer
from vlinstruct.settings import GenerationSettings

_BYTE_OR_NOTHING = re.compile("(<0x[0-9A-Fa-f]{2}>)?")


def generate(
    language_model: LanguageModel,
    context: Context,
    config: GenerationSettings,
    stop_ids: Sequence[int],
    sources: Sequence[Sequence[int]] = (),
) -> list[list[int]]:
    """Continues every row of `context`.

    Args:
        language_model: the model.
        context: what it reads first.
        config: how it writes.
        stop_ids: ids that end a text.
        sources: per row the ids of a text that it probably repeats, or none at all; they change the speed alone.

    Returns:
        The new ids of every row, without the stop id.

    Raises:
        CheckpointError: the model's logits are not finite.
    """
    if config.num_beams > 1:
        texts = beam_search(language_model, context, config, stop_ids)
    elif sources and not config.do_sample and config.repetition_penalty == 1.0:
        texts = generate_from_drafts(language_model, context, sources, config.max_new_tokens, stop_ids)
    else:
        steps = _step_by_step(language_model, context, config, stop_ids)
        texts = torch.stack(list(steps), dim=1).tolist()
    return [_before_stop(ids, stop_ids) for ids in texts]


def stream(
    language_model: LanguageModel, context: Context, config: GenerationSettings, stop_ids: Sequence[int]
) -> Iterator[int]:
    """Continues the only row of `context`, and yields every id of what `generate` returns as soon as it is chosen.

    Beams come at the end, all ids together: until then another beam may win.

    Raises:
        CheckpointError: the model's logits are not finite.
    """
    if config.num_beams > 1:
        yield from generate(language_model, context, config, stop_ids)[0]
        return
    for next_ids in _step_by_step(language_model, context, config, stop_ids):
        token = int(next_ids)
        if token in stop_ids:
            return
        yield token


def text_pieces(tokenizer: TextTokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Decodes ids one by one; the pieces joined are the text of all ids, stripped.

    What a later id may still change is held back: white space at the end, which strip removes, a character whose bytes
    are not all there, and bytes of sentencepiece's fallback, which are decoded as a run: one that is no UTF-8 as a
    whole becomes replacement characters, also where it began well.
    """
    written: list[int] = []
    num_shown = 0
    for token in ids:
        written.append(token)
        (piece,) = tokenizer.pieces([token])
        if token in tokenizer.literal.special or _BYTE_OR_NOTHING.fullmatch(piece):
            continue
        text = tokenizer.decode(written).lstrip().rstrip("\ufffd").rstrip()
        if len(text) > num_shown:
            yield text[num_shown:]
            num_shown = len(text)
    rest = tokenizer.decode(written).strip()[num_shown:]
    if rest:
        yield rest


def _step_by_step(
    language_model: LanguageModel, context: Context, config: GenerationSettings, stop_ids: Sequence[int]
) -> Iterator[Tensor]:
    """Yields every row's next id, (B,), until all rows have stopped; a row that stopped earlier goes on unread."""
    first_logits, state = language_model.prefill(context.inputs_embeds, context.attention_mask)
    logits = first_logits[:, -1]
    seen = seen_tokens(context.seen_ids, logits)
    choose = _Sampler(config, len(logits), logits.device) if config.do_sample else _likeliest
    stops = torch.tensor(stop_ids, device=logits.device)
    is_finished = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    for num_written in range(1, config.max_new_tokens + 1):
        require_finite(logits)
        next_ids = choose(penalize_repetition(logits.float(), seen, config.repetition_penalty))
        yield next_ids
        is_finished |= torch.isin(next_ids, stops)
        if num_written == config.max_new_tokens or bool(is_finished.all()):
            return
        seen.scatter_(1, next_ids[:, None], True)
        logits = language_model.decode(next_ids[:, None], state)[:, -1]


def _before_stop(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    return next((ids[:index] for index, token in enumerate(ids) if token in stop_ids), ids)


def _likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(dim=-1)


class _Sampler:
    """Draws tokens; every row has a generator of its own, so that a row's text does not depend on the others."""

    def __init__(self, config: GenerationSettings, num_rows: int, device: torch.device) -> None:
        self.config = config
        self.generators = [torch.Generator(device).manual_seed(config.seed) for _ in range(num_rows)]

    def __call__(self, logits: Tensor) -> Tensor:
        probabilities = nucleus(logits / self.config.temperature, self.config.top_p).softmax(dim=-1)
        drawn = [
            torch.multinomial(row, 1, generator=generator)
            for row, generator in zip(probabilities, self.generators, strict=True)
        ]
        return torch.cat(drawn)


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Sets all but the likeliest tokens whose probability reaches `top_p` to -inf (Holtzman et al., 2020).

    >>> nucleus(torch.tensor([[0.0, 5.0, 4.9]]), 0.5).tolist()
    [[-inf, 5.0, -inf]]
    """
    ordered, order = logits.sort(dim=-1, descending=True)
    mass_before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    is_cut = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, mass_before >= top_p)
    return logits.masked_fill(is_cut, -torch.inf)
