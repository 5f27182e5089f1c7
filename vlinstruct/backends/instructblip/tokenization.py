"""Text to ids and back. A user's text is always literal: a typed `</s>`, `<image>` or `[SEP]` is plain characters.

Both tokenizers are the `tokenizers` library's, read from `tokenizer.json`. Special tokens are placed here by hand:
transformers' processor finds them in the text, so that a user who types `<image>` breaks the whole batch there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vlinstruct.backends.instructblip.config_reading import GENERATION_WITHOUT_EFFECT, refuse, token_ids
from vlinstruct.backends.instructblip.text_config import TextConfig
from vlinstruct.errors import CheckpointError, VlinstructError, shortened
from vlinstruct.files import read_json_object
from vlinstruct.weights.hub import refuse_code

logger = logging.getLogger(__name__)

# transformers' `clean_up_tokenization`, in its order: what one leaves the next may change.
_CLEAN_UPS = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")),
)


class LiteralTokenizer:
    """A tokenizer that never finds a special token in a text.

    Its own switch (`encode_special_tokens`) stops the search for special tokens; a vocabulary that holds `</s>` as an
    ordinary piece, as FlanT5's does, could still match it, so such a match is spelt character by character.

    Args:
        tokenizer: from `tokenizer.json`; padding and truncation are switched off.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        self.special = {
            index: token.content for index, token in tokenizer.get_added_tokens_decoder().items() if token.special
        }

    def encode(self, text: str) -> list[int]:
        """Returns the text's ids without special tokens.

        Raises:
            CheckpointError: the tokenizer failed over this text.
        """
        with named_failures("the tokenizer failed over this text"):
            encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if self.special.keys().isdisjoint(ids):  # the rule, which need not ask where each came from
            return ids
        pieces = zip(ids, encoding.offsets, strict=True)
        return [part for token, (start, end) in pieces for part in self._literal_ids(token, text[start:end].strip())]

    def _literal_ids(self, token: int, characters: str) -> list[int]:
        # Compared by spelling: the unknown token is special, too, and stands for characters that are not its name.
        if self.special.get(token) != characters:
            return [token]
        space = self.tokenizer.token_to_id("▁")  # sentencepiece puts one in front of each character that stands alone
        spelling = (self.tokenizer.encode(character, add_special_tokens=False).ids for character in characters)
        return [part for ids in spelling for part in ids if part != space]


class TextTokenizer:
    """The language model's tokenizer.

    Args:
        tokenizer: from `tokenizer.json`.
        eos_id: ends a text.
        prompt_prefix: ids in front of a prompt: Llama's beginning token.
        prompt_suffix: ids behind it: T5's end token.
        more_stop_ids: further ids at which writing stops.
        cleans_up_spaces: whether what is written loses the spaces in front of punctuation.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        eos_id: int,
        prompt_prefix: tuple[int, ...] = (),
        prompt_suffix: tuple[int, ...] = (),
        more_stop_ids: tuple[int, ...] = (),
        cleans_up_spaces: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.literal = LiteralTokenizer(tokenizer)
        self.eos_id = eos_id
        self.stop_ids = (eos_id, *more_stop_ids)
        self.prompt_prefix, self.prompt_suffix = prompt_prefix, prompt_suffix
        self.cleans_up_spaces = cleans_up_spaces

    def encode(self, text: str) -> list[int]:
        """Returns the text's ids without a beginning or end token."""
        return self.literal.encode(text)

    def prompt_ids(self, text: str) -> list[int]:
        """Returns what the model reads: the text with its beginning or end token."""
        return [*self.prompt_prefix, *self.encode(text), *self.prompt_suffix]

    def target_ids(self, text: str) -> list[int]:
        """Returns what the model is to write: the text and the end token."""
        return [*self.encode(text), self.eos_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of generated ids, special tokens left out."""
        with named_failures("the tokenizer failed over what was written"):
            text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        if self.cleans_up_spaces:
            for spaced, clean in _CLEAN_UPS:
                text = text.replace(spaced, clean)
        return text

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Returns the vocabulary's spelling of every id."""
        return tuple(self.tokenizer.id_to_token(token) or "" for token in ids)

    def is_special(self, token: int) -> bool:
        """Says whether an id is left out of a text."""
        return token in self.literal.special


class QFormerTokenizer:
    """The Q-Former's BERT tokenizer.

    Args:
        tokenizer: from `qformer_tokenizer/tokenizer.json`.
        max_length: positions that the Q-Former has, [CLS] and [SEP] included.

    Raises:
        CheckpointError: the vocabulary lacks [CLS] or [SEP].
    """

    def __init__(self, tokenizer: Tokenizer, *, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.literal = LiteralTokenizer(tokenizer)
        self.max_length = max_length
        self.cls_id, self.sep_id = self._special("[CLS]"), self._special("[SEP]")

    def _special(self, token: str) -> int:
        token_id = self.tokenizer.token_to_id(token)
        if token_id is None:
            raise CheckpointError(
                f"qformer_tokenizer/tokenizer.json has no {token}", advice="Give the Q-Former's own tokenizer."
            )
        return int(token_id)

    def encode(self, text: str) -> list[int]:
        """Returns [CLS] text [SEP]; a text beyond the Q-Former's positions is cut at its end, with a notice."""
        ids = self.literal.encode(text)
        # LAVIS cuts to 128 tokens and transformers crashes beyond the last position; the model has 512 of them.
        room = self.max_length - 2
        if len(ids) > room:
            logger.warning("the Q-Former reads the first %d of the instruction's %d tokens", room, len(ids))
        return [self.cls_id, *ids[:room], self.sep_id]

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Returns the vocabulary's spelling of every id."""
        return tuple(self.tokenizer.id_to_token(token) or "" for token in ids)


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """Returns a tokenizer's tokenizer_config.json, with the tokens that older saves name in a file of their own.

    Args:
        folder: a tokenizer's.

    Raises:
        CheckpointError: a file is damaged.
    """
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):  # the later one wins, as in transformers
        if (folder / name).exists():
            settings |= read_json_object(folder / name)
    return settings


def special_token(folder: Path, name: str) -> str | None:
    """Returns how a folder's settings spell a special token, e.g. `bos_token`; None where they do not."""
    return _spelling(tokenizer_settings(folder), name)


def named_id(tokenizer: Tokenizer, settings: Mapping[str, Any], name: str, default: int | None) -> int | None:
    """Returns the id of the special token that a tokenizer's settings name; the default where they name none it has."""
    spelling = _spelling(settings, name)
    token = None if spelling is None else tokenizer.token_to_id(spelling)
    return default if token is None else int(token)


def template_of(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Returns the ids that tokenizer.json puts in front of a text and behind it; None where it has no template."""
    if tokenizer.post_processor is None:
        return None
    encoding = tokenizer.encode("a")
    num_before = encoding.special_tokens_mask.index(0)
    num_behind = encoding.special_tokens_mask[::-1].index(0)
    return tuple(encoding.ids[:num_before]), tuple(encoding.ids[len(encoding.ids) - num_behind :])


def is_bpe(tokenizer: Tokenizer) -> bool:
    """Says whether spaces are part of its pieces: transformers 5 never cleans such a tokenizer's texts up."""
    return type(tokenizer.model).__name__ == "BPE"


def _spelling(settings: Mapping[str, Any], name: str) -> str | None:
    token = settings.get(name)
    content = token.get("content") if isinstance(token, Mapping) else token
    # Half a character, a lone surrogate, is in no vocabulary, and tokenizers takes none.
    is_whole = isinstance(content, str) and not any("\ud800" <= character <= "\udfff" for character in content)
    return content if is_whole else None


def load_tokenizer(folder: Path, text_config: TextConfig) -> TextTokenizer:
    """Reads the language model's tokenizer, with the tokens that its folder puts around a prompt and stops at.

    Raises:
        CheckpointError: a file is missing or damaged, has a setting that we do not follow, or is of another model.
    """
    tokenizer = read_tokenizer(folder)
    # Fewer is no mistake: tables are padded, FlanT5's from 32101 to 32128 rows.
    if tokenizer.get_vocab_size() > text_config.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {folder} has {tokenizer.get_vocab_size()} tokens, the language model "
            f"{text_config.vocab_size}: they do not belong together."
        )
    settings = tokenizer_settings(folder)
    # The tokenizer's own tokens win. InstructBLIP's Vicuna was trained with `</s>` in front (LAVIS), and made from a
    # configuration of the first LLaMA, whose end token, 1, is the tokenizer's beginning.
    eos_id = named_id(tokenizer, settings, "eos_token", text_config.eos_token_id)
    assert eos_id is not None
    if not 0 <= eos_id < text_config.vocab_size:
        raise CheckpointError(f"texts end with id {eos_id} in {folder}, which the vocabulary does not have.")
    prefix, suffix = template_of(tokenizer) or _usual_template(tokenizer, settings, text_config, eos_id)
    more_ids = (text_config.eos_token_id, *text_config.more_eos_token_ids, *_generation_end_ids(folder))
    return TextTokenizer(
        tokenizer,
        eos_id=eos_id,
        prompt_prefix=prefix,
        prompt_suffix=suffix,
        # An id that the vocabulary lacks is never written, and may be too large for a tensor.
        more_stop_ids=tuple(id for id in dict.fromkeys(more_ids) if id != eos_id and 0 <= id < text_config.vocab_size),
        cleans_up_spaces=settings.get("clean_up_tokenization_spaces") is True and not is_bpe(tokenizer),
    )


def _usual_template(
    tokenizer: Tokenizer, settings: Mapping[str, Any], text_config: TextConfig, eos_id: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns what stands around a prompt where tokenizer.json does not say it.

    `add_bos_token` and `add_eos_token` of tokenizer_config.json are not asked: transformers 5 ignores them, too, where
    there is a tokenizer.json.
    """
    if text_config.prompt_has_eos:
        return (), (eos_id,)
    bos_id = named_id(tokenizer, settings, "bos_token", text_config.bos_token_id)
    return () if bos_id is None else (bos_id,), ()


def _generation_end_ids(folder: Path) -> tuple[int, ...]:
    """Returns the ids at which `generate` stops with this folder.

    Of its other settings those that we have options for are the user's to choose; one that forbids or forces tokens is
    refused.

    Raises:
        CheckpointError: it has such a setting.
    """
    path = folder / "generation_config.json"
    if not path.exists():
        return ()
    values = read_json_object(path)
    ids = token_ids(values.pop("eos_token_id", None), f"eos_token_id in {path}")
    tokens = ("bos_token_id", "pad_token_id", "decoder_start_token_id")
    problems = [
        f"{name} is {shortened(str(value), 40)}"
        for name, value in values.items()
        if value is not None and name not in GENERATION_WITHOUT_EFFECT and name not in tokens
    ]
    refuse(problems, str(path))
    return ids


def _require_agreement(tokenizer: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> None:
    """Refuses a BERT tokenizer whose two files spell differently: which one counts depends on transformers' version.

    Raises:
        CheckpointError: they do.
    """
    normalizer = tokenizer.get("normalizer")
    is_bert = str(settings.get("tokenizer_class")).startswith("BertTokenizer")
    if not is_bert or not isinstance(normalizer, Mapping) or normalizer.get("type") != "BertNormalizer":
        return
    names = {"do_lower_case": "lowercase", "strip_accents": "strip_accents"}
    names |= {"tokenize_chinese_chars": "handle_chinese_chars"}
    problems = [
        f"{name} is {settings[name]}, tokenizer.json has {normalizer.get(own)}"
        for name, own in names.items()
        if settings.get(name) is not None and settings[name] != normalizer.get(own)
    ]
    refuse(problems, str(folder / "tokenizer_config.json"))


def read_tokenizer(folder: Path) -> Tokenizer:
    """Reads a folder's tokenizer.json; where there is only an old file, transformers converts it.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        return _converted_tokenizer(folder)
    _require_agreement(read_json_object(path), tokenizer_settings(folder), folder)
    # As it stands, which is what transformers 5.3 does. Version 5.24 builds classes that have a name of their own from
    # the vocabulary alone: a T5Tokenizer loses the file's normalizer, and reads "Été" as unknown.
    with named_failures(f"{path} is not a tokenizer that this version can read"):
        return Tokenizer.from_file(str(path))


def _converted_tokenizer(folder: Path) -> Tokenizer:
    if not any((folder / name).is_file() for name in ("tokenizer.model", "spiece.model", "vocab.txt")):
        raise CheckpointError(f"tokenizer.json is missing in {folder}", advice="Give a complete model folder.")
    # Before transformers sees it: without the argument below it would ask for consent to run the folder's code, on our
    # stdout, and take the answer from our stdin (seen with 5.24).
    refuse_code(folder, str(folder))
    from transformers import AutoTokenizer

    with named_failures(f"{folder} has no tokenizer that transformers can convert"):
        loaded = AutoTokenizer.from_pretrained(
            folder, use_fast=True, local_files_only=True, trust_remote_code=False
        ).backend_tokenizer
    if not isinstance(loaded, Tokenizer):
        raise CheckpointError(f"{folder} has no fast tokenizer", advice="Give a folder with tokenizer.json.")
    return loaded


@contextmanager
def named_failures(problem: str) -> Iterator[None]:
    """Turns whatever a native library raises into one line.

    The tokenizers library raises bare Exception, and where its Rust code panics a BaseException, which would pass every
    `except Exception` and end a batch of items that have nothing to do with it.

    Raises:
        CheckpointError: the block failed.
    """
    try:
        yield
    except VlinstructError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # KeyboardInterrupt, SystemExit and our own signals
        reason = shortened(str(error).partition("\n")[0], 200) or type(error).__name__
        raise CheckpointError(f"{problem}: {reason}", advice="Take tokenizer and weights from one model.") from error
