"""Text to ids and back. A user's text is always literal: a typed `</s>`, `<image>` or `[SEP]` is plain characters.

Both tokenizers are the `tokenizers` library's, read from `tokenizer.json`. Special tokens are placed here by hand:
transformers' processor finds them in the text, so that a user who types `<image>` breaks the whole batch there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vlinstruct.errors import CheckpointError
from vlinstruct.files import read_json_object

logger = logging.getLogger(__name__)

# transformers' `clean_up_tokenization`, in its order: what one leaves the next may change.
_CLEAN_UPS = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")),
)
_BYTE_OR_NOTHING = re.compile("(<0x[0-9A-Fa-f]{2}>)?")


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
        """Returns the text's ids without special tokens."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        pieces = zip(encoding.ids, encoding.offsets, strict=True)
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
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        if self.cleans_up_spaces:
            for spaced, clean in _CLEAN_UPS:
                text = text.replace(spaced, clean)
        return text

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Returns the vocabulary's spelling of every id."""
        return tuple(self.tokenizer.id_to_token(token) or "" for token in ids)


def text_pieces(tokenizer: TextTokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Decodes ids one by one; the pieces joined are the text of all ids, stripped.

    What a later id may still change is held back: white space at the end, which strip removes, a character whose bytes
    are not all there, and bytes of sentencepiece's fallback, which are decoded as a run: one that is no UTF-8 as a
    whole becomes replacement characters, also where it began well.
    """
    all_ids: list[int] = []
    num_shown = 0
    for token in ids:
        # All ids are decoded each time: a token's text depends on its neighbours (a space in front, bytes of one
        # character), so that no piece can be decoded alone.
        all_ids.append(token)
        (piece,) = tokenizer.pieces([token])
        if token in tokenizer.literal.special or _BYTE_OR_NOTHING.fullmatch(piece):
            continue
        text = tokenizer.decode(all_ids).lstrip().rstrip("\ufffd").rstrip()
        if tokenizer.cleans_up_spaces:  # the last word may lose the space in front of it, or join the next
            text = text[: max(text.rfind(" "), 0)]
        if len(text) > num_shown:
            yield text[num_shown:]
            num_shown = len(text)
    rest = tokenizer.decode(all_ids).strip()[num_shown:]
    if rest:
        yield rest


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
    return content if isinstance(content, str) else None
