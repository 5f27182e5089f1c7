"""transformers' arms: the plain answer, and instruction optimization as one would write it with transformers at hand.

The latter encodes the picture in every call, scores one instruction at a time, and writes token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.bench.replay import ScriptedLogits
from vlinstruct.bench.workload import ANSWER, INSTRUCTION, OPTIMIZED, REWRITTEN, Workload
from vlinstruct.instruction.templates import Templates
from vlinstruct.values import ScoredInstruction, TokenScores


class TheirArms:
    """Both arms on transformers' model; tokenizers and preprocessing are ours, which costs them nothing extra.

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
        self.theirs.language_model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **self._settings(written, len(written))
        )

    def _settings(self, script: Sequence[int], num_tokens: int) -> dict[str, Any]:
        return {
            "logits_processor": [ScriptedLogits(script)],
            "max_new_tokens": num_tokens,
            "min_new_tokens": num_tokens,
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
        pixels = self.ours.image_processor(images).to(self.theirs.dtype)
        return {"pixel_values": pixels, **inputs} if self.theirs.device.type == "cpu" else self._moved(pixels, inputs)

    def _moved(self, pixels: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.theirs.device) for name, tensor in {"pixel_values": pixels, **inputs}.items()}

    def _generate(
        self, images: Sequence[Image.Image], prompt: str, qformer_text: str, script: Sequence[int], num_tokens: int
    ) -> None:
        self.theirs.generate(**self._inputs(images, prompt, qformer_text), **self._settings(script, num_tokens))

    def _score(self, image: Image.Image, text: str) -> ScoredInstruction:
        nll = self.target_nll(image, self.templates.score_prompt(), text, self.ours.tokenizer.target_ids(text))
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
            logits = self.theirs(**inputs).logits[:, -target.shape[1] - 1 : -1]
        nll: list[float] = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), target, reduction="none")[
            0
        ].tolist()
        return nll
