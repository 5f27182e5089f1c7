"""How an instruction is tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from vlinstruct.errors import require
from vlinstruct.settings import GenerationSettings

Metric = Literal["exact", "vqa", "cider"]
"""Equal to an answer once normalized; VQA's accuracy over ten people's answers; CIDEr over a caption's references."""


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """How an instruction is tuned.

    Args:
        metric: what an answer's score is.
        tries: instructions of the user's own to try, too.
        budget: the most texts that the model may write, answers and proposals; None for as many as it takes.
        seed: of the division of the items, the samples and the resamples.
        generation: how answers are generated.
    """

    metric: Metric = "exact"
    tries: tuple[str, ...] = ()
    budget: int | None = None
    seed: int = 0
    generation: GenerationSettings = GenerationSettings()

    def __post_init__(self) -> None:
        metrics = get_args(Metric)
        require(
            (self.metric in metrics, f"metric must be {', '.join(metrics)}, got {self.metric!r}"),
            (self.budget is None or self.budget > 0, f"budget must be above 0, got {self.budget}"),
            (0 <= self.seed < 2**63, f"seed must be 0 to 2^63 - 1, got {self.seed}"),
        )


class TuneOptions(TypedDict, total=False):
    """`TuneSettings` as keywords of a call; a test says that the two agree."""

    metric: Metric
    tries: tuple[str, ...]
    budget: int | None
    seed: int
    generation: GenerationSettings
