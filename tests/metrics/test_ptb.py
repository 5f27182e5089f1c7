from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlinstruct.metrics.captions import ptb_tokens

GOLDEN = json.loads(Path(__file__).with_name("ptb_golden.json").read_text())


@pytest.mark.parametrize(("caption", "tokens"), GOLDEN)
def test_tokens_equal_those_of_pycocoevalcaps_tokenizer(caption, tokens):
    assert ptb_tokens(caption) == tuple(tokens)


@pytest.mark.parametrize("caption", ["", " ", "\n\t", ".", "?", '"', "...", "- -- ,;:"])
def test_a_caption_without_words_has_no_tokens(caption):
    assert ptb_tokens(caption) == ()


@pytest.mark.parametrize("space", ["\n", "\r\n", "\t", "\u00a0", "  "])
def test_any_space_parts_words(space):
    assert ptb_tokens(f"a{space}dog{space}") == ("a", "dog")


def test_case_makes_no_difference_to_words():
    assert ptb_tokens("THE MAN'S DOG DOESN'T SIT") == ptb_tokens("the man's dog doesn't sit")


@pytest.mark.parametrize("ordinary", [caption for caption, _ in GOLDEN[:5]])
def test_tokens_of_tokens_are_the_same(ordinary):
    tokens = ptb_tokens(ordinary)
    assert ptb_tokens(" ".join(tokens)) == tokens


@pytest.mark.parametrize("piece", ["A", "A&", "a.", "a'", "n't", "1,", "-", "(", "http://", "?!", "@a"])
def test_a_long_caption_is_split_in_linear_time(piece):
    assert len(" ".join(ptb_tokens(piece * 20_000))) <= 200_000
