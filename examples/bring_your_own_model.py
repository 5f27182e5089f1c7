"""Optimizes instructions for any model that implements four methods; here one that knows nothing but word counts."""

from collections.abc import Sequence
from typing import Any

from vlinstruct.instruction import Templates, optimize
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Percept, TokenScores


class WordCounter:
    """Rewrites by removing politeness; finds long instructions unlikely."""

    def encode(self, media: Sequence[Any]) -> Percept:
        import torch

        return Percept(image_embeds=torch.zeros(len(media), 1, 1))

    def generate_text(self, prompts: Sequence[str], config: GenerationSettings) -> list[str]:
        start, end = (part.strip() for part in Templates.default().rewrite.split("{instruction}"))
        return [prompt.removeprefix(start).removesuffix(end).replace("please", "").strip() for prompt in prompts]

    def generate(
        self, percept: Percept, prompts: Sequence[str], qformer_texts: Sequence[str], config: GenerationSettings
    ) -> list[str]:
        return [text.replace("please", "").strip() for text in qformer_texts]

    def token_nll(
        self, percept: Percept, prompts: Sequence[str], qformer_texts: Sequence[str], targets: Sequence[str]
    ) -> list[TokenScores]:
        words = [tuple(target.split()) for target in targets]
        return [TokenScores(tokens=row, token_nll=(float(len(row)),) * len(row)) for row in words]


model = WordCounter()
percept = model.encode(["any picture"])
texts = ["please please count the 3 boats"]
(result,) = optimize(model, percept, texts, templates=Templates.default(), config=OptimizationSettings())
print(result)
