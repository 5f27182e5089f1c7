"""Text to ids and back. A user's text is always literal: a typed `</s>`, `<image>` or `[SEP]` is plain characters.

Both tokenizers are the `tokenizers` library's, read from `tokenizer.json`; special tokens are placed here by hand, as
transformers' processor does it, because its own parsing would act on special tokens that a user typed:
a typed `<image>` breaks a batch there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from vlinstruct.errors import CheckpointError
from vlinstruct.files import read_json_object

logger = logging.getLogger(__name__)


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
        """Returns the text's own ids, nothing around them."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        pieces = zip(encoding.ids, encoding.offsets, strict=True)
        return [part for token, (start, end) in pieces for part in self._spelt(token, text[start:end].strip())]

    def _spelt(self, token: int, written: str) -> list[int]:
        if self.special.get(token) != written:  # the unknown token stands for other characters too
            return [token]
        space = self.tokenizer.token_to_id("▁")
        spelling = (self.tokenizer.encode(character, add_special_tokens=False).ids for character in written)
        return [part for ids in spelling for part in ids if part != space]


class TextTokenizer:
    """The language model's tokenizer.

    Args:
        tokenizer: from `tokenizer.json`.
        bos_id: put in front of a prompt; None for a model without one (T5).
        eos_id: ends a text.
        prompt_has_eos: whether a prompt ends with `eos_id` too (T5).
    """

    def __init__(self, tokenizer: Tokenizer, *, bos_id: int | None, eos_id: int, prompt_has_eos: bool) -> None:
        self.tokenizer = tokenizer
        self.literal = LiteralTokenizer(tokenizer)
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.prompt_has_eos = prompt_has_eos

    def encode(self, text: str) -> list[int]:
        """Returns the text's own ids, nothing around them."""
        return self.literal.encode(text)

    def prompt_ids(self, text: str) -> list[int]:
        """Returns what the model reads: the text with its beginning or end token."""
        start = [] if self.bos_id is None else [self.bos_id]
        return start + self.encode(text) + ([self.eos_id] if self.prompt_has_eos else [])

    def target_ids(self, text: str) -> list[int]:
        """Returns what the model is to write: the text and the end token."""
        return [*self.encode(text), self.eos_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of generated ids, special tokens left out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Returns the vocabulary's spelling of every id."""
        return tuple(self.tokenizer.id_to_token(token) or "" for token in ids)


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
        room = self.max_length - 2
        if len(ids) > room:
            logger.warning("the Q-Former reads the first %d of the instruction's %d tokens", room, len(ids))
        return [self.cls_id, *ids[:room], self.sep_id]


def special_token(folder: Path, name: str) -> str | None:
    """Returns how a folder's tokenizer_config.json spells a special token; None where it does not.

    Args:
        folder: a tokenizer's.
        name: the token's in that file, e.g. `bos_token`.
    """
    path = folder / "tokenizer_config.json"
    token = read_json_object(path).get(name) if path.exists() else None
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
