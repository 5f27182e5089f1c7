"""Builds mini's two tokenizers as `tokenizer.json` files.

The language model's: whole words for the world's closed vocabulary, single characters for every other word (so that a
printed word is spelt), bytes for everything beyond ASCII. The Q-Former's: lower-case WordPiece. Neither adds special
tokens; model code does, and reads with `encode_special_tokens = True`, under which `</s>` in a text is five characters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram, WordPiece

from pretrain_mini.reading import LanguageModelName
from pretrain_mini.vocabulary import read_words, written_words

SPACE = "▁"
PRINTABLE = tuple(map(chr, range(33, 127)))
LANGUAGE_SPECIALS = ("<pad>", "</s>", "<unk>")
QFORMER_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]")

_WORD_SCORE = -1.0
_CHARACTER_SCORE = -10.0
# Far below any spelling of its characters: a special token or byte piece is never read from a user's text.
_NEVER_SCORE = -1000.0


def language_tokenizer() -> Tokenizer:
    """Returns the language model's tokenizer (T5's layout: <pad> 0, </s> 1, <unk> 2)."""
    spellings = [*written_words(), "a", "A", "I"]
    pieces = [(token, _NEVER_SCORE) for token in LANGUAGE_SPECIALS]
    pieces += [(piece, _CHARACTER_SCORE) for piece in (SPACE, *PRINTABLE)]
    pieces += [(f"<0x{byte:02X}>", _NEVER_SCORE) for byte in range(256)]
    pieces += [(SPACE + spelling, _WORD_SCORE) for spelling in spellings]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.pre_tokenizer = _words_apart(spellings)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(list(LANGUAGE_SPECIALS))
    return tokenizer


def _words_apart(spellings: list[str]) -> pre_tokenizers.PreTokenizer:
    """Splits before every space; a space in front of an unknown word stands alone, so that the word is spelt.

    Without this, "islands" would begin with the piece of "is".
    """
    alternatives = "|".join(sorted(spellings, key=len, reverse=True))
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f"(?={SPACE})"), "isolated"),
            pre_tokenizers.Split(Regex(f"{SPACE}(?!(?:{alternatives})(?![A-Za-z0-9]))"), "isolated"),
        ]
    )


def qformer_tokenizer() -> Tokenizer:
    """Returns the Q-Former's tokenizer (BERT's layout: [PAD] 0, then [UNK], [CLS], [SEP], [DEC])."""
    characters = [c for c in PRINTABLE if not c.isupper()]
    continued = [f"##{c}" for c in characters if c.isalnum()]
    words = [*QFORMER_SPECIALS, *characters, *continued, *read_words()]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(QFORMER_SPECIALS))
    return tokenizer


# Llama's prompts begin with the token that ends a text, as Vicuna's did under LAVIS; T5's begin with none.
_BEGINNING: Mapping[LanguageModelName, dict[str, str]] = {"t5": {}, "llama": {"bos_token": "</s>"}}


def save_tokenizers(folder: Path, language_model: LanguageModelName = "t5") -> None:
    """Writes both tokenizers and their transformers configurations into a model folder."""
    language = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
    }
    qformer = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512}
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    _save(language_tokenizer(), folder, language | tokens | _BEGINNING[language_model])
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    _save(qformer_tokenizer(), folder / "qformer_tokenizer", qformer | tokens)


def _save(tokenizer: Tokenizer, folder: Path, config: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
