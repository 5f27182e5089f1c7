"""An InstructBLIP's texts and scores by recordings (`backends/recordings.py`), where a batch is small.

A replay needs shapes that recur: contexts are padded on the left and tokens on the right to a few widths, states are
reserved (`LanguageModel.reserve`), and what was not there is hidden by the masks that hide padding anyway.

Legend: B rows, C context positions, S fed tokens, L the language model's width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vlinstruct.backends.instructblip.language_model import DecoderState, LanguageModel, RowState
from vlinstruct.backends.recordings import Recordings, TextMemory

TOKENS_STEP = 16  # what a Q-Former reads is padded to a multiple
_CONTEXT_STEP = 32  # and so are contexts
_NEW_STEP = 64  # and the room for what is written
_WIDTHS = (1, 5, 9, 17, 33)  # tokens of a pass: one and a draft, see `speculative`
_MAX_NEW = 1024  # tokens; room for more would be read in every pass of a short text, too


class RecordedState:
    """What was read of a text in a reserved state.

    Args:
        memory: the state, this text's alone as long as this object lives.
        num_rows: B.
    """

    def __init__(self, memory: TextMemory[RowState], num_rows: int) -> None:
        self.memory = memory
        self.lengths = [0] * num_rows

    def drop(self, counts: Sequence[int]) -> None:
        self.lengths = [length - count for length, count in zip(self.lengths, counts, strict=True)]

    def move_on(self) -> RowState:
        """Tells the device how far every row has read, and returns the reserved state."""
        reserved = self.memory.content.reserved
        assert reserved is not None
        reserved.starts.copy_(torch.tensor(self.lengths))
        return self.memory.content


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
        if self.recordings.takes(num_rows) and num_new <= _MAX_NEW:
            shape = (num_rows, num_context + num_padded, num_new)
            num_positions, itemsize = num_rows * (shape[1] + num_new), inputs_embeds.element_size()
            num_bytes = self.language_model.config.cache_bytes(num_positions, itemsize)
            memory = self.recordings.memory(shape, lambda: self.language_model.reserve(*shape), num_bytes)
            state = None if memory is None else RecordedState(memory, num_rows)
        if state is not None:
            drafts = draft_ids if draft_ids is not None else attention_mask.new_zeros(num_rows, 0, dtype=torch.long)
            num_drafted, reserved = drafts.shape[1], state.move_on()
            logits = self.recordings.replayed(
                state.memory.recordings,
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

        logits = self.recordings.replayed(state.memory.recordings, "writing", decode, padded_ids)
        state.lengths = [length + num_fed for length in state.lengths]
        return (decode(padded_ids) if logits is None else logits)[:, :num_fed]

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        if not self.recordings.takes(len(inputs_embeds)):
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
