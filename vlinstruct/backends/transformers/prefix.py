"""What a model has read: a cache of keys and values that any number of texts continue from.

The picture's part of a prompt goes through the model once. Every stage of algorithm 2 begins with it and forks it: a
cache is never cut, since `crop` fails on sliding windows, linear attention and cross-attention (transformers 5.24).

Legend: B rows, P positions read so far, N new tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

# A picture of 1,000 tokens takes 57 MB in Qwen2.5-VL-7B: a chunk of 16 pictures stays, a folder does not.
_MAX_BYTES = 1024 * 1024 * 1024
_CROSS_ATTENTION = "cross_attention_mask"


class Reader:
    """The part of a model that reads tokens behind a cache, and how its forward is called.

    Args:
        network: the part.
        positions: the module that keeps `rope_deltas`, by which positions behind a picture are shifted; None where
            positions are counted plainly. Qwen's models keep those of the last picture they saw there, so that another
            picture in between would shift what follows (off by 0.07 to 2 nats, without an error).
        text_model: of the network, whose output its `lm_head` reads; None where the whole network is asked.
    """

    def __init__(self, network: Any, positions: Any | None, text_model: Any | None = None) -> None:
        self.network = network
        self.text_model = text_model
        self.positions = positions
        parameters = inspect.signature(network.forward).parameters
        # Renamed in transformers 5.24; the old name warns there, and goes in 5.40.
        self.cache_name = "cache" if "cache" in parameters else "past_key_values"
        self.keeps_logits = "logits_to_keep" in parameters

    def logits_behind(self, inputs: Mapping[str, Any], num_logits: int) -> Tensor:
        """Returns what a forward behind a cache makes of the last tokens, (B, `num_logits`, V)."""
        if self.text_model is not None:
            hidden = self.text_model(**inputs)[0]
            logits: Tensor = self.network.lm_head(hidden[:, -num_logits:])
            return logits
        keep = {"logits_to_keep": num_logits} if self.keeps_logits else {}
        logits = self.network(**inputs, **keep).logits
        return logits[:, -num_logits:]

    def begin(self, inputs: Mapping[str, Tensor], *, whole: Any | None = None) -> tuple[Tensor, Reading]:
        """Reads the beginning of B texts, padded on the left.

        Args:
            inputs: `input_ids` (B, P), `attention_mask`, and whatever else the forward takes.
            whole: the model whose forward takes the media, where that is not the reader itself.

        Returns:
            The logits of the token after each row, (B, V), and what was read.
        """
        network = self.network if whole is None else whole
        if self.positions is not None:
            self.positions.rope_deltas = None  # of an earlier picture
        keep = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(network.forward).parameters else {}
        output = network(**inputs, use_cache=True, **keep)
        output = getattr(output, "language_model_outputs", None) or output  # BLIP-2's
        mask, ids = inputs["attention_mask"], inputs["input_ids"]
        deltas = None
        if self.positions is not None:
            deltas = self.positions.rope_deltas
            # Texts alone are counted from where their padding begins.
            deltas = (mask == 0).sum(dim=1) if deltas is None else deltas
            deltas = deltas.reshape(len(ids), 1).to(ids.device)
        reading = Reading(
            self,
            output[self.cache_name],
            # Without a mask where nothing is padded: some models take one for positions.
            mask=None if bool(mask.all()) else mask,
            num_positions=ids.shape[1],
            rope_deltas=deltas,
            cross_attention_mask=inputs[_CROSS_ATTENTION][:, -1:] if _CROSS_ATTENTION in inputs else None,
        )
        return output.logits[:, -1], reading


class Reading:
    """What a model has read of B rows, and what a forward behind it needs to know.

    Args:
        reader: has read it.
        cache: transformers' own.
        mask: (B, P), 0 where a row is padded on the left; None where none is.
        num_positions: P, padding included.
        rope_deltas: (B, 1), see `Reader`.
        cross_attention_mask: (B, 1, pictures, tiles), Mllama's: what comes next sees what the prompt's end sees.
    """

    def __init__(
        self,
        reader: Reader,
        cache: Cache,
        *,
        mask: Tensor | None,
        num_positions: int,
        rope_deltas: Tensor | None,
        cross_attention_mask: Tensor | None,
    ) -> None:
        self.reader = reader
        self.cache = cache
        self.mask = mask
        self.num_positions = num_positions
        self.rope_deltas = rope_deltas
        self.cross_attention_mask = cross_attention_mask

    def fork(self, rows: Sequence[int] | None = None) -> Reading:
        """Returns a reading to go on from, which leaves this one as it is.

        Args:
            rows: which rows it has, in their order; a row may occur more than once. All of them if None.
        """
        cache = copy.copy(self.cache)
        # Plain layers make new tensors whenever they grow, so that theirs need no copy. Others write into theirs.
        cache.layers = [
            copy.copy(layer) if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) else copy.deepcopy(layer)
            for layer in self.cache.layers
        ]
        forked = copy.copy(self)
        forked.cache = cache
        if rows is not None and list(rows) != list(range(self.num_rows)):
            places = torch.tensor(rows, device=self.device)
            cache.reorder_cache(cast(torch.LongTensor, places))
            for name in ("mask", "rope_deltas", "cross_attention_mask"):
                value = getattr(self, name)
                setattr(forked, name, None if value is None else value[places])
            if forked.mask is not None and bool(forked.mask.all()):
                forked.mask = None
        return forked

    @property
    def device(self) -> torch.device:
        """Where the model reads ids."""
        return next(self.reader.network.parameters()).device

    @property
    def num_rows(self) -> int:
        """B."""
        return len(tensors_of(self.cache)[0])

    @property
    def num_bytes(self) -> int:
        """What the cache takes."""
        return sum(tensor.nbytes for tensor in tensors_of(self.cache))

    def feed(self, ids: Tensor, *, num_logits: int | None = None) -> Tensor:
        """Reads on.

        Args:
            ids: (B, N); what is padded must stand on the right and must not be followed by more.
            num_logits: of how many last tokens the logits are wanted; of all N if None.

        Returns:
            (B, `num_logits`, V): the logits of the token after each of them.
        """
        num_new = ids.shape[1]
        inputs: dict[str, Any] = {"input_ids": ids, self.reader.cache_name: self.cache, "use_cache": True}
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
            inputs["attention_mask"] = self.mask
        if self.rope_deltas is not None:
            if self.mask is None:
                ends = torch.arange(self.num_positions, self.num_positions + num_new, device=ids.device)
                places = ends.expand(len(ids), -1)
            else:
                places = (self.mask.cumsum(dim=1) - 1)[:, -num_new:]
            # Time, height and width, which are the same for text.
            inputs["position_ids"] = (places + self.rope_deltas)[None].expand(3, -1, -1)
        if self.cross_attention_mask is not None:
            inputs[_CROSS_ATTENTION] = self.cross_attention_mask.expand(
                -1, num_new, *self.cross_attention_mask.shape[2:]
            )
        self.num_positions += num_new
        return self.reader.logits_behind(inputs, num_new if num_logits is None else num_logits)


def tensors_of(cache: Cache) -> list[Tensor]:
    """Returns everything that a cache holds of its rows, whatever kinds of layers it has."""
    found = []
    for layer in cache.layers:
        for value in vars(layer).values():
            found += [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, Tensor)]
    return [tensor for tensor in found if tensor.ndim > 1]


class ReadingStore:
    """Readings of media, the least recently used ones dropped first; each is freed with what it was read from.

    Args:
        max_bytes: most bytes that are kept beyond the call that asks for them.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        # Reentrant: what a reading belongs to may be freed, and so `_forget` be called, at any moment.
        self._lock = threading.RLock()
        self._readings: OrderedDict[int, Reading] = OrderedDict()  # by id, since a key would keep its owner alive

    def get(self, owner: object) -> Reading | None:
        """Returns what was read of something; None where it is not kept."""
        with self._lock:
            if id(owner) in self._readings:
                self._readings.move_to_end(id(owner))
            return self._readings.get(id(owner))

    def put(self, owner: object, reading: Reading) -> None:
        """Keeps a reading as long as its owner lives and there is room."""
        with self._lock:
            if id(owner) not in self._readings:
                weakref.finalize(owner, self._forget, id(owner)).atexit = False
            self._readings[id(owner)] = reading
            while len(self._readings) > 1 and sum(kept.num_bytes for kept in self._readings.values()) > self.max_bytes:
                self._readings.popitem(last=False)

    def _forget(self, owner_id: int) -> None:
        with self._lock:
            self._readings.pop(owner_id, None)
