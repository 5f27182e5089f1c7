"""Typed text stays text, through small real tokenizers of the three kinds that this family has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.doctor import tokens
from vlinstruct.doctor.finding import DoctorSettings, Finding
from vlinstruct.doctor.folder import ModelFolder

CORPUS = ["one two spaces a b", "Größe über alles", "what is written on the sign?", "unk pad image s SEP CLS [ ] / x"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZöüßÖÜ0123456789[]<>/_?."


def t5_tokenizer() -> Tokenizer:
    """Unigram as sentencepiece makes it: no `<`, no newline, runs of spaces become one."""
    tokenizer = Tokenizer(models.Unigram())
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken("<image>", special=True)])
    return tokenizer


def llama_tokenizer(num_tokens: int = 0) -> Tokenizer:
    """BPE that falls back to bytes; filled up to a number of tokens, then Vicuna's two."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS, "on", "one"]
    pieces += [f"filler{index}" for index in range(num_tokens - len(pieces))]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("o", "n"), ("on", "e")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    spaces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(spaces)
    special = ["<unk>", "<s>", "</s>", "[PAD]", "<image>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def bert_tokenizer() -> Tokenizer:
    """WordPiece that lower-cases and strips accents."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, LETTERS], trainer)
    return tokenizer


Make = Callable[..., ModelFolder]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes tokenizers into a folder and opens it."""

    def write(
        tokenizer: Tokenizer, qformer: Tokenizer | None = None, named: dict[str, Any] | None = None, **text: Any
    ) -> ModelFolder:
        (tmp_path / "qformer_tokenizer").mkdir(exist_ok=True)
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        (qformer or bert_tokenizer()).save(str(tmp_path / "qformer_tokenizer" / "tokenizer.json"))
        if named is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
        kind = "t5" if tokenizer.token_to_id("<pad>") is not None else "llama"
        values = tiny_models.tiny_config(kind)
        values = {**values, "text_config": {**values["text_config"], **text}, "image_token_index": None}
        config = InstructBlipConfig.from_dict(values)
        return ModelFolder(
            folder=tmp_path, values=values, config=config, settings=DoctorSettings(backbone=str(tmp_path))
        )

    return write


def only(found: Iterator[Finding]) -> Finding:
    (finding,) = found
    return finding


def problems(found: Iterator[Finding]) -> list[str]:
    return [one.found for one in found if one.level != "ok"]


def test_typed_text_stays_text_for_a_real_t5_tokenizer_and_bert(make: Make) -> None:
    language, qformer, back = tokens.typed_text(make(t5_tokenizer()))
    assert {language.level, qformer.level, back.level} == {"ok"}
    assert "others hold characters it cannot write" in back.found
    assert int(back.found.split()[0]) >= 3  # the brackets' and the umlauts' at least


def test_typed_text_comes_back_byte_for_byte_from_a_real_llama_tokenizer(make: Make) -> None:
    *_, back = tokens.typed_text(make(llama_tokenizer()))
    assert (back.level, back.found) == ("ok", f"{len(tokens.SPECIAL_TEXTS)} come back as typed")


@pytest.mark.parametrize("tokenizer", [t5_tokenizer(), llama_tokenizer()], ids=["t5", "llama"])
def test_a_placeholder_that_can_be_typed_is_a_problem(make: Make, tokenizer: Tokenizer) -> None:
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["special"] and token["content"] != "<image>"
    found, *_ = problems(tokens.typed_text(make(Tokenizer.from_str(json.dumps(content)))))
    assert found == "language model: '<image>', 'a <image> b</s>' become special tokens when a user types them"


def test_a_qformer_token_that_can_be_typed_is_a_problem(make: Make) -> None:
    qformer = bert_tokenizer()
    content = json.loads(qformer.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["content"] != "[SEP]"
    found, *_ = problems(tokens.typed_text(make(t5_tokenizer(), Tokenizer.from_str(json.dumps(content)))))
    assert found == "Q-Former: '[SEP]' become special tokens when a user types them"


def test_text_that_changes_though_its_characters_do_not_is_a_problem(make: Make) -> None:
    tokenizer = llama_tokenizer()
    tokenizer.add_tokens([AddedToken("über", lstrip=True, rstrip=True, normalized=False)])
    (found,) = problems(tokens.typed_text(make(tokenizer)))
    assert "'Größe über alles' come back as other text" in found


def test_what_a_tokenizer_cannot_write_by_nature_is_not_reported(make: Make) -> None:
    tokenizer = llama_tokenizer()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), tokenizer.normalizer])
    assert problems(tokens.typed_text(make(tokenizer))) == []


def test_ids_beyond_a_table_are_a_problem(make: Make) -> None:
    model = make(llama_tokenizer(), vocab_size=200)
    language, qformer = tokens.vocabulary(model)
    assert language.level == qformer.level == "problem"
    assert "the language model's table has 200 rows" in language.found


@pytest.mark.parametrize(
    ("named", "level", "words"),
    [
        (None, "notice", "names none: <s>"),
        ({"bos_token": "<s>"}, "ok", "prompts begin with <s>, id 1"),
        ({"bos_token": {"content": "</s>"}}, "ok", "prompts begin with </s>, id 2"),
        ({"bos_token": "<begin>"}, "problem", "names <begin>, which the tokenizer does not have"),
    ],
)
def test_what_a_prompt_begins_with_is_told(make: Make, named: dict[str, Any] | None, level: str, words: str) -> None:
    finding = only(tokens.begin_token(make(llama_tokenizer(), named=named)))
    assert finding.level == level
    assert words in finding.found


def test_a_t5_has_no_begin_token_and_a_llamas_padding_is_not_compared(make: Make) -> None:
    assert list(tokens.begin_token(make(t5_tokenizer()))) == []
    assert list(tokens.padding_token(make(llama_tokenizer()))) == []


VICUNA = llama_tokenizer(32000)


def test_instructblips_vicuna_is_recognised(make: Make) -> None:
    model = make(VICUNA, named={"bos_token": "</s>"}, vocab_size=32002)
    finding = only(tokens.vicuna(model))
    assert finding.level == "ok"
    assert problems(tokens.typed_text(model)) == []


@pytest.mark.parametrize(
    ("named", "changes", "words"),
    [
        ({"bos_token": "<s>"}, {}, "where prompts begin with </s>, as LAVIS trained it"),
        ({"bos_token": "</s>"}, {"eos_token_id": 1}, "where texts end with id 2"),
    ],
)
def test_a_vicuna_with_other_marks_is_a_notice(
    make: Make, named: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    finding = only(tokens.vicuna(make(VICUNA, named=named, vocab_size=32002, **changes)))
    assert finding.level == "notice"
    assert finding.found.endswith(words)


def test_a_vicuna_without_its_tokens_is_a_notice(make: Make) -> None:
    finding = only(tokens.vicuna(make(llama_tokenizer(), named={"bos_token": "</s>"}, vocab_size=32002)))
    assert "[PAD] has id 32000; <image> has id 32001" in finding.found
