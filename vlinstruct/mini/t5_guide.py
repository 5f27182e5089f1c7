"""T5 as the losses see it: the encoder looks, the decoder copies. Legend: see `language_guide.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from vlinstruct.backends.instructblip.t5 import T5
from vlinstruct.mini.copying import recorded_cross_attention
from vlinstruct.mini.encoder_attention import recorded_self_attention
from vlinstruct.mini.language_guide import Recorded
from vlinstruct.mini.recording import recording


class T5Guide:
    """Implements `LanguageGuide`."""

    def __init__(self, language_model: T5) -> None:
        self.language_model = language_model

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        return self.language_model.target_logits(inputs_embeds, attention_mask, target_ids)

    @contextmanager
    def recording(self) -> Iterator[Recorded]:
        encoded: list[Tensor] = []
        with (
            recording([self.language_model.encoder], lambda module, inputs, output: encoded.append(output)),
            recorded_cross_attention(self.language_model) as copying,
            recorded_self_attention(self.language_model) as looking,
        ):
            yield Recorded(copying=copying, looking=looking, encoded=encoded)
