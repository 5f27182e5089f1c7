"""Builds mini's two tokenizers as `tokenizer.json` files.

The language model's: whole words for the world's closed vocabulary, single characters for every other word (so that a
printed word is spelt), bytes for everything beyond ASCII. The Q-Former's: lower-case WordPiece. Neither adds special
tokens; model code does, and reads with `encode_special_tokens = True`, under which `</s>` in a text is five characters.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram, WordPiece

from pretrain_mini.reading import LanguageModelName
from vlinstruct.instruction.templates import Templates
from vlinstruct.mini.phrasings import SIDES, around, families, foreign_wordings
from vlinstruct.mini.questions import NOUNS_BY_COLOUR, plural_noun
from vlinstruct.mini.scene import COLOURS, SHAPES
from vlinstruct.mini.words import SIGN_WORDS

SPACE = "▁"
PRINTABLE = tuple(map(chr, range(33, 127)))
LANGUAGE_SPECIALS = ("<pad>", "</s>", "<unk>")
QFORMER_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]")

# Of words that people type: what they type less often is spelt, as what they never typed will be.
_LEAST_COUNT = 4
_WORD_SCORE = -1.0
_CHARACTER_SCORE = -10.0
# Far below any spelling of its characters: a special token or byte piece is never read from a user's text.
_NEVER_SCORE = -1000.0


def _world_texts() -> Iterable[str]:
    """What mini reads and writes whatever people type."""
    templates = Templates.default()
    yield from (templates.rewrite, templates.score, templates.compare, templates.compare_item)
    for family in families().values():
        yield from family.canonical.values()
    yield from (*SIDES.values(), *COLOURS, *SHAPES, *map(plural_noun, SHAPES))
    for named in NOUNS_BY_COLOUR.values():
        yield from named
    yield "yes no true false unanswerable an objects on and word number in background gray left right top bottom middle"
    yield "what colour is the star what shape is the red object how many circles are there"


def _typed_texts() -> Iterable[str]:
    """What people type, as far as training shows it."""
    for family in families().values():
        yield from (wording.text for wording in family.wordings["train"])
    yield from (wording.text for wording in foreign_wordings()["train"])
    yield from (*around().openings, *around().closings)
    for _ in range(_LEAST_COUNT):  # each of these is a word, though it stands there once
        yield from (word for group in around().synonyms for word in group)


def closed_vocabulary() -> list[str]:
    """Returns the words of two and more letters that are pieces of their own, in lower case, sorted.

    Words of signs are not among them, which are read letter by letter; nor rare ones, nor slips of the keyboard.
    """
    typed = Counter(word for text in _typed_texts() for word in _words(text))
    words = {word for text in _world_texts() for word in _words(text)}
    words |= {word for word, count in typed.items() if count >= _LEAST_COUNT}
    return sorted(words.difference(SIGN_WORDS))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]{2,}", _without_fields(text).lower())


def _without_fields(text: str) -> str:
    return re.sub(r"\{\w+\}", " ", text)


def language_tokenizer() -> Tokenizer:
    """Returns the language model's tokenizer (T5's layout: <pad> 0, </s> 1, <unk> 2)."""
    words = closed_vocabulary()
    spellings = [spelling for word in words for spelling in (word, word.capitalize(), word.upper())]
    spellings += ["a", "A", "I"]
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
    words = [*QFORMER_SPECIALS, *characters, *continued, *closed_vocabulary()]
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
