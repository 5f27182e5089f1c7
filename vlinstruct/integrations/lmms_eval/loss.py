"""What lmms-eval gets for an option: its loss, in a form that survives lmms-eval's own hands."""

from __future__ import annotations

from typing import Self

from lmms_eval.api.instance import GenerationResult


class Loss(tuple[float, bool], GenerationResult):  # type: ignore[misc]
    """A pair (mean loss in nats per token, lower is better; whether greedy decoding writes the option).

    lmms-eval 0.7.3 turns every result that is neither text nor a GenerationResult into a text (`api/instance.py`,
    `unwrap_generation_output`): a plain tuple reaches the task as "(0.5, True)", and no ranking can be scored. So this
    tuple is a GenerationResult, too, and its own text, which the response cache strips (`caching/response_cache.py`).

    Args:
        pair: the two values.
    """

    def __init__(self, pair: tuple[float, bool]) -> None:
        """Leaves out what a GenerationResult would keep."""

    @property
    def text(self) -> Self:
        """The pair: what the task gets."""
        return self

    def strip(self) -> Self:
        """Returns the pair: it is never blank."""
        return self
