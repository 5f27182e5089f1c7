"""All that instruction optimization knows of a model.

A row is one item of a batch: `percept`, `prompts`, `qformer_texts` and `targets` have one entry per row. Any model that
implements these four methods can be optimized for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Percept, TokenScores


class InstructionModel(Protocol):
    """A vision-language model as the instruction room sees it."""

    def encode(self, media: Sequence[Any]) -> Percept:
        """Runs the vision tower, once per image.

        Args:
            media: the images, as the model takes them (PIL images for the InstructBLIP family).

        Returns:
            One percept with an item per image.
        """
        ...

    def generate_text(self, prompts: Sequence[str], config: GenerationSettings) -> list[str]:
        """Continues every prompt with the language model alone; no image."""
        ...

    def generate(
        self, percept: Percept, prompts: Sequence[str], qformer_texts: Sequence[str], config: GenerationSettings
    ) -> list[str]:
        """Continues every prompt given its row's image; `qformer_texts` is what the Q-Former reads."""
        ...

    def token_nll(
        self, percept: Percept, prompts: Sequence[str], qformer_texts: Sequence[str], targets: Sequence[str]
    ) -> list[TokenScores]:
        """Scores every target, end token included, as the continuation of its row's prompt; nats, one batch."""
        ...


class CertaintyModel(InstructionModel, Protocol):
    """One that also says how sure its language model is of a text: what `least_certainty` needs."""

    def text_nll(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TokenScores]:
        """Does what `token_nll` does with the language model alone; no image."""
        ...
