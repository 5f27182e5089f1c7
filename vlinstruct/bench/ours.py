"""Our arms: the plain answer, and instruction optimization with the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.bench.drafts import draft_of
from vlinstruct.bench.replay import ReplayedLanguageModel
from vlinstruct.bench.workload import ANSWER, INSTRUCTION, OPTIMIZED, REWRITTEN, Workload
from vlinstruct.model import Model
from vlinstruct.settings import DraftedGeneration, GenerationSettings, OptimizationSettings
from vlinstruct.values import Percept


class _ReplayedModel(InstructBlipBackend):
    """A model whose drafts are those of the workload: of what will be written, and right in its share."""

    def __init__(self, model: InstructBlipBackend, workload: Workload) -> None:
        super().__init__(
            model.network,
            image_processor=model.image_processor,
            tokenizer=model.tokenizer,
            qformer_tokenizer=model.qformer_tokenizer,
        )
        target_ids = model.tokenizer.target_ids
        self.drafts = {text: draft_of(text, workload.acceptance, target_ids) for text in (REWRITTEN, OPTIMIZED)}

    def generate_text(self, prompts: Sequence[str], config: GenerationSettings) -> list[str]:
        return super().generate_text(prompts, self._drafted(config, REWRITTEN))

    def generate(
        self, percept: Percept, prompts: Sequence[str], qformer_texts: Sequence[str], config: GenerationSettings
    ) -> list[str]:
        return super().generate(percept, prompts, qformer_texts, self._drafted(config, OPTIMIZED))

    def _drafted(self, config: GenerationSettings, written: str) -> GenerationSettings:
        if not isinstance(config, DraftedGeneration):
            return config
        return replace(config, drafts=(self.drafts[written],) * len(config.drafts))


class OurArms:
    """Both arms on one loaded model, whose language model becomes a replayed one.

    Args:
        pipeline: the model.
        images: one per row.
        workload: what is asked and written.
    """

    def __init__(self, pipeline: Model, images: Sequence[Image.Image], workload: Workload) -> None:
        model = pipeline.backend
        if not isinstance(model.network.language_model, ReplayedLanguageModel):
            model.network.language_model = ReplayedLanguageModel(model.network.language_model)
        self.language_model = model.network.language_model
        self.model = _ReplayedModel(model, workload)
        self.images = images
        self.generation = GenerationSettings(max_new_tokens=workload.answer_tokens)
        target_ids = model.tokenizer.target_ids
        self.instructions = [target_ids(text) for text in (REWRITTEN, OPTIMIZED)]
        self.answer = model.tokenizer.encode(ANSWER)

    def plain(self) -> None:
        """Answers."""
        pipeline = Model(self.model)
        self.language_model.replay([self.answer])
        pipeline.ask_each(pipeline.see(*self.images), self._questions(), generation=self.generation)

    def optimized(self) -> None:
        """Rewrites, scores, compares, scores and answers; nothing is known from earlier runs."""
        pipeline = Model(self.model)
        self.language_model.replay([*self.instructions, self.answer])
        pipeline.ask_each(
            pipeline.see(*self.images),
            self._questions(),
            optimize=True,
            optimization=OptimizationSettings(select="safe"),
            generation=self.generation,
        )

    def _questions(self) -> list[str]:
        return [INSTRUCTION] * len(self.images)
