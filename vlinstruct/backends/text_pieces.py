"""A text that is shown while it is written, piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

_BYTE_OR_NOTHING = re.compile("(<0x[0-9A-Fa-f]{2}>)?")


class Decoder(Protocol):
    """What of a tokenizer is needed to show what a model writes."""

    @property
    def cleans_up_spaces(self) -> bool:
        """Whether what is written loses the spaces in front of punctuation."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of generated ids, special tokens left out."""
        ...

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Returns the vocabulary's spelling of every id."""
        ...

    def is_special(self, token: int) -> bool:
        """Says whether an id is left out of a text."""
        ...


def text_pieces(tokenizer: Decoder, ids: Iterable[int]) -> Iterator[str]:
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
        if tokenizer.is_special(token) or _BYTE_OR_NOTHING.fullmatch(piece):
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
