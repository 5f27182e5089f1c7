"""Ranking many candidates for one question, as Visual Dialog asks: read once for all of them, or once for each.

All arms know the picture and score the same tokens. transformers' encodes the picture for every candidate, as a
loop over its forward does; ours one by one shares the picture, ours together the question as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import torch

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.bench.theirs import TheirArms
from vlinstruct.bench.timing import Timing, picture, seconds_of, timed_in_turns
from vlinstruct.bench.workload import Workload
from vlinstruct.model import Model
from vlinstruct.values import good

RANKING_ARMS = ("transformers, one by one", "vlinstruct, one by one", "vlinstruct, together")
_QUESTION = "Question: What is in the picture? \n Short answer:"
_WORDS = ("", "yes", "no", "a", "the", "two", "small", "large"), ("red", "blue", "green", "white"), ("circle", "square")


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What ranking took.

    Args:
        num_candidates: how many were ranked.
        timings: of every arm.
        largest_difference: between transformers' losses and ours together, in nats per token.
    """

    num_candidates: int
    timings: tuple[Timing, ...]
    largest_difference: float

    def speedup(self, arm: str) -> float:
        """Returns how many times as fast as an arm ranking together is."""
        medians = {timing.arm: timing.median_s for timing in self.timings}
        return medians[arm] / medians[RANKING_ARMS[-1]]


def candidates(count: int) -> list[str]:
    """Returns different short answers, one to four words long.

    >>> candidates(3)
    ['red circle', 'red square', 'blue circle']
    """
    answers = (" ".join(filter(None, words)) for words in product(*_WORDS))
    longer = (f"{answer} {number}" for number in range(10**6) for answer in candidates(64))
    return list(islice(answers if count <= 64 else longer, count))


def compare_ranking(backend: InstructBlipBackend, theirs: Any, count: int, runs: int) -> Ranking:
    """Ranks with every arm in turns.

    Args:
        backend: ours.
        theirs: transformers' model with the same weights.
        count: candidates, at least 2.
        runs: of every arm, at least 2.
    """
    image, options = picture(), candidates(count)
    losses: dict[str, list[float]] = {}
    model, reference = Model(backend), TheirArms(theirs, backend, [image], Workload())

    def one_by_one() -> None:
        seen = model.see(image)
        for text in options:
            model.rank_each([seen], [_QUESTION], [[text]])

    def together() -> None:
        (outcome,) = model.rank_each([model.see(image)], [_QUESTION], [options])
        losses["ours"] = [scores.mean_nll for scores in good(outcome)]

    @torch.inference_mode()
    def transformers() -> None:
        targets = [backend.tokenizer.target_ids(text) for text in options]
        nll = [reference.target_nll(image, _QUESTION, _QUESTION, target) for target in targets]
        losses["theirs"] = [sum(tokens) / len(tokens) for tokens in nll]

    timings = timed_in_turns(dict(zip(RANKING_ARMS, (transformers, one_by_one, together), strict=True)), runs)
    # A speed-up counts only if the same was computed: the losses of both are compared, too.
    largest = max(abs(own - other) for own, other in zip(losses["ours"], losses["theirs"], strict=True))
    return Ranking(num_candidates=count, timings=timings, largest_difference=largest)


def ranking_table(ranking: Ranking) -> str:
    """Returns the measurement as lines."""
    lines = [f"ranking {ranking.num_candidates} candidates"]
    for timing in ranking.timings:
        low, high = timing.quartiles_s
        spread = f"{1e3 * timing.median_s:9.1f} ms  ({1e3 * low:.1f} to {1e3 * high:.1f})"
        lines.append(f"  {timing.arm:24} {spread:36} together is {ranking.speedup(timing.arm):.1f} times as fast")
    return "\n".join([*lines, f"  losses differ by at most {ranking.largest_difference:.1e} nats per token"])


def ranking_record(backbone: str, ranking: Ranking, environment: dict[str, Any]) -> dict[str, Any]:
    """Returns a ranking as a record, every run's seconds included."""
    return {
        "schema": "vlinstruct.bench.ranking/1",
        "id": backbone,
        "status": "ok",
        "environment": environment,
        "candidates": ranking.num_candidates,
        "seconds": seconds_of(ranking.timings),
        "median_speedup": {arm: ranking.speedup(arm) for arm in RANKING_ARMS},
        "largest_difference": ranking.largest_difference,
    }
