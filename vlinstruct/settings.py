"""Settings: frozen, keyword-only, checked once when they are made, all problems named together. No torch.

A call that takes minutes must not fail at its end for a number that was wrong at its start, nor name one mistake a run.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, fields, replace
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypedDict, TypeVar, get_args

from vlinstruct.errors import UsageError, require

Select = Literal["safe", "cross", "agree", "ias", "paper"]
"""The rules of `instruction/choose.py`, which has one function for each."""
When = Literal["unsure", "always"]
"""When an instruction is optimized before it is answered."""
Quantization = Literal["8bit", "4bit"]
Tracker = Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"]
"""Where accelerate can send the curves of a training."""


class _Settings(Protocol):
    """A dataclass of settings."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


S = TypeVar("S", bound=_Settings)
F = TypeVar("F", bound=Callable[..., Any])

MAX_FRAMES = 128
"""The most frames of a clip: 128 of InstructBLIP's are 4,096 positions in front of a prompt."""

MAX_NEW_TOKENS = 4_096
"""The most tokens of an answer or an instruction: far above what the models of this package write."""


def _new_tokens_in_range(max_new_tokens: int) -> tuple[bool, str]:
    """Returns a claim for `require`: whether a number of tokens can be written, and what to say if not."""
    holds = 1 <= max_new_tokens <= MAX_NEW_TOKENS
    return holds, f"max_new_tokens must be 1 to {MAX_NEW_TOKENS}, got {max_new_tokens}"


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How text is generated; names and meaning as in transformers' GenerationConfig.

    Args:
        max_new_tokens: most tokens to generate, at least 1.
        num_beams: 1 is greedy (or sampling), more is beam search; the field's numbers use 5.
        length_penalty: exponent of the length that divides a beam's log-likelihood; above 0 favours long answers.
        repetition_penalty: above 1 makes tokens already generated less likely; 1 is off.
        do_sample: sample tokens instead of taking the likeliest.
        temperature: divides the logits when sampling, above 0.
        top_p: keep the likeliest tokens whose probability sums to this when sampling, above 0 to 1.
        seed: of the sampling, 0 to 2^64 - 1.
    """

    max_new_tokens: int = 64
    num_beams: int = 1
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            _new_tokens_in_range(self.max_new_tokens),
            (1 <= self.num_beams <= 64, f"num_beams must be 1 to 64, got {self.num_beams}"),
            (math.isfinite(self.length_penalty), f"length_penalty must be finite, got {self.length_penalty}"),
            (
                0 < self.repetition_penalty < math.inf,
                f"repetition_penalty must be above 0, got {self.repetition_penalty}",
            ),
            (0 < self.temperature < math.inf, f"temperature must be above 0, got {self.temperature}"),
            (0 < self.top_p <= 1, f"top_p must be above 0 and at most 1, got {self.top_p}"),
            (0 <= self.seed < 2**64, f"seed must be 0 to 2^64 - 1, got {self.seed}"),
            (not (self.do_sample and self.num_beams > 1), "sampling needs num_beams 1"),
        )

    def seed_of(self, draw: int) -> int:
        """Returns the seed of one of several samples of equal rows, 0 to 2^64 - 1."""
        # 2^64 divided by the golden ratio: neighbouring draws do not become neighbouring seeds.
        return (self.seed + draw * 0x9E3779B97F4A7C15) % 2**64


class GenerationOptions(TypedDict, total=False):
    """`GenerationSettings` as keywords of a call; a test says that the two agree, as of the other options here."""

    max_new_tokens: int
    num_beams: int
    length_penalty: float
    repetition_penalty: float
    do_sample: bool
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What a rule compares with. Certainties of two models cannot be compared, so they stand with a backbone's entry.

    Args:
        least_certainty: the probability that every token of a rewriting must have had, 0 to 1; below it the model has
            not understood what it rewrote. 0 is off.
        max_cross_nll: mean nats at which an answer no longer answers the user's own words, above 0.
        sure_above: the certainty of the answer to the user's own words, 0 to 1, above which they are left alone.
    """

    least_certainty: float = 0.0
    max_cross_nll: float = 1.0
    sure_above: float = 0.67

    def __post_init__(self) -> None:
        require(
            (0 <= self.least_certainty <= 1, f"least_certainty must be 0 to 1, got {self.least_certainty}"),
            (self.max_cross_nll > 0, f"max_cross_nll must be above 0, got {self.max_cross_nll}"),
            (0 <= self.sure_above <= 1, f"sure_above must be 0 to 1, got {self.sure_above}"),
        )


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings:
    """How instructions are optimized (algorithm 2).

    Args:
        select: which candidate is used, a rule of `instruction/choose.py`; `paper` always takes the optimized one,
            `safe` what never makes an answer worse.
        when: `unsure` leaves the user's words alone where the answer to them is certain; `always` runs algorithm 2
            anyway. None is `unsure` under `safe` and `always` under the other rules.
        keep: words that every candidate must keep where the user's have them.
        variants: further candidates of the user's own.
        num_rewritings: how often the instruction is rewritten: once greedily, the others sampled; at least 1.
        rewrite_seeing: whether the sampled ones are written with the image before the model.
        max_new_tokens: most tokens of a rewritten or optimized instruction, at least 1.
        least_certainty: see `Thresholds`, as the next two; None is the backbone's own.
        max_cross_nll: see `Thresholds`.
        sure_above: see `Thresholds`.
    """

    select: Select = "safe"
    when: When | None = None
    keep: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    num_rewritings: int = 1
    rewrite_seeing: bool = False
    max_new_tokens: int = 128
    least_certainty: float | None = None
    max_cross_nll: float | None = None
    sure_above: float | None = None

    def __post_init__(self) -> None:
        texts = {"keep": self.keep, "variants": self.variants}
        require(
            *(  # a single text would be taken for its letters
                (not isinstance(value, str), f"{name} must be a list of texts, got {value!r}")
                for name, value in texts.items()
            ),
            (self.select in get_args(Select), f"select must be {' or '.join(get_args(Select))}, got {self.select!r}"),
            (self.when in (None, *get_args(When)), f"when must be unsure or always, got {self.when!r}"),
            (not self.rewrite_seeing or self.num_rewritings > 1, "rewrite_seeing needs num_rewritings of 2 or more"),
            (1 <= self.num_rewritings <= 64, f"num_rewritings must be 1 to 64, got {self.num_rewritings}"),
            _new_tokens_in_range(self.max_new_tokens),
        )
        self.thresholds(Thresholds())  # checks those that are set

    @property
    def leaves_sure_alone(self) -> bool:
        """Whether the user's words are left alone where the answer to them is certain."""
        return self.when == "unsure" or (self.when is None and self.select == "safe")

    def thresholds(self, backbones_own: Thresholds) -> Thresholds:
        """Returns the backbone's thresholds with those that are set here."""
        names = [field.name for field in fields(Thresholds)]
        return replace(backbones_own, **{name: value for name in names if (value := getattr(self, name)) is not None})

    def generation(self) -> GenerationSettings:
        """Returns how instructions are rewritten and compared: greedily, so that a rewriting can be remembered."""
        return GenerationSettings(max_new_tokens=self.max_new_tokens)


class ChoosingOptions(TypedDict, total=False):
    """Those `OptimizationSettings` that mean the same where an answer is generated, too."""

    select: Select
    when: When | None
    keep: tuple[str, ...]
    variants: tuple[str, ...]
    num_rewritings: int
    rewrite_seeing: bool
    least_certainty: float | None
    max_cross_nll: float | None
    sure_above: float | None


class OptimizationOptions(ChoosingOptions, total=False):
    """`OptimizationSettings` as keywords of a call."""

    max_new_tokens: int


class AnswerOptions(GenerationOptions, ChoosingOptions, total=False):
    """Both as keywords of a call that answers: `max_new_tokens` is the answer's."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a server is asked that runs the model.

    Args:
        served_model: what it calls the model; the only one that it serves if None.
        concurrency: requests in flight, 1 to 4096.
        timeout: seconds for one try of a request, above 0.
    """

    served_model: str | None = None
    concurrency: int = 16
    timeout: float = 300.0

    def __post_init__(self) -> None:
        require(
            (1 <= self.concurrency <= 4096, f"concurrency must be 1 to 4096, got {self.concurrency}"),
            (0 < self.timeout < math.inf, f"timeout must be above 0, got {self.timeout}"),
        )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model, and how it is loaded; the meaning of each is that of `vlinstruct.load`'s argument."""

    backbone: str | None = None
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: Quantization | None = None
    image_size: int | None = None
    compile: bool = False
    think: bool = False
    offline: bool = False
    server: ServerSettings = ServerSettings()


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """Which frames of a clip are used; the backend's own number of them where nothing is set.

    Args:
        num_frames: the middles of so many equal parts of its duration, 1 to MAX_FRAMES.
        fps: one every 1/fps seconds from its beginning on, at most MAX_FRAMES; above 0.
    """

    num_frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        require(
            (self.num_frames is None or self.fps is None, "num_frames and fps cannot both be set"),
            (
                self.num_frames is None or 1 <= self.num_frames <= MAX_FRAMES,
                f"num_frames must be 1 to {MAX_FRAMES}, got {self.num_frames}",
            ),
            (self.fps is None or 0 < self.fps < math.inf, f"fps must be above 0, got {self.fps}"),
        )


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How items are worked on.

    Args:
        model: the model.
        templates: a YAML file with the user's own templates; the shipped ones if None.
        batch_size: items that go through the model together, at least 1.
        max_pixels: larger pictures are refused before they are decoded.
        allow_truncated: read what is there of a picture that was cut off.
        clips: which frames of clips are used.
        max_failures: stop after this many failed items; None never stops.
        overwrite: replace an output that is there already, instead of resuming it.
    """

    model: ModelSettings = ModelSettings()
    templates: Path | None = None
    batch_size: int = 1
    max_pixels: int = 50_000_000
    allow_truncated: bool = False
    clips: ClipSettings = ClipSettings()
    max_failures: int | None = None
    overwrite: bool = False


def check_options(options: Iterable[str], names: Iterable[str]) -> None:
    """Refuses keywords that are no settings.

    Args:
        options: the keywords of a call.
        names: what it takes.

    Raises:
        UsageError: some are unknown.

    >>> check_options(["num_beam"], ["num_beams", "seed"])
    Traceback (most recent call last):
        ...
    vlinstruct.errors.UsageError: unknown setting num_beam; did you mean num_beams?
    """
    names = list(names)
    for option in options:
        if option not in names:
            near = get_close_matches(option, names, n=1)
            raise UsageError(f"unknown setting {option}; {f'did you mean {near[0]}?' if near else ', '.join(names)}")


def takes_options(*kinds: type[_Settings], shows_defaults: bool = True) -> Callable[[F], F]:
    """Makes a function refuse keywords that are no settings, and show those that are in its signature.

    An editor reads `**options: Unpack[...]`; a notebook completes what the signature has, and `help` prints it.

    Args:
        *kinds: the settings whose fields the function takes as `**options`; of equal names the first one's.
        shows_defaults: whether what is left out is what the kinds say, and not e.g. a backbone's recipe.
    """
    settings: dict[str, Field[Any]] = {}
    for field in (field for kind in kinds for field in fields(kind)):
        settings.setdefault(field.name, field)

    def decorated(function: F) -> F:
        signature = inspect.signature(function)
        named = [it for it in signature.parameters.values() if it.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default if shows_defaults else ...,
                annotation=field.type,
            )
            for field in settings.values()
        ]
        names = [parameter.name for parameter in (*named, *options)]

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            check_options(kwargs, names)
            return function(*args, **kwargs)

        checked.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return decorated
