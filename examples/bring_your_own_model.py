"""Optimizes instructions for any model that implements three methods; here one that knows nothing but word counts."""

from collections.abc import Sequence
from typing import Any

from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.instruction import Templates, optimize
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Failed, TokenScores


class WordCounter(Backend):
    """Rewrites by removing politeness; finds long instructions unlikely."""

    def see(self, media: Sequence[Any]) -> list[Seen | Failed]:
        return list(media)

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        # What is asked of it stands in the prompt; `guess` must change the speed alone.
        start, end = Templates.default().rewrite.split("{instruction}")
        texts = [row.reads or row.prompt.removeprefix(start).removesuffix(end) for row in rows]
        return [Written(text=text.replace("please", "").strip(), token_nll=(0.0,)) for text in texts]

    def score(
        self, rows: Sequence[Row], targets: Sequence[Sequence[str]], **_: Any
    ) -> list[list[TokenScores] | Failed]:
        return [[_counted(text.split()) for text in texts] for texts in targets]


def _counted(words: list[str]) -> TokenScores:
    return TokenScores(tokens=tuple(words), token_nll=(float(len(words)),) * len(words))


model = WordCounter()
seen = [picture for picture in model.see(["any picture"]) if not isinstance(picture, Failed)]
texts = ["please please count the 3 boats"]
(result,) = optimize(model, seen, texts, templates=Templates.default(), settings=OptimizationSettings())
print(result)
