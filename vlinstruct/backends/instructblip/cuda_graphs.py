"""Kernels recorded at the first use of a shape and replayed after: an accelerator no longer waits for Python.

A small batch of a large model spends its time in launching kernels: on an H200 an answer of FlanT5-XL's shapes took
0.33 s, where reading its weights takes some milliseconds. A replay needs the same kernels on the same memory every
time, so what is read lies in states that never move (`LanguageModel.reserve`), contexts are padded on the left and
tokens on the right to a few widths, and what was not there is hidden by the masks that hide padding anyway.

Legend: B rows, C context positions, S fed tokens, L the language model's width, V vocabulary.
Source: CUDA graphs (torch.cuda.CUDAGraph).
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vlinstruct.backends.instructblip.language_model import DecoderState, LanguageModel, RowState

# What a recording is made of: a computation and its inputs, which never move; it returns what computes anew, and its
# output, which never moves either.
Record = Callable[[Callable[..., Tensor], Sequence[Tensor]], tuple[Callable[[], None], Tensor]]

_MAX_ROWS = 8  # beyond, kernels take longer than their launch
_MAX_RECORDINGS = 128
_MAX_STATES = 8
TOKENS_STEP = 16  # what a Q-Former reads is padded to a multiple
_CONTEXT_STEP = 32  # and so are contexts
_NEW_STEP = 64  # and the room for what is written
_WIDTHS = (1, 5, 9, 17, 33)  # tokens of a pass: one and a draft, see `speculative`
_MAX_NEW = 1024  # tokens; room for more would be read in every pass of a short text, too

_log = logging.getLogger(__name__)


def record_on_cuda(compute: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records what a computation launches on the current device.

    Raises:
        RuntimeError: it waits for the device, or a kernel of it cannot be recorded.
    """
    # Once aside: libraries choose kernels and caches are filled in the first run, which must not be recorded.
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        compute(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # In memory of its own, since an output is read after other recordings ran. Other threads may go on meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = compute(*inputs)
    return graph.replay, output


@dataclass(frozen=True, kw_only=True)
class _Recording:
    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    output: Tensor


_Kept = OrderedDict[Hashable, _Recording]


class Recordings:
    """The recordings of one model, the least recently used ones dropped first.

    Args:
        record: how a computation is recorded.
    """

    def __init__(self, record: Record = record_on_cuda) -> None:
        self.record = record
        self.is_broken = False  # after a first failure everything runs as if there were no recordings
        self.num_replays = 0
        self._kept: _Kept = OrderedDict()
        self._states: OrderedDict[tuple[int, int, int], _TextMemory] = OrderedDict()

    def run(self, what: str, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Computes, by a recording where the batch is small.

        Args:
            what: tells computations apart.
            compute: a function of its inputs' numbers, and of weights, alone.
            inputs: B rows each.
        """
        output = None
        if not self.is_broken and len(inputs[0]) <= _MAX_ROWS:
            output = self.replayed(self._kept, what, compute, *inputs)
        return compute(*inputs) if output is None else output.clone()

    def replayed(self, kept: _Kept, what: str, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor | None:
        """Returns the output of a replay, which the next one overwrites; None where nothing can be recorded."""
        key = (what, *((given.shape, given.dtype) for given in inputs))
        if key in kept:
            kept.move_to_end(key)
            for own, given in zip(kept[key].inputs, inputs, strict=True):
                own.copy_(given)
        elif not self._record(kept, key, compute, inputs):
            return None
        kept[key].replay()
        self.num_replays += 1
        return kept[key].output

    def _record(
        self, kept: _Kept, key: tuple[Hashable, ...], compute: Callable[..., Tensor], inputs: Sequence[Tensor]
    ) -> bool:
        if self.is_broken:
            return False
        began, own_inputs = time.perf_counter(), tuple(given.clone() for given in inputs)
        try:
            replay, output = self.record(compute, own_inputs)
        except RuntimeError as error:
            self.is_broken = True
            _log.warning("no CUDA graphs: %s. Answers are the same, and take as long as without", _first_line(error))
            return False
        shapes = ", ".join("x".join(map(str, given.shape)) for given in inputs)
        _log.info("recorded %s of %s in %.1f s", key[0], shapes, time.perf_counter() - began)
        kept[key] = _Recording(inputs=own_inputs, replay=replay, output=output)
        while len(kept) > _MAX_RECORDINGS:
            kept.popitem(last=False)
        return True

    def state(
        self, language_model: LanguageModel, num_rows: int, num_context: int, num_new: int
    ) -> RecordedState | None:
        """Returns a state that nobody writes in; None where another text is being written in the only one."""
        key = (num_rows, num_context, num_new)
        if key not in self._states:
            self._states[key] = _TextMemory(language_model.reserve(*key))
            while len(self._states) > _MAX_STATES:
                self._states.popitem(last=False)
        self._states.move_to_end(key)
        memory = self._states[key]
        return RecordedState(memory, num_rows) if memory.user() is None else None


class _TextMemory:
    """A reserved state, which one text at a time is written in, and the recordings that read and write there."""

    def __init__(self, state: RowState) -> None:
        self.state = state
        self.kept: _Kept = OrderedDict()
        self.user: Callable[[], RecordedState | None] = lambda: None


class RecordedState:
    """What was read of a text in a reserved state.

    Args:
        memory: the state, this text's alone as long as this object lives.
        num_rows: B.
    """

    def __init__(self, memory: _TextMemory, num_rows: int) -> None:
        self.memory = memory
        self.lengths = [0] * num_rows
        memory.user = weakref.ref(self)

    def drop(self, counts: Sequence[int]) -> None:
        self.lengths = [length - count for length, count in zip(self.lengths, counts, strict=True)]

    def select(self, rows: Tensor) -> None:
        raise NotImplementedError("beams and targets that share a context are read without recordings")

    def move_on(self) -> RowState:
        """Tells the device how far every row has read, and returns the reserved state."""
        reserved = self.memory.state.reserved
        assert reserved is not None
        reserved.starts.copy_(torch.tensor(self.lengths))
        return self.memory.state


class RecordedReader:
    """Reads as a language model does, by recordings where a batch is small: `language_model.Reader`.

    Args:
        language_model: computes.
        recordings: its own.
        max_new_tokens: the most tokens that are written behind a context.
    """

    def __init__(self, language_model: LanguageModel, recordings: Recordings, max_new_tokens: int) -> None:
        self.language_model = language_model
        self.recordings = recordings
        self.max_new_tokens = max_new_tokens

    def prefill(
        self, inputs_embeds: Tensor, attention_mask: Tensor, draft_ids: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        num_rows, num_context, _ = inputs_embeds.shape
        num_padded = -num_context % _CONTEXT_STEP
        num_new = _up_to(self.max_new_tokens + _WIDTHS[-1], _NEW_STEP)
        state = None
        if not self.recordings.is_broken and num_rows <= _MAX_ROWS and num_new <= _MAX_NEW:
            state = self.recordings.state(self.language_model, num_rows, num_context + num_padded, num_new)
        if state is not None:
            drafts = draft_ids if draft_ids is not None else attention_mask.new_zeros(num_rows, 0, dtype=torch.long)
            num_drafted, reserved = drafts.shape[1], state.move_on()
            logits = self.recordings.replayed(
                state.memory.kept,
                "reading",
                lambda *inputs: self.language_model.prefill_reserved(reserved, *inputs),
                F.pad(inputs_embeds, (0, 0, num_padded, 0)),
                F.pad(attention_mask, (num_padded, 0)),
                F.pad(drafts, (0, _width(1 + num_drafted) - 1 - num_drafted)),
            )
            if logits is not None:
                # T5's decoder has read its start token; Llama's sequence begins with the context.
                is_encoder_decoder = self.language_model.config.is_encoder_decoder
                num_before = 1 if is_encoder_decoder else num_context + num_padded
                state.lengths = [num_before + num_drafted] * num_rows
                return logits[:, : 1 + num_drafted], state
        return self.language_model.prefill(inputs_embeds, attention_mask, draft_ids)

    def decode(self, input_ids: Tensor, state: DecoderState) -> Tensor:
        if not isinstance(state, RecordedState):
            return self.language_model.decode(input_ids, state)
        num_fed, reserved = input_ids.shape[1], state.move_on()
        padded_ids = F.pad(input_ids, (0, _width(num_fed) - num_fed))

        def decode(ids: Tensor) -> Tensor:
            return self.language_model.decode(ids, reserved)

        logits = self.recordings.replayed(state.memory.kept, "writing", decode, padded_ids)
        state.lengths = [length + num_fed for length in state.lengths]
        return (decode(padded_ids) if logits is None else logits)[:, :num_fed]

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        if len(inputs_embeds) > _MAX_ROWS:
            return self.language_model.target_logits(inputs_embeds, attention_mask, target_ids)
        num_padded, num_targets = -inputs_embeds.shape[1] % _CONTEXT_STEP, target_ids.shape[1]
        logits = self.recordings.run(
            "scoring",
            self.language_model.target_logits,
            F.pad(inputs_embeds, (0, 0, num_padded, 0)),
            F.pad(attention_mask, (num_padded, 0)),
            F.pad(target_ids, (0, -num_targets % _CONTEXT_STEP)),
        )
        return logits[:, :num_targets]


def _up_to(number: int, step: int) -> int:
    """Returns the next multiple of a step."""
    return number + -number % step


def _width(num_fed: int) -> int:
    """Returns the width that a pass of so many tokens is padded to."""
    return next((width for width in _WIDTHS if width >= num_fed), num_fed)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
