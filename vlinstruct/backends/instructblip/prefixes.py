"""What a Q-Former has made of a picture for a text that it read: kept, bounded in bytes, freed with the picture.

Optimizing an instruction reads the same text with the same picture in several stages, and a conversation asks about one
picture again and again. Neither the picture's owner nor a stage has to know what was computed: the store is the
backend's, and a picture is only its key.

Legend: N pictures of a batch, P positions of the encoded image, D its width, Q queries, L the language model's width.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from vlinstruct.backend import Seen

# About 1,000 prefixes of the largest backbone (64 tokens of 5,120 numbers in 2 bytes); a chat of 256 questions with the
# smallest of the paper's needs a sixth of it.
_MAX_BYTES = 640 * 1024 * 1024


class SeenPicture:
    """One picture as the vision tower saw it.

    Args:
        batch: the embeddings of all pictures that were encoded together, (N, P, D): a batch that is used whole, which
            is the rule, is never copied.
        row: which of them this picture is.
    """

    def __init__(self, batch: Tensor, row: int) -> None:
        self.batch = batch
        self.row = row

    def __repr__(self) -> str:
        return f"<SeenPicture of {self.batch.shape[1]} embeddings>"

    @property
    def image_embeds(self) -> Tensor:
        """The encoder's output, (P, D)."""
        return self.batch[self.row]


class SeenClip:
    """A clip as the vision tower saw it.

    Args:
        frames: in order, N of at least 1.
    """

    def __init__(self, frames: Sequence[SeenPicture]) -> None:
        self.frames = tuple(frames)

    def __repr__(self) -> str:
        return f"<SeenClip of {len(self.frames)} frames>"


def frames_of(seen: Seen) -> tuple[SeenPicture, ...]:
    """Returns the pictures of which each gets a prefix: a clip's frames, or the one picture."""
    return seen.frames if isinstance(seen, SeenClip) else (cast(SeenPicture, seen),)


def stacked(pictures: Sequence[SeenPicture]) -> Tensor:
    """Returns the embeddings of pictures, (B, P, D)."""
    batch = pictures[0].batch
    if all(picture.batch is batch for picture in pictures):
        rows = [picture.row for picture in pictures]
        return batch if rows == list(range(len(batch))) else batch[rows]
    return torch.stack([picture.image_embeds for picture in pictures])


class PrefixStore:
    """Prefixes by picture and text, the least recently used ones dropped first.

    Args:
        max_bytes: most bytes that are kept beyond the call that asks for them.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        # Reentrant: a picture may be freed, and so `_forget` be called, at any moment and in any thread.
        self._lock = threading.RLock()
        # By id and not by the picture itself, which a key would keep alive.
        self._prefixes: OrderedDict[tuple[int, str], Tensor] = OrderedDict()
        self._texts: dict[int, set[str]] = {}

    def get(self, picture: SeenPicture, text: str) -> Tensor | None:
        """Returns a prefix, (Q, L) or (2Q, L); None where it is not kept."""
        key = (id(picture), text)
        with self._lock:
            if key not in self._prefixes:
                return None
            self._prefixes.move_to_end(key)
            return self._prefixes[key]

    def put(self, picture: SeenPicture, text: str, prefix: Tensor) -> None:
        """Keeps a prefix as long as the picture lives and there is room."""
        key = (id(picture), text)
        with self._lock:
            if id(picture) not in self._texts:
                self._texts[id(picture)] = set()
                # An id is free for another picture once this one is gone, so its prefixes go first.
                weakref.finalize(picture, self._forget, id(picture)).atexit = False
            self._drop(key)
            self._texts[id(picture)].add(text)
            # A copy: a row of a batch would keep the whole batch in memory, as long as one of its pictures lives.
            self._prefixes[key] = prefix.clone()
            self.num_bytes += prefix.nbytes
            while self.num_bytes > self.max_bytes and len(self._prefixes) > 1:
                self._drop(next(iter(self._prefixes)))

    def _drop(self, key: tuple[int, str]) -> None:
        prefix = self._prefixes.pop(key, None)
        if prefix is not None:
            self.num_bytes -= prefix.nbytes
            self._texts.get(key[0], set()).discard(key[1])

    def _forget(self, picture_id: int) -> None:
        with self._lock:
            for text in list(self._texts.pop(picture_id)):
                self._drop((picture_id, text))
