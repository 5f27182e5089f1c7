"""A text verified from a draft is the text that the model writes step by step."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import tiny_models
import torch
from tiny_models import same_nll

from vlinstruct.backends.decoding import Continuation
from vlinstruct.backends.instructblip.decoding import generate
from vlinstruct.backends.instructblip.language_model import Context, LanguageModel
from vlinstruct.backends.instructblip.speculative import CopyingDraft, DraftedRow
from vlinstruct.settings import GenerationSettings

KINDS = ("t5", "llama")
STOP_IDS = (1,)
SETTINGS = GenerationSettings(max_new_tokens=20)
Texts = Sequence[Sequence[int]]


class Counted:
    """Counts the passes that a generation takes."""

    def __init__(self, language_model: LanguageModel) -> None:
        self.passes = 0
        self.language_model = language_model

    def count(self, *_: object) -> None:
        self.passes += 1

    def __call__(self, context: Context, sources: Texts) -> tuple[list[Continuation], int]:
        self.passes = 0
        handle = self.language_model.get_submodule("lm_head").register_forward_hook(self.count)
        texts = generate(self.language_model, context, SETTINGS, STOP_IDS, sources=sources)
        handle.remove()
        return texts, self.passes


@pytest.fixture(params=KINDS)
def counted(request: pytest.FixtureRequest) -> Counted:
    return Counted(tiny_models.our_model(request.param, seed=3).language_model)


def _context(language_model: LanguageModel, num_rows: int) -> Context:
    draw = torch.Generator().manual_seed(num_rows)
    lengths = [7, 4, 9, 5, 6][:num_rows]
    embeds = torch.zeros(num_rows, max(lengths), language_model.embed_tokens(torch.zeros(1, 1).long()).shape[-1])
    mask = torch.zeros(num_rows, max(lengths), dtype=torch.bool)
    for row, length in enumerate(lengths):
        embeds[row, -length:] = torch.randn(length, embeds.shape[-1], generator=draw)
        mask[row, -length:] = True
    return Context(inputs_embeds=embeds, attention_mask=mask, penalized_ids=((0,),) * num_rows)


def _damaged(text: Sequence[int], rng: random.Random) -> list[int]:
    """Changes, loses or adds a token here and there."""
    damaged = []
    for token in text:
        draw = rng.random()
        if draw > 0.15:
            damaged.append(token if draw > 0.3 else rng.randint(2, 97))
        if draw < 0.05:
            damaged += [token, token]
    return damaged


@pytest.mark.parametrize("num_rows", [1, 5])
def test_whatever_is_drafted_the_text_is_the_same(counted: Counted, num_rows: int) -> None:
    context, rng = _context(counted.language_model, num_rows), random.Random(0)
    plain, steps = counted(context, ())
    assert steps == 20
    ids = [text.ids for text in plain]
    for sources in (ids, [[]] * num_rows, ids[::-1], *([_damaged(text, rng) for text in ids] for _ in range(8))):
        texts, passes = counted(context, sources)
        assert passes <= steps
        for text, stepped in zip(texts, plain, strict=True):
            assert (text.ids, text.is_complete) == (stepped.ids, stepped.is_complete)
            assert text.token_nll == same_nll(stepped.token_nll)


def test_a_right_draft_takes_one_pass(counted: Counted) -> None:
    context = _context(counted.language_model, 5)
    plain, _ = counted(context, ())
    texts, passes = counted(context, [text.ids for text in plain])
    assert ([text.ids for text in texts], passes) == ([text.ids for text in plain], 1)


def test_a_replaced_word_costs_one_more_pass() -> None:
    row = DraftedRow([5, 6, 9, 8, 1], max_new_tokens=20, stop_ids=STOP_IDS)
    assert row.accept([5, 6, 7, 8, 1, 3], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == 2
    assert row.proposed == [8, 1]
    assert row.accept([8, 1, 3], [0.7, 0.8, 0.9]) == 1
    assert row.written == [5, 6, 7, 8, 1]
    assert row.token_nll == [0.1, 0.2, 0.3, 0.7, 0.8]


def test_a_draft_goes_on_behind_what_was_written_last() -> None:
    draft = CopyingDraft([10, 11, 12, 11, 13, 1])
    assert draft.after([10, 11, 12]) == [11, 13, 1]
    assert draft.after([99, 11]) == [13, 1]
    assert draft.after([10, 11]) == [12, 11, 13, 1]
    assert draft.after([1]) == []


def test_a_row_stops_at_its_stop_token_and_at_the_most_tokens() -> None:
    row = DraftedRow([5, 6, 1, 7], max_new_tokens=9, stop_ids=STOP_IDS)
    row.accept([5, 6, 1, 7, 8], [1.0] * 5)
    assert row.written == [5, 6, 1]
    assert row.is_finished
    short = DraftedRow([5, 6, 7], max_new_tokens=2, stop_ids=STOP_IDS)
    short.accept([5, 6, 7, 8], [1.0] * 4)
    assert short.written == [5, 6]
    assert len(short.token_nll) == 2


def test_few_tokens_are_drafted_behind_a_wrong_one_and_more_where_they_are_right() -> None:
    text = list(range(10, 40))
    row = DraftedRow([*text[:3], 99, *text[4:]], 30, STOP_IDS)
    lengths = []
    while not row.is_finished:
        place = len(row.written)
        lengths.append(len(row.proposed))
        row.accept(text[place : place + 1 + len(row.proposed)], [0.0] * (1 + len(row.proposed)))
    assert row.written == text
    assert lengths == [30, 4, 8, 12]  # whole; behind the wrong one; twice as many; what is left
