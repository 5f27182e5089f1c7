"""transformers' arms, written as one would write them with transformers at hand.

Optimization encodes the picture in every call, scores one instruction at a time, and writes token by token.

Training is a plain loop, the way transformers' documentation suggests it: everything but the projection is frozen, the
vision tower and the Q-Former run under `no_grad`, batches come in random order and are padded to the longest, nothing
is kept from one epoch to the next. In its favour: texts are tokenised once, pictures are decoded and in memory, the
model is in eval mode (no dropout), and no loss is read in between.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.bench.replay import ScriptedLogits
from vlinstruct.bench.workload import ANSWER, INSTRUCTION, OPTIMIZED, REWRITTEN, Workload
from vlinstruct.instruction.templates import Templates
from vlinstruct.training.data.conversations import TrainingSample
from vlinstruct.training.data.reading import load_picture
from vlinstruct.training.settings import TrainingSettings
from vlinstruct.values import ScoredInstruction, TokenScores

_NO_TARGET = -100  # the label that transformers' losses leave out


class TheirArms:
    """The plain and the optimized answer; tokenizers and preprocessing are ours, which costs nothing extra.

    Args:
        theirs: InstructBlipForConditionalGeneration with the weights that `ours` has.
        ours: gives the tokenizers.
        images: one per row.
        workload: what is asked and written.
    """

    def __init__(
        self, theirs: Any, ours: InstructBlipBackend, images: Sequence[Image.Image], workload: Workload
    ) -> None:
        self.theirs = theirs
        self.ours = ours
        self.images = images
        self.workload = workload
        self.templates = Templates.default()
        self.answer = ours.tokenizer.encode(ANSWER)

    @torch.inference_mode()
    def plain(self) -> None:
        """Answers all rows in one batch."""
        self._generate(self.images, INSTRUCTION, INSTRUCTION, self.answer, self.workload.answer_tokens)

    @torch.inference_mode()
    def answered(self, question: str, max_new_tokens: int) -> None:
        """Answers a question greedily, as long as the model will."""
        self.theirs.generate(
            **self._inputs(self.images, question, question),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=0,
            eos_token_id=self.ours.tokenizer.eos_id,
        )

    @torch.inference_mode()
    def optimized(self) -> None:
        """Rewrites, scores, compares, scores and answers, picture by picture."""
        for image in self.images:
            self._rewrite()
            scored = [self._score(image, text) for text in (INSTRUCTION, REWRITTEN)]
            written = self.ours.tokenizer.target_ids(OPTIMIZED)
            self._generate([image], self.templates.compare_prompt(scored), INSTRUCTION, written, len(written))
            self._score(image, OPTIMIZED)
            self._generate([image], OPTIMIZED, OPTIMIZED, self.answer, self.workload.answer_tokens)

    def _rewrite(self) -> None:
        prompt = self.ours.tokenizer.prompt_ids(self.templates.rewrite_prompt(INSTRUCTION))
        written = self.ours.tokenizer.target_ids(REWRITTEN)
        ids = torch.tensor([prompt], device=self.theirs.device)
        # Rewriting sees no picture, and the whole model's `generate` wants pixels.
        self.theirs.language_model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **self._settings(written, len(written))
        )

    def _settings(self, script: Sequence[int], num_tokens: int) -> dict[str, Any]:
        return {
            "logits_processor": [ScriptedLogits(script)],
            "max_new_tokens": num_tokens,
            "min_new_tokens": num_tokens,  # an end token of the model's own must not cut the text short
            "do_sample": False,
            "num_beams": 1,
            "pad_token_id": 0,
            "eos_token_id": self.ours.tokenizer.eos_id,
        }

    def _inputs(self, images: Sequence[Image.Image], prompt: str, qformer_text: str) -> dict[str, Tensor]:
        config = self.theirs.config
        marks = [config.image_token_index] * config.num_query_tokens
        ids = torch.tensor([marks + self.ours.tokenizer.prompt_ids(prompt)] * len(images))
        qformer_ids = torch.tensor([self.ours.qformer_tokenizer.encode(qformer_text)] * len(images))
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "qformer_input_ids": qformer_ids,
            "qformer_attention_mask": torch.ones_like(qformer_ids),
        }
        inputs["pixel_values"] = self.ours.image_processor(images).to(self.theirs.dtype)
        return {name: tensor.to(self.theirs.device) for name, tensor in inputs.items()}

    def _generate(
        self, images: Sequence[Image.Image], prompt: str, qformer_text: str, script: Sequence[int], num_tokens: int
    ) -> None:
        self.theirs.generate(**self._inputs(images, prompt, qformer_text), **self._settings(script, num_tokens))

    def _score(self, image: Image.Image, text: str) -> ScoredInstruction:
        nll = self.target_nll(image, self.templates.score_prompt(), text, self.ours.tokenizer.target_ids(text))
        # The comparison's prompt reads the mean alone, so that no token's text is needed.
        scores = TokenScores(tokens=("",) * len(nll), token_nll=tuple(nll))
        return ScoredInstruction(text=text, ias=scores.mean_nll, scores=scores)

    def target_nll(self, image: Image.Image, prompt: str, qformer_text: str, target_ids: Sequence[int]) -> list[float]:
        """Returns every target token's negative log-likelihood, in nats: teacher forcing through the whole model."""
        inputs = self._inputs([image], prompt, qformer_text)
        target = torch.tensor([target_ids], device=self.theirs.device)
        if self.ours.network.config.text_config.is_encoder_decoder:
            logits = self.theirs(**inputs, labels=target).logits
        else:
            inputs["input_ids"] = torch.cat([inputs["input_ids"], target], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            # Logits at a position are for the next one, so the target's begin at the prompt's last.
            logits = self.theirs(**inputs).logits[:, -target.shape[1] - 1 : -1]
        nll: list[float] = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), target, reduction="none")[
            0
        ].tolist()
        return nll


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A sample as transformers' processor hands it out, with its labels."""

    input_ids: Tensor
    labels: Tensor
    qformer_input_ids: Tensor


class PlainTraining:
    """The training loop.

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
        from transformers import BlipImageProcessor

        theirs.requires_grad_(False)
        theirs.language_projection.requires_grad_(True)
        for frozen in (theirs.vision_model, theirs.qformer):
            frozen.forward = torch.no_grad()(type(frozen).forward.__get__(frozen))
        self.model = theirs
        side = ours.image_processor.image_size  # whichever backend transformers has for its processor here
        self.image_processor = BlipImageProcessor(size={"height": side, "width": side})
        self.images = [load_picture(sample.image) for sample in samples]
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
    prompt, target = marks + ours.prompt_ids(sample.prompt), ours.tokenizer.target_ids(sample.answer)
    if ours.network.config.text_config.is_encoder_decoder:
        input_ids, labels = prompt, target
    else:
        input_ids, labels = prompt + target, [_NO_TARGET] * len(prompt) + target
    return _Row(
        input_ids=torch.tensor(input_ids),
        labels=torch.tensor(labels),
        qformer_input_ids=torch.tensor(ours.qformer_tokenizer.encode(sample.instruction)),
    )
