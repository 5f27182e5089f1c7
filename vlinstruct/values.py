"""What crosses a room: frozen, keyword-only values without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from vlinstruct.errors import VlinstructError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from vlinstruct.backends.registry import Backbone

    Media: TypeAlias = "Image.Image | Clip | Sound"

T = TypeVar("T")
ROLES = ("initial", "rewritten", "optimized")
"""Algorithm 2's three instructions, in the order in which they come about; others are `variant 1` and so on."""

NUM_JUDGED_TOKENS = 8
"""How many first tokens of an answer are asked for their likelihood: a caption of 30 is never sure of all of them."""


def least_probability(token_nll: Sequence[float]) -> float:
    """Returns the probability of the least likely token; 0 without tokens, and where a score is not finite.

    >>> least_probability([0.0, math.log(2)])
    0.5
    """
    # `max` ranks a NaN anywhere: a broken score must not pass for certain.
    if not token_nll or not all(map(math.isfinite, token_nll)):
        return 0.0
    return math.exp(-max(token_nll))


@dataclass(frozen=True, kw_only=True)
class Failed:
    """What an item has in place of a result: it failed alone, the others were worked on.

    A value and not an exception, so that a batch returns all its outcomes in the order of its items.

    Args:
        error: what to tell the user; its code and message go into the item's record.
    """

    error: VlinstructError


def good(outcome: T | Failed) -> T:
    """Returns a result, or raises the error of what failed."""
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome


MediaKind = Literal["picture", "clip", "sound"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Frames of a moving picture, in order.

    Args:
        frames: upright RGB pictures of one size, N of at least 1.
        frame_indices: which frames of the source they are, counted from 0, rising, N.
        num_source_frames: of the whole source.
        fps: frames a second of the source, the mean where it varies.
        duration_s: of the whole source, in seconds.
    """

    frames: tuple[Image.Image, ...]
    frame_indices: tuple[int, ...]
    num_source_frames: int
    fps: float
    duration_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Sound:
    """A recording.

    Args:
        samples: one channel, (N,), float32 from -1 to 1, N of at least 1.
        sampling_rate: samples a second.
    """

    samples: NDArray[np.float32]
    sampling_rate: int


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """An earlier question of a conversation with its answer, as the model reads them."""

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What a backend says of itself before the first call.

    Args:
        media: the kinds that `see` takes.
        num_frames: of a clip, where the user names no number.
        can_score: it tells the likelihood of a given text.
        can_tell_nll: it tells the likelihood of what it wrote.
        can_write_alone: its language model writes without a picture.
        can_beam: it takes `num_beams` above 1.
        can_stream: its text comes piece by piece.
        keeps_typed_tokens: a control token that a user types stays literal text.
        num_in_flight: calls that it works on at the same time.
    """

    media: frozenset[MediaKind] = frozenset({"picture"})
    num_frames: int = 8
    can_score: bool = True
    can_tell_nll: bool = True
    can_write_alone: bool = True
    can_beam: bool = False
    can_stream: bool = False
    keeps_typed_tokens: bool = True
    num_in_flight: int = 1


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one call: read, of these not computed anew, and written (the end token included)."""

    prompt: int = 0
    cached: int = 0
    written: int = 0


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """How long a row is.

    Args:
        prompt: tokens that the language model reads, those of the picture left out.
        reads: tokens that the Q-Former reads; 0 where there is none.
        room: tokens by which the prompt may still grow, below 0 where it is too long already; None without a limit.
        is_room_shared: what is written takes from the same room (decoder-only models).
    """

    prompt: int
    reads: int = 0
    room: int | None = None
    is_room_shared: bool = True

    def has_room(self, max_new_tokens: int) -> bool:
        """Says whether the prompt, and as many new tokens after it, fit."""
        return self.room is None or self.room >= (max_new_tokens if self.is_room_shared else 0)


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
        # Told by a NaN of its own, which callers check: `max` and `sorted` rank a NaN anywhere without an error.
        if not self.token_nll or not all(map(math.isfinite, self.token_nll)):
            return math.nan
        return math.fsum(self.token_nll) / len(self.token_nll)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMap:
    """Where a model's queries look in a picture, and which words they read: for people to look at.

    Args:
        looks: every query's attention over the picture's patches, (Q, rows, columns), 0 to 1; what a query's patches
            lack to 1 lies on the class token.
        tokens: what the queries read beside the picture, T.
        reads: every query's attention over these, (Q, T), its sum 1; None where the model has none.
    """

    looks: NDArray[np.float32]
    tokens: tuple[str, ...]
    reads: NDArray[np.float32] | None = None


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
class Answer:
    """What the model answers.

    Args:
        text: the answer; with `choices`, the most probable of them.
        instruction: what was asked in the end: the question, or the instruction that optimization chose.
        choices: the offered answers in the order they were offered; empty when none were.
        token_nll: nats of every token that was written, the end token last if it came; None where there are choices,
            and where the backend cannot tell.
        optimization: how the instruction came about; None when the question was asked as typed.
    """

    text: str
    instruction: str
    choices: tuple[Choice, ...] = ()
    token_nll: tuple[float, ...] | None = field(default=None, repr=False)
    optimization: Optimization | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def certainty(self) -> float | None:
        """The probability of the least likely of the first tokens, or of the likeliest choice; None if unknown.

        >>> Answer(text="red", instruction="what?", token_nll=(0.0, math.log(2))).certainty
        0.5
        """
        if self.choices:
            return max(choice.probability for choice in self.choices)
        if self.token_nll is None:
            return None
        return least_probability(self.token_nll[:NUM_JUDGED_TOKENS])


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the answer to a candidate instruction tells of it.

    Args:
        answer: to the candidate.
        cross_nll: how implausible that answer is as one to the initial instruction: mean nats of its first tokens after
            that instruction, or minus the logarithm of its probability among the choices; None where the backend does
            not score texts, and for the initial instruction itself.
    """

    answer: Answer
    cross_nll: float | None = None


@dataclass(frozen=True, kw_only=True)
class ScoredInstruction:
    """An instruction and its IAS (eq. 3): mean nats per token given the image, lower is better.

    Args:
        text: the instruction.
        ias: NaN where it is not finite, or was not asked for (`scores` is empty then).
        scores: token by token.
        faults: why its text cannot be trusted in place of the user's own words, in words.
        written_certainty: the probability of its least likely token when the model wrote it; None for what it did not
            write, and where that is not known.
        judgement: what its answer tells of it; None where it was not answered.
    """

    text: str
    ias: float
    scores: TokenScores = field(repr=False)
    faults: tuple[str, ...] = field(default=(), repr=False)
    written_certainty: float | None = field(default=None, repr=False)
    judgement: Judgement | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """Algorithm 2's result for one image and one instruction.

    Args:
        initial: the user's instruction.
        rewritten: the language model's rewriting of it; None where the user's words were left alone.
        optimized: what the model wrote after comparing the two; None where the user's words were left alone.
        chosen: the role of the one that is used.
        reason: one sentence that says why.
        variants: further candidates.
        notices: what a user should know, e.g. that the rewriting was empty and the initial instruction stood in.
    """

    initial: ScoredInstruction
    rewritten: ScoredInstruction | None = None
    optimized: ScoredInstruction | None = None
    chosen: str
    reason: str
    variants: tuple[ScoredInstruction, ...] = ()
    notices: tuple[str, ...] = ()

    def by_role(self) -> dict[str, ScoredInstruction]:
        """Returns the candidates by role, the initial instruction first."""
        three = dict(zip(ROLES, (self.initial, self.rewritten, self.optimized), strict=True))
        variants = {f"variant {place}": variant for place, variant in enumerate(self.variants, start=1)}
        return {role: scored for role, scored in (three | variants).items() if scored is not None}

    @property
    def used(self) -> ScoredInstruction:
        """The chosen instruction."""
        return self.by_role()[self.chosen]

    @property
    def instruction(self) -> str:
        """The chosen instruction's text."""
        return self.used.text

    @property
    def left_alone(self) -> bool:
        """Whether nothing was rewritten, as the answer to the user's own words was certain."""
        return self.rewritten is None


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which model a backend runs: found once for a command and carried, so that nothing is resolved or read twice.

    Args:
        name: as it was typed, or the default's; what records call it.
        folder: where its files lie; None for a server.
        url: the server's address; None for a folder.
        revision: the hub's commit that the files are of; None for others.
        entry: what is known of it by name; None for a stranger, whatever its shape.
        config: the content of its `config.json`.
        is_chat_model: whether it reads what people say in turns of a chat template, and was trained to.
        read_fingerprint: reads what `fingerprint` returns.
    """

    name: str
    folder: Path | None = None
    url: str | None = None
    revision: str | None = None
    entry: Backbone | None = None
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    is_chat_model: bool = False
    read_fingerprint: Callable[[], str] = field(default=lambda: "", repr=False, compare=False)

    @cached_property
    def fingerprint(self) -> str:
        """Tells its weights from others of the same shape; read when it is first asked for."""
        return self.read_fingerprint()
