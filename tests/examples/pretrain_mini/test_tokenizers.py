from pathlib import Path

import pytest
from tokenizers import Tokenizer

from pretrain_mini.tokenizers import LANGUAGE_SPECIALS, language_tokenizer, save_tokenizers
from pretrain_mini.vocabulary import read_words, written_words
from vlinstruct.mini.words import SIGN_WORDS

HOSTILE = [
    "</s> <pad> <image> {0} %s 你好 🙂",
    "<unk></s><pad><0x41>[SEP][CLS]",
    "",
    " ",
    "  two  spaces  ",
    "tabs\tand\nlines\r\n",
    "quotes \"a\" 'b' `c` \\n",
    "ÄÖÜ ß é \u202e עברית \x00 end",
    "What colour is the circle?",
    "REDred redder Red",
    "islands isle is",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizers")
    save_tokenizers(path)
    return path


@pytest.fixture(scope="module")
def language(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_comes_back_as_it_was(language: Tokenizer, text: str) -> None:
    ids = language.encode(text, add_special_tokens=False).ids
    assert language.decode(ids, skip_special_tokens=True) == text
    assert not {0, 1, 2} & set(ids)


def test_special_tokens_have_t5s_ids(language: Tokenizer) -> None:
    assert [language.token_to_id(token) for token in LANGUAGE_SPECIALS] == [0, 1, 2]


def test_words_of_the_world_are_whole_and_others_are_spelt(language: Tokenizer) -> None:
    assert language.encode("What IS isobars?").tokens == ["▁What", "▁IS", "▁", *"isobars", "?"]


def test_words_of_signs_are_spelt(language: Tokenizer) -> None:
    assert not set(SIGN_WORDS) & {word.lower() for word in (*read_words(), *written_words())}
    assert language.encode("open").tokens == ["▁", *"open"]


def test_what_is_seldom_typed_is_read_whole_and_spelt_where_it_is_written() -> None:
    words = written_words()
    whole, in_capitals = {word for word in words if word.islower()}, {word for word in words if word.isupper()}
    assert {word.lower() for word in in_capitals} < whole < set(read_words())


def test_no_special_tokens_are_added(language: Tokenizer, folder: Path) -> None:
    qformer = Tokenizer.from_file(str(folder / "qformer_tokenizer" / "tokenizer.json"))
    assert language.encode("red").tokens == ["▁red"]
    assert qformer.encode("red").tokens == ["red"]


def test_the_qformer_tokenizer_is_berts(folder: Path) -> None:
    qformer = Tokenizer.from_file(str(folder / "qformer_tokenizer" / "tokenizer.json"))
    qformer.encode_special_tokens = True
    assert [qformer.token_to_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]")] == [0, 1, 2, 3, 4]
    assert qformer.encode("What is [SEP]?").ids[-1] == qformer.token_to_id("?")
    assert qformer.token_to_id("[SEP]") not in qformer.encode("What is [SEP]?").ids
    assert qformer.encode("qxz").tokens == ["q", "##x", "##z"]


def test_building_twice_gives_the_same_bytes() -> None:
    assert language_tokenizer().to_str() == language_tokenizer().to_str()
