"""What guides a row's attention stands where the row's words stand."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pretrain_mini.labels import NUM_QUERY_TOKENS, VERDICT_QUERY, patch_labels
from pretrain_mini.rewriting import TextPair
from pretrain_mini.row_tokenizer import Rows, RowTokenizer, relation_words
from pretrain_mini.rows import Row
from vlinstruct.mini.questions import Fact, facts
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.wording import clean, poor
from vlinstruct.mini.world import sample_scene

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokeniser() -> RowTokenizer:
    return RowTokenizer()


def _known(family: str) -> list[tuple[Scene, Fact]]:
    rng = random.Random(0)
    scenes = [sample_scene(seed, fonts=("pillow",)) for seed in range(150)]
    return [(scene, fact) for scene in scenes for fact in facts(scene, rng) if fact.family == family]


def _tokenised(tokeniser: RowTokenizer, scene: Scene, fact: Fact, text: str) -> Rows:
    pair = TextPair(prompt=text, target=fact.answer)
    row = Row(picture=0, scene=scene, fact=fact, qformer_text=text, pair=pair, family=fact.family, verdict=fact.answer)
    return tokeniser.rows([row], [patch_labels(scene, (120, 120), 10)])


def _written_at(tokeniser: RowTokenizer, rows: Rows, places: np.ndarray) -> str:
    ids = [int(rows.prompt_ids[0, place - NUM_QUERY_TOKENS]) for place in places]
    return "".join(tokeniser.language.id_to_token(token) for token in ids).replace("▁", "")


@pytest.mark.parametrize("word", [clean, poor])
def test_a_statement_is_judged_by_its_relation(tokeniser: RowTokenizer, word: Callable[..., str]) -> None:
    rng = random.Random(1)
    found = 0
    for scene, fact in _known("position")[:60]:
        rows = _tokenised(tokeniser, scene, fact, word("position", fact.slots, rng))
        looked_at = np.nonzero(rows.looks.dense(CPU).numpy()[0, 0, VERDICT_QUERY])[0]
        if len(looked_at):  # some say it in words that nobody foresaw
            assert _written_at(tokeniser, rows, looked_at) in relation_words(fact.slots["relation"])
            found += 1
    assert found > 45


def test_a_quotation_is_judged_letter_by_letter(tokeniser: RowTokenizer) -> None:
    rng = random.Random(2)
    for scene, fact in _known("written")[:40]:
        rows = _tokenised(tokeniser, scene, fact, clean("written", fact.slots, rng))
        letters = np.nonzero(rows.agrees[0] >= 0)[0]
        if not len(letters):  # behind another mark than a space or a quotation's it may be another token
            continue
        assert _written_at(tokeniser, rows, letters) == fact.slots["quote"]
        assert fact.answer == "no" or rows.agrees[0][letters].all()
        decisive = np.nonzero(rows.looks.dense(CPU).numpy()[0, 1, VERDICT_QUERY])[0]
        assert set(decisive) <= set(letters)


def test_colours_agree_where_the_answer_says_so(tokeniser: RowTokenizer) -> None:
    rng = random.Random(3)
    found = _known("same")
    assert {fact.answer for _, fact in found} == {"yes", "no"}
    for scene, fact in found:
        rows = _tokenised(tokeniser, scene, fact, clean("same", fact.slots, rng))
        assert set(rows.agrees[0][rows.agrees[0] >= 0]) == {int(fact.answer == "yes")}


def test_other_families_look_where_they_like(tokeniser: RowTokenizer) -> None:
    for scene, fact in _known("colour")[:10]:
        assert not len(_tokenised(tokeniser, scene, fact, clean("colour", fact.slots, random.Random(4))).looks.places)
