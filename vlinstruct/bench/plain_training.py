"""transformers' arm of a training comparison: a plain loop, written the way its documentation suggests.

Everything but the projection is frozen, the vision tower and the Q-Former run under `no_grad`, batches come in random
order and are padded to the longest, nothing is kept from one epoch to the next. In its favour: texts are tokenised
once, pictures are decoded and in memory, the model is in eval mode (no dropout), and no loss is read in between.

Legend: B rows of a batch, Q queries.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.bench.load import image_processor
from vlinstruct.media.images import load_image
from vlinstruct.training.data.conversations import TrainingSample
from vlinstruct.training.settings import TrainingSettings

_NO_TARGET = -100


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A sample as transformers' processor hands it out, with its labels."""

    input_ids: Tensor
    labels: Tensor
    qformer_input_ids: Tensor


class PlainTraining:
    """The loop.

    Args:
        theirs: InstructBlipForConditionalGeneration; what is frozen and how is set here.
        ours: gives the tokenizers.
        samples: what is learned.
        batch_size: samples of one update.
        config: gives AdamW's settings and the seed of the order.
    """

    def __init__(
        self,
        theirs: Any,
        ours: InstructBlipBackend,
        samples: Sequence[TrainingSample],
        batch_size: int,
        config: TrainingSettings,
    ) -> None:
        theirs.requires_grad_(False)
        theirs.language_projection.requires_grad_(True)
        for frozen in (theirs.vision_model, theirs.qformer):
            frozen.forward = torch.no_grad()(type(frozen).forward.__get__(frozen))
        self.model = theirs
        self.image_processor = image_processor(ours.image_processor.image_size)
        self.images = [load_image(sample.image).image for sample in samples]
        self.rows = [_row(sample, theirs.config, ours) for sample in samples]
        self.batch_size = batch_size
        self.seed = config.seed
        self.num_epochs = 0
        learning = theirs.language_projection.parameters()
        self.optimizer = torch.optim.AdamW(learning, lr=config.learning_rate, weight_decay=config.weight_decay)

    def epoch(self) -> None:
        """Learns every sample once."""
        for batch in self.batches(self.num_epochs):
            self.loss(batch).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.num_epochs += 1

    def batches(self, epoch: int) -> list[list[int]]:
        """Returns an epoch's batches of sample indices, in random order."""
        order = list(range(len(self.rows)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def loss(self, batch: Sequence[int]) -> Tensor:
        """Returns a batch's mean negative log-likelihood per answer token, in nats; differentiable."""
        loss = self.model(**self._collated(batch)).loss
        assert isinstance(loss, Tensor)
        return loss

    def _collated(self, batch: Sequence[int]) -> dict[str, Tensor]:
        rows = [self.rows[index] for index in batch]
        images = [self.images[index] for index in batch]
        pixel_values = self.image_processor(images=images, return_tensors="pt")["pixel_values"]
        inputs = {
            "pixel_values": pixel_values.to(self.model.dtype),
            **_padded("", [row.input_ids for row in rows]),
            **_padded("qformer_", [row.qformer_input_ids for row in rows]),
            "labels": pad_sequence([row.labels for row in rows], batch_first=True, padding_value=_NO_TARGET),
        }
        return {name: tensor.to(self.model.device) for name, tensor in inputs.items()}


def _padded(part: str, rows: Sequence[Tensor]) -> dict[str, Tensor]:
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {f"{part}input_ids": pad_sequence(list(rows), batch_first=True), f"{part}attention_mask": mask}


def _row(sample: TrainingSample, config: Any, ours: InstructBlipBackend) -> _Row:
    marks = [config.image_token_index] * config.num_query_tokens
    given, target = marks + ours.prompt_ids(sample.prompt), ours.tokenizer.target_ids(sample.answer)
    if ours.network.config.text_config.is_encoder_decoder:
        input_ids, labels = given, target
    else:
        input_ids, labels = given + target, [_NO_TARGET] * len(given) + target
    return _Row(
        input_ids=torch.tensor(input_ids),
        labels=torch.tensor(labels),
        qformer_input_ids=torch.tensor(ours.qformer_tokenizer.encode(sample.instruction)),
    )
