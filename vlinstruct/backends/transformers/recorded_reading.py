"""Tokens behind a reading by recordings (`backends/recordings.py`), where a batch is small and the cache is plain.

A prompt is read as ever. Its keys and values are then copied into transformers' static cache, over which every token is
the same kernels: how much of it was read lies in tensors on the device.

Legend: B rows, P positions read so far, K positions that the cache has room for, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, StaticCache, StaticLayer

from vlinstruct.backends.recordings import DIFFERS, Recordings, TextMemory, are_alike
from vlinstruct.backends.transformers.prefix import Reader, Reading

_STEP = 256  # positions; a cache has room for a multiple, all of which is read in every pass
_MAX_POSITIONS = 4096
_NUM_COMPARED = 2  # tokens


class _Room:
    """What one text at a time is written in.

    Args:
        cache: of K positions.
        like: a reading of as many rows.
        num_positions: K.
    """

    def __init__(self, cache: StaticCache, like: Reading, num_positions: int) -> None:
        rows, device = like.num_rows, like.device
        self.cache = cache
        self.layers: list[Any] = cache.layers  # StaticLayer, all of them
        for own, read in self._pairs(like):
            own.lazy_initialization(read.keys, read.values)
        self.mask = torch.ones(rows, num_positions, dtype=torch.long, device=device)  # 0 where a row is padded
        self.shift = torch.zeros(rows, 1, dtype=torch.long, device=device)  # from a place in the cache to a position
        self.num_right = 0  # tokens that were as computed ones

    def fill(self, reading: Reading) -> None:
        """Takes over what was read."""
        num_read = reading.num_positions
        for own, read in self._pairs(reading):
            for memory, given in ((own.keys, read.keys), (own.values, read.values)):
                memory[:, :, :num_read] = given
                memory[:, :, num_read:] = 0  # an earlier text's: a mask hides by weight 0, and 0 * NaN would be NaN
        self.mask.fill_(1)
        self.shift.zero_()
        if reading.mask is not None:
            self.mask[:, :num_read] = reading.mask
            self.shift -= (reading.mask == 0).sum(dim=1, keepdim=True)
        if reading.rope_deltas is not None:
            self.shift += reading.rope_deltas

    def _pairs(self, reading: Reading) -> Iterator[tuple[Any, Any]]:
        return zip(self.layers, reading.cache.layers, strict=True)


class RecordedReading:
    """Reads on behind a reading, a token a row at a time.

    Args:
        reader: reads.
        recordings: of the model.
        memory: this text's alone as long as this object lives.
        reading: what was read so far.
    """

    def __init__(self, reader: Reader, recordings: Recordings, memory: TextMemory[_Room], reading: Reading) -> None:
        self.reader, self.recordings, self.memory = reader, recordings, memory
        self.reading, self.num_positions = reading, reading.num_positions
        self.is_plain = False  # after a recording failed, or was wrong
        self.has_mask, self.has_positions = reading.mask is not None, reading.rope_deltas is not None
        memory.content.fill(reading)

    def feed(self, ids: Tensor) -> Tensor:
        """Reads a token of every row, (B, 1), and returns the logits of the next, (B, V)."""
        logits = None
        if not self.is_plain:
            place = torch.tensor([self.num_positions], device=ids.device)
            logits = self.recordings.replayed(self.memory.recordings, "a token", self._read, ids, place)
            self.num_positions += 1
            if logits is not None and self.memory.content.num_right == _NUM_COMPARED:
                return logits
        # The first tokens are also computed as ever: some models count positions by their masks, or in
        # Python, of which a recording keeps what it was when it was made.
        plain = self.reading.feed(ids, num_logits=1)[:, -1]
        if logits is not None and are_alike(logits, plain):
            self.memory.content.num_right += 1
        elif not self.is_plain:
            self.is_plain = True
            self.recordings.give_up(DIFFERS)
        return plain

    def _read(self, ids: Tensor, place: Tensor) -> Tensor:
        room = self.memory.content
        for layer in room.layers:
            layer.cumulative_length.copy_(place[0])
        inputs: dict[str, Any] = {"input_ids": ids, self.reader.cache_name: room.cache, "use_cache": True}
        if self.has_mask:
            inputs["attention_mask"] = room.mask
        if self.has_positions:
            inputs["position_ids"] = (place + room.shift)[None].expand(3, -1, -1)
        return self.reader.logits_behind(inputs, 1)[:, -1]


def recorded(reading: Reading, recordings: Recordings, config: Any, num_new: int) -> RecordedReading | None:
    """Returns what writes on behind a reading by recordings; None where that cannot be.

    Args:
        reading: of B rows.
        recordings: of the model.
        config: the model's.
        num_new: the most tokens that follow.
    """
    num_positions = -(-(reading.num_positions + num_new) // _STEP) * _STEP
    layers = reading.cache.layers
    # Sliding windows, linear attention and what looks at a picture in every layer keep more than keys and values.
    is_plain = all(type(layer) is DynamicLayer and layer.is_initialized for layer in layers)
    is_small = recordings.takes(reading.num_rows) and num_positions <= _MAX_POSITIONS
    if not (is_plain and is_small) or reading.cross_attention_mask is not None:
        return None
    cache = StaticCache(config=config, max_cache_len=num_positions)
    if len(cache.layers) != len(layers) or not all(type(layer) is StaticLayer for layer in cache.layers):
        return None
    num_bytes = reading.num_bytes * num_positions // reading.num_positions
    shape = (reading.num_rows, num_positions, reading.mask is not None)
    memory = recordings.memory(shape, lambda: _Room(cache, reading, num_positions), num_bytes)
    return None if memory is None else RecordedReading(reading.reader, recordings, memory, reading)
