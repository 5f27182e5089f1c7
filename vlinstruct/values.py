"""What crosses a room: frozen, keyword-only values without torch.

Legend: N items of a percept, P positions of the encoded image (patches + 1), D its width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Role = Literal["initial", "rewritten", "optimized"]


@dataclass(frozen=True, kw_only=True)
class Percept:
    """What the vision tower saw: computed once per image, read by every later call.

    Args:
        image_embeds: the encoder's output, (N, P, D).
        prefixes: per item, what the model has made of it for each text that its Q-Former has read: a memory that the
            model fills and that items at the same image share.
    """

    image_embeds: Tensor
    prefixes: tuple[dict[str, Tensor], ...] = ()

    def __post_init__(self) -> None:
        if not self.prefixes:
            object.__setattr__(self, "prefixes", tuple({} for _ in range(len(self))))

    def __len__(self) -> int:
        return int(self.image_embeds.shape[0])

    def select(self, indices: Sequence[int]) -> Percept:
        """Returns the percept of the items at `indices`; an index may occur more than once."""
        if list(indices) == list(range(len(self))):
            return self
        prefixes = tuple(self.prefixes[index] for index in indices)
        return Percept(image_embeds=self.image_embeds[list(indices)], prefixes=prefixes)


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """The negative log-likelihood of every token of a target.

    Args:
        tokens: the target's tokens as text, the end token last.
        token_nll: nats per token, same length as `tokens`.

    >>> TokenScores(tokens=("a", "</s>"), token_nll=(1.0, 3.0)).mean_nll
    2.0
    """

    tokens: tuple[str, ...]
    token_nll: tuple[float, ...]

    @property
    def mean_nll(self) -> float:
        """Mean over all tokens, in nats; NaN for an empty target or where a token's score is not finite."""
        if not self.token_nll or not all(map(math.isfinite, self.token_nll)):
            return math.nan
        return math.fsum(self.token_nll) / len(self.token_nll)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of the answers offered to the model.

    Args:
        text: the answer as offered.
        probability: softmax over the offered answers of their mean token log-likelihood (length-normalised), 0 to 1.
        nll: mean negative log-likelihood per token, in nats.
    """

    text: str
    probability: float
    nll: float


@dataclass(frozen=True, kw_only=True)
class ScoredInstruction:
    """An instruction and its IAS (eq. 3): mean nats per token given the image, lower is better."""

    text: str
    ias: float
    scores: TokenScores = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """Algorithm 2's result for one image and one instruction.

    Args:
        initial: the user's instruction.
        rewritten: the language model's rewriting of it.
        optimized: what the comparison of the two brought forth.
        chosen: which of the three is used.
        reason: one sentence that says why.
        notices: what a user should know, e.g. that the rewriting was empty and the initial instruction stood in.
    """

    initial: ScoredInstruction
    rewritten: ScoredInstruction
    optimized: ScoredInstruction
    chosen: Role
    reason: str
    notices: tuple[str, ...] = ()

    @property
    def instruction(self) -> str:
        """The chosen instruction's text."""
        scored: ScoredInstruction = getattr(self, self.chosen)
        return scored.text


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model answers.

    Args:
        text: the answer; with `choices`, the most probable of them.
        instruction: what was asked in the end: the question, or the instruction that optimization chose.
        choices: the offered answers in the order they were offered; empty when none were.
        optimization: how the instruction came about; None when it was asked as typed.
    """

    text: str
    instruction: str
    choices: tuple[Choice, ...] = ()
    optimization: Optimization | None = None

    def __str__(self) -> str:
        return self.text
