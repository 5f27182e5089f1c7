"""A loaded model that answers, scores and optimizes, one item or many: a backend joined with the instructions' room.

    import vlinstruct as vli
    model = vli.load("mini")
    model.ask("sign.png", "what is written?").text

The vision tower runs once per picture: `see` it, then ask as often as you like. What ends with `_each` takes many rows
and gives a `Failed` where one of them fails; what does not takes one and raises.

Legend: B rows, one picture each; K texts per row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from vlinstruct.backend import Backend, Row, Seen, check_rows
from vlinstruct.backends.opening import load_backend
from vlinstruct.errors import InputError, UsageError, shortened
from vlinstruct.instruction import Templates
from vlinstruct.instruction import answer as answer_instructions
from vlinstruct.instruction import optimize as optimize_instructions
from vlinstruct.instruction import score as score_instructions
from vlinstruct.instruction.answer import no_finite_score
from vlinstruct.instruction.judge import Answering, wrapped
from vlinstruct.instruction.rewrite import Rewritings
from vlinstruct.instruction.score import is_finite
from vlinstruct.instruction.shared import optimize_for_all
from vlinstruct.media.images import DEFAULT_LIMITS, PICTURE_TYPES, ImageLimits, is_array
from vlinstruct.media.images import ImageLike as ImageLike  # a part of this module's interface
from vlinstruct.media.load import MediaSettings, load_medium
from vlinstruct.settings import (
    AnswerOptions,
    ChoosingOptions,
    ClipSettings,
    GenerationSettings,
    ModelSettings,
    OptimizationOptions,
    OptimizationSettings,
    Quantization,
    ServerSettings,
    Thresholds,
    takes_options,
)
from vlinstruct.text import check_instruction
from vlinstruct.values import Answer, Clip, Failed, Identity, Optimization, ScoredInstruction, Sound, TokenScores, good

if TYPE_CHECKING:
    from vlinstruct.chat import Chat, ChatSettings
    from vlinstruct.media.load import MediaLike
    from vlinstruct.values import Media

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A folder has one instruction or a few, a data set perhaps one per picture: far more than these are not worth keeping.
_MAX_REWRITINGS = 4096


@takes_options()
def load(
    backbone: str | PathLike[str] | Identity | None = None,
    *,
    adapter: str | PathLike[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantize: Quantization | None = None,
    image_size: int | None = None,
    compile: bool = False,
    think: bool = False,
    offline: bool = False,
    server: ServerSettings = ServerSettings(),
    templates: Templates | None = None,
) -> Model:
    """Loads a model.

    On CUDA, cuDNN's attention is switched off for the process (`backends/instructblip/attention.py` says why).

    Args:
        backbone: `mini`, `mini-llama`, a paper backbone's name, a local folder, a hub id, or a server's URL (several
            of the same model with commas between); `$VLINSTRUCT_BACKBONE` or mini if None. Or an identity that `find`
            returned for one of these.
        adapter: a folder of trained alignment layers; it brings its EMA flag with it.
        device: `auto` takes CUDA (all GPUs and memory, where one is too small), then MPS, then the CPU; or a torch
            device.
        dtype: `auto` is float32 on the CPU and bfloat16 elsewhere; or float32, bfloat16, float16.
        quantize: `8bit` or `4bit` for the language model's layers; everything else keeps its precision.
        image_size: side in pixels that pictures are read at, the trained positions interpolated; the model's own, at
            which it was trained, if None.
        compile: run small batches without Python between layers: on one CUDA device kernels are recorded at the first
            use of a shape, on a CPU they are compiled, some seconds each. Texts are the same but for the order of sums.
        think: let a model that can think do so before it answers; what it thinks is never part of an answer.
        offline: use what is cached, open no connection.
        server: how a server is asked, where the backbone is one.
        templates: the texts that optimization sends to it; the shipped ones if None.

    Raises:
        CheckpointError: the model or the adapter was refused.
        NetworkError: it has to be downloaded and cannot be.
        InputError: no such device or dtype here.
        ResourceError: its weights do not fit into the memory that is free.
    """
    settings = ModelSettings(
        adapter=None if adapter is None else fspath(adapter),
        device=device,
        dtype=dtype,
        quantize=quantize,
        image_size=image_size,
        compile=compile,
        think=think,
        offline=offline,
        server=server,
    )
    backend = load_backend(backbone, settings)
    return Model(backend, templates=templates)


class Model:
    """A loaded model.

    Args:
        backend: sees, writes and scores.
        templates: the texts that optimization sends to it; the shipped ones if None.
        thresholds: what an `OptimizationSettings` that leaves them to the backbone gets; the registry's if None.
        limits: how large the pictures that it sees may be, and how whole they must be; an attribute, too.
        clips: which frames of clips it sees; an attribute, too.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        templates: Templates | None = None,
        thresholds: Thresholds | None = None,
        limits: ImageLimits = DEFAULT_LIMITS,
        clips: ClipSettings = ClipSettings(),
    ) -> None:
        self.backend = backend
        self.limits = limits
        self.clips = clips
        self.templates = templates or Templates.default()
        if thresholds is None:
            backbone = backend.identity.entry
            thresholds = Thresholds() if backbone is None else backbone.thresholds
        self.thresholds = thresholds
        self._rewritings: Rewritings = {}

    def __repr__(self) -> str:
        kinds = " and ".join(f"{kind}s" for kind in sorted(self.backend.abilities.media))
        return f"<Model {shortened(self.backend.identity.name, 80)}, takes {kinds}>"

    @property
    def revision(self) -> str | None:
        """The hub's commit that the weights are of; None for others."""
        return self.backend.identity.revision

    def see(self, image: MediaLike) -> Seen:
        """Looks at a picture or a clip, or listens to a sound, once for every call that it is given to.

        Args:
            image: a path, encoded bytes, a binary file object, a PIL picture, an array (H, W) or (H, W, 3) of uint8 or
                of floats from 0 to 1, a `Clip` or a `Sound`; each is read alike, so a PIL picture is turned upright by
                its EXIF and laid on white, as its file would be.

        Raises:
            InputError: it cannot be read, or the backend does not take its kind.
            ResourceError: the package that reads it is not installed.
        """
        return _only(self.see_each([image]))

    def prepare(self, medium: Media) -> Media:
        """Returns what `see` needs of a picture, clip or sound, for who keeps many that wait to be seen."""
        return self.backend.prepare(medium)

    def see_each(self, images: Sequence[MediaLike]) -> list[Seen | Failed]:
        """Looks at pictures, clips and sounds together.

        Returns:
            What was seen of each, or why it cannot be read.
        """
        settings = MediaSettings(images=self.limits, clips=self.clips)
        outcomes: list[Media | Failed] = []
        for image in images:
            try:
                loaded = load_medium(image, settings=settings, abilities=lambda: self.backend.abilities)
            except InputError as error:
                outcomes.append(Failed(error=error))
                continue
            for notice in loaded.notices:
                logger.warning("%s", notice)
            outcomes.append(self.backend.prepare(loaded.medium))
        media = [outcome for outcome in outcomes if not isinstance(outcome, Failed)]
        seen = iter(self.backend.see(media) if media else ())
        return [outcome if isinstance(outcome, Failed) else next(seen) for outcome in outcomes]

    @takes_options(GenerationSettings, OptimizationSettings)
    def ask(
        self,
        image: MediaLike | Seen,
        question: str,
        *,
        choices: Sequence[str] = (),
        optimize: bool = False,
        optimization: OptimizationSettings | None = None,
        generation: GenerationSettings | None = None,
        **options: Unpack[AnswerOptions],
    ) -> Answer:
        """Answers a question about one picture.

        Args:
            image: a picture, clip or sound, or what `see` returned for it.
            question: sent verbatim.
            choices: answers to rank instead of generating one.
            optimize: run algorithm 2 and answer the instruction that it chooses.
            optimization: how it chooses.
            generation: how the answer is generated.
            **options: fields of `GenerationSettings`, and with `optimize` those of `OptimizationSettings`, in place of
                what the two say; `max_new_tokens` is the answer's.

        Raises:
            UsageError: an option is unknown, out of range, or changes nothing without `optimize`.
            InputError: the picture or the question cannot be used, or no score is finite.
        """
        generation, optimization = _with_options(options, optimize, generation, optimization)
        answers = self.ask_each(
            [self.seen_of(image)],
            [question],
            choices=[choices] if choices else None,
            optimize=optimize,
            optimization=optimization,
            generation=generation,
        )
        return _only(answers)

    @takes_options(OptimizationSettings)
    def optimize(
        self,
        instruction: str,
        image: MediaLike | Seen,
        *,
        optimization: OptimizationSettings | None = None,
        answering: Answering | None = None,
        **options: Unpack[OptimizationOptions],
    ) -> Optimization:
        """Optimizes an instruction for one picture (algorithm 2).

        Args:
            instruction: options included.
            image: a picture, clip or sound, or what `see` returned for it.
            optimization: how it is chosen.
            answering: as in `optimize_each`.
            **options: fields of `OptimizationSettings`, in place of what `optimization` says.

        Raises:
            UsageError: an option is unknown or out of range.
            InputError: the picture or the instruction cannot be used.
            ScoreError: no score is finite.
        """
        settings = replace(optimization or OptimizationSettings(), **options)
        seen = [self.seen_of(image)]
        return _only(self.optimize_each(seen, [instruction], optimization=settings, answering=answering))

    def score(self, image: MediaLike | Seen, *instructions: str) -> list[ScoredInstruction]:
        """Scores instructions for one picture (eq. 3), in the order given; lower is better."""
        return _only(self.score_each([self.seen_of(image)], [instructions]))

    @takes_options(GenerationSettings, OptimizationSettings)
    def chat(
        self,
        image: MediaLike | Seen,
        settings: ChatSettings | None = None,
        *,
        optimize: bool = False,
        **options: Unpack[AnswerOptions],
    ) -> Chat:
        """Begins a chat about one picture.

        Args:
            image: a picture, clip or sound, or what `see` returned for it.
            settings: how it answers.
            optimize: run algorithm 2 on every question, also where `settings` does not say so.
            **options: as in `ask`, in place of what `settings` says.

        Raises:
            UsageError: an option is unknown, out of range, or changes nothing without `optimize`.
            InputError: the picture cannot be used.
        """
        from vlinstruct.chat import Chat, ChatSettings

        settings = settings or ChatSettings()
        optimize = optimize or settings.optimize
        generation, optimization = _with_options(options, optimize, settings.generation, settings.optimization)
        settings = replace(settings, optimize=optimize, generation=generation, optimization=optimization)
        return Chat(self, image, settings=settings)

    def ask_each(
        self,
        seen: Sequence[Seen],
        questions: Sequence[str],
        *,
        choices: Sequence[Sequence[str]] | None = None,
        wraps: Sequence[Callable[[str], str]] | None = None,
        optimize: bool = False,
        optimization: OptimizationSettings | None = None,
        generation: GenerationSettings | None = None,
    ) -> list[Answer | Failed]:
        """Answers one question per picture.

        Args:
            seen: the pictures, B.
            questions: one per picture, B; sent verbatim.
            choices: per row the answers to rank instead of generating one; None generates.
            wraps: per row what puts the question, or what optimization chose in its place, into what is sent; None
                sends it verbatim.
            optimize: run algorithm 2 and answer the instruction that it chooses.
            optimization: how it chooses.
            generation: how the answer is generated.

        Returns:
            One answer per row, or why the row failed.
        """
        check_rows(questions, seen)
        _check_texts(questions, "question")
        generation = generation or GenerationSettings()
        answering = Answering(generation=generation, choices=choices, wraps=wraps)
        if not optimize:
            return self._answer(seen, questions, answering)
        outcomes = self.optimize_each(seen, questions, optimization=optimization, answering=answering)
        results: dict[int, Answer | Failed] = {}
        open_rows = []
        for row, outcome in enumerate(outcomes):
            if isinstance(outcome, Failed):
                results[row] = outcome
            elif answering.is_final and outcome.used.judgement is not None:
                # What was judged is what would be answered: the same text, generated alike.
                results[row] = replace(outcome.used.judgement.answer, optimization=outcome)
            else:
                open_rows.append((row, outcome))
        rows = [row for row, _ in open_rows]
        answers = self._answer(
            [seen[row] for row in rows], [outcome.instruction for _, outcome in open_rows], answering.rows(rows)
        )
        for (row, outcome), answer in zip(open_rows, answers, strict=True):
            results[row] = answer if isinstance(answer, Failed) else replace(answer, optimization=outcome)
        return [results[row] for row in range(len(questions))]

    def rank_each(
        self, seen: Sequence[Seen], questions: Sequence[str], candidates: Sequence[Sequence[str]]
    ) -> list[list[TokenScores] | Failed]:
        """Scores candidate answers: how likely each is after its row's question.

        Args:
            seen: the pictures, B.
            questions: one per picture, B.
            candidates: K answers per row; K may differ.

        Returns:
            Per row its candidates' scores in the order given, or why the row failed.
        """
        rows = [
            Row(prompt=question, seen=(picture,), reads=question)
            for picture, question in zip(seen, questions, strict=True)
        ]
        return self.backend.score(rows, candidates) if rows else []

    def optimize_each(
        self,
        seen: Sequence[Seen],
        instructions: Sequence[str],
        *,
        optimization: OptimizationSettings | None = None,
        answering: Answering | None = None,
    ) -> list[Optimization | Failed]:
        """Optimizes one instruction per picture (algorithm 2).

        Args:
            seen: the pictures, B.
            instructions: one per picture, B, options included.
            optimization: how it chooses. Who asks for an instruction and no answer wants all of algorithm 2: without
                `answering` nothing is left alone, unless `when` says so.
            answering: how the answers are generated that are judged.

        Returns:
            One result per row, or why the row failed: with a ScoreError where none of its scores is finite.
        """
        _check_texts(instructions, "instruction")
        settings = optimization or OptimizationSettings()
        _check_texts(settings.variants, "variant")
        if answering is None and settings.when is None:
            settings = replace(settings, when="always")
        return optimize_instructions(
            self.backend,
            seen,
            instructions,
            templates=self.templates,
            settings=settings,
            thresholds=self.thresholds,
            answering=answering or Answering(),
            rewritings=self._known_rewritings(),
        )

    @takes_options(OptimizationSettings)
    def optimize_shared(
        self,
        instruction: str,
        images: Sequence[MediaLike],
        *,
        batch_size: int = 16,
        optimization: OptimizationSettings | None = None,
        **options: Unpack[OptimizationOptions],
    ) -> Optimization:
        """Optimizes one instruction for many pictures together: every IAS is the mean over all of them.

        Args:
            instruction: options included.
            images: at least one.
            batch_size: pictures that go through the model together.
            optimization: how the instruction is chosen.
            **options: fields of `OptimizationSettings`, in place of what `optimization` says.

        Raises:
            ImageError: a picture cannot be read.
            ScoreError: no instruction has a finite score on every picture.
        """
        settings = replace(optimization or OptimizationSettings(), **options)
        starts = range(0, len(images), batch_size)
        chunks = [images[start : start + batch_size] for start in starts]
        return self.optimize_chunks(instruction, lambda: chunks, optimization=settings)

    def optimize_chunks(
        self,
        instruction: str,
        chunks: Callable[[], Iterable[Sequence[MediaLike]]],
        *,
        optimization: OptimizationSettings | None = None,
    ) -> Optimization:
        """Optimizes one instruction for pictures that come in chunks, so that they need not be in memory together.

        Args:
            instruction: options included.
            chunks: gives all pictures; may be called twice and must give the same ones.
            optimization: how the instruction is chosen.

        Raises:
            ImageError: a picture cannot be read.
            ScoreError: no instruction has a finite score on every picture.
        """
        settings = optimization or OptimizationSettings()
        _check_texts([instruction], "instruction")
        _check_texts(settings.variants, "variant")
        return optimize_for_all(
            self.backend,
            lambda: (list(map(good, self.see_each(chunk))) for chunk in chunks()),
            instruction,
            templates=self.templates,
            settings=settings,
            thresholds=self.thresholds,
            rewritings=self._known_rewritings(),
        )

    def score_each(
        self, seen: Sequence[Seen], instructions: Sequence[Sequence[str]]
    ) -> list[list[ScoredInstruction] | Failed]:
        """Scores K instructions per picture (eq. 3), all in one batch.

        Returns:
            Per row its scored instructions, or why the row failed: with a ScoreError where none of them is finite.
        """
        _check_texts([text for row in instructions for text in row], "instruction")
        return [
            row if isinstance(row, Failed) or any(map(is_finite, row)) else Failed(error=no_finite_score())
            for row in score_instructions(self.backend, seen, instructions, self.templates)
        ]

    def _known_rewritings(self) -> Rewritings:
        if len(self._rewritings) > _MAX_REWRITINGS:
            self._rewritings = {}  # not cleared: another thread may be reading it
        return self._rewritings

    def seen_of(self, image: MediaLike | Seen) -> Seen:
        """Returns what was seen of a picture; looks at it if it is one, and passes on what `see` returned."""
        # What `see` returned is the backend's own object, of any class but these.
        is_medium = isinstance(image, (*PICTURE_TYPES, Clip, Sound)) or hasattr(image, "read") or is_array(image)
        is_foreign = type(image).__module__ == "builtins"  # refused by `see`, in words
        return self.see(cast("MediaLike", image)) if is_medium or is_foreign else image

    def _answer(self, seen: Sequence[Seen], instructions: Sequence[str], answering: Answering) -> list[Answer | Failed]:
        sent = wrapped(instructions, answering)
        return answer_instructions(self.backend, seen, sent, answering.generation, choices=answering.choices)


def _with_options(
    options: AnswerOptions,
    optimize: bool,
    generation: GenerationSettings | None,
    optimization: OptimizationSettings | None,
) -> tuple[GenerationSettings, OptimizationSettings]:
    """Puts a call's keywords in place of what its settings say.

    Raises:
        UsageError: one changes nothing, or is out of range.
    """
    generating: dict[str, Any] = dict(options)
    choosing = {name: generating.pop(name) for name in options if name in ChoosingOptions.__optional_keys__}
    if choosing and not optimize:  # a guard that somebody asked for must not be dropped
        raise UsageError(f"{', '.join(choosing)} changes nothing without optimize=True")
    return (
        replace(generation or GenerationSettings(), **generating),
        replace(optimization or OptimizationSettings(), **choosing),
    )


def _check_texts(texts: Sequence[str], what: str) -> None:
    for text in texts:
        check_instruction(text, what=what)


def _only(outcomes: Sequence[T | Failed]) -> T:
    (outcome,) = outcomes
    return good(outcome)
