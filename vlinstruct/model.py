"""Joins the two rooms: a loaded model that answers, scores and optimizes, one item or many.

    import vlinstruct as vli
    model = vli.load("mini")
    model.ask("sign.png", "what is written?").text

The vision tower runs once per picture: `see` it, then ask as often as you like.

Legend: B rows, one picture each; K texts per row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, TypeVar

import torch
from PIL import Image

from vlinstruct.backends.instructblip.adapter import load_adapter
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.configuration import T5Config
from vlinstruct.backends.instructblip.devices import place
from vlinstruct.backends.instructblip.load import load_model
from vlinstruct.backends.registry import BACKBONES, default_backbone, known_as, locate
from vlinstruct.errors import InputError, ScoreError, VlinstructError
from vlinstruct.instruction import Templates, score_per_image
from vlinstruct.instruction import optimize as optimize_instructions
from vlinstruct.instruction.rewrite import Rewritings
from vlinstruct.instruction.shared import optimize_shared
from vlinstruct.media.images import load_image
from vlinstruct.settings import GenerationSettings, OptimizationSettings, Quantization
from vlinstruct.text import check_instruction
from vlinstruct.values import Answer, Choice, Optimization, Percept, ScoredInstruction, TokenScores
from vlinstruct.weights.hub_cache import revision_of
from vlinstruct.weights.quantization import require_quantization

T = TypeVar("T")
ImageLike = str | PathLike[str] | bytes | Image.Image

# A folder has one instruction or a few, a data set perhaps one per picture: far more than these are not worth keeping.
_MOST_REMEMBERED = 4096
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    backbone: str | None = None,
    *,
    adapter: str | PathLike[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantize: Quantization | None = None,
    offline: bool = False,
) -> Model:
    """Loads a model. On CUDA, cuDNN's attention is switched off for the process (`model/attention.py` says why).

    Args:
        backbone: `mini`, `mini-llama`, a paper backbone's name, a local folder or a hub id; `$VLINSTRUCT_BACKBONE` or
            mini if None.
        adapter: a folder of trained alignment layers; it brings its EMA flag with it.
        device: `auto` takes CUDA (all GPUs and memory, where one is too small), then MPS, then the CPU; or a torch
            device.
        dtype: `auto` is float32 on the CPU and bfloat16 elsewhere; or float32, bfloat16, float16.
        quantize: `8bit` or `4bit` for the language model's layers; everything else keeps its precision.
        offline: use what is cached, open no connection.

    Raises:
        CheckpointError: the model or the adapter was refused.
        NetworkError: it has to be downloaded and cannot be.
        InputError: no such device or dtype here.
        ResourceError: its weights do not fit into the memory that is free.
    """
    where = compute_device(device)
    number_type = compute_dtype(dtype, where)
    if quantize is not None:
        require_quantization(quantize, where)
    folder = locate(backbone or default_backbone(), offline=offline)
    placement = place(folder, where, itemsize=number_type.itemsize, quantize=quantize, may_spread=device == "auto")
    model = load_model(folder, device=where, dtype=number_type, quantize=quantize, placement=placement)
    _refuse_narrow_t5(model)
    if adapter is not None:
        load_adapter(locate(str(adapter), offline=offline, what="adapter"), model.network)
    known = BACKBONES.get(known_as(str(folder)))
    certainty = known.least_certainty if known is not None else 0.0
    return Model(model, least_certainty=certainty, revision=revision_of(folder))


def compute_device(name: str) -> torch.device:
    """Returns the device that `load` means by a name.

    Raises:
        InputError: there is none here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` makes tensors, but they hold nothing
    except (RuntimeError, AssertionError) as error:
        raise InputError.at("cannot use --device", name, "not available here", "Use --device cpu") from error
    return torch.device("cpu") if device.type == "cpu" else device  # safetensors knows no cpu:0


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """Returns the dtype that `load` means by a name.

    Raises:
        InputError: there is no such dtype.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise InputError.at("cannot use --dtype", name, "unknown", f"Use auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _refuse_narrow_t5(model: InstructBlipBackend) -> None:
    """FlanT5 was trained in bfloat16 and overflows in float16 (huggingface/transformers#20287)."""
    if model.dtype == torch.float16 and isinstance(model.network.config.text_config, T5Config):
        why = "T5 language models overflow in float16"
        raise InputError.at("cannot use --dtype", "float16", why, "Use bfloat16 or float32")


class Model:
    """A loaded model.

    Args:
        model: the vision-language model.
        templates: the texts that optimization sends to it; the shipped ones if None.
        least_certainty: see `OptimizationSettings`, where that leaves it to the backbone.
        revision: the hub's commit that the weights are of; None for others.
    """

    def __init__(
        self,
        model: InstructBlipBackend,
        *,
        templates: Templates | None = None,
        least_certainty: float = 0.0,
        revision: str | None = None,
    ) -> None:
        self.backend = model
        self.templates = templates or Templates.default()
        self.least_certainty = least_certainty
        self.revision = revision
        self._rewritings: Rewritings = {}

    def see(self, *images: ImageLike) -> Percept:
        """Runs the vision tower over pictures, once for all that follows.

        Args:
            *images: paths, encoded bytes or PIL pictures.

        Returns:
            A percept with one item per picture.

        Raises:
            ImageError: a picture cannot be read.
        """
        return self.backend.encode([_picture(image) for image in images])

    def ask(self, image: ImageLike | Percept, question: str, **settings: Any) -> Answer:
        """Answers a question about one picture; `settings` are those of `ask_each`."""
        return _only(self.ask_each(self._percept(image), [question], **settings))

    def optimize(self, instruction: str, image: ImageLike | Percept, **settings: Any) -> Optimization:
        """Optimizes an instruction for one picture (algorithm 2); `settings` are those of `optimize_each`."""
        return _only(self.optimize_each(self._percept(image), [instruction], **settings))

    def score(self, image: ImageLike | Percept, *instructions: str) -> list[ScoredInstruction]:
        """Scores instructions for one picture (eq. 3), in the order given; lower is better."""
        return _only(self.score_each(self._percept(image), [instructions]))

    def ask_each(
        self,
        percept: Percept,
        questions: Sequence[str],
        *,
        choices: Sequence[str] = (),
        optimize: bool = False,
        optimization: OptimizationSettings | None = None,
        generation: GenerationSettings | None = None,
    ) -> list[Answer | VlinstructError]:
        """Answers one question per picture.

        Args:
            percept: the pictures, B.
            questions: one per picture, B; sent verbatim.
            choices: answers to rank in place of generating one, the same for all rows.
            optimize: run algorithm 2 first and ask the instruction that it chooses.
            optimization: how it chooses.
            generation: how the answer is generated.

        Returns:
            One answer per row, or the error that the row failed with.
        """
        _check_texts(questions, "question")
        if not optimize:
            return self._answer(percept, questions, choices, generation)
        outcomes = self.optimize_each(percept, questions, optimization=optimization)
        good = [row for row, outcome in enumerate(outcomes) if isinstance(outcome, Optimization)]
        asked = [outcome.instruction for outcome in outcomes if isinstance(outcome, Optimization)]
        answers = dict(zip(good, self._answer(percept.select(good), asked, choices, generation), strict=True))
        return [
            _with_optimization(answers[row], outcome) if isinstance(outcome, Optimization) else outcome
            for row, outcome in enumerate(outcomes)
        ]

    def optimize_each(
        self,
        percept: Percept,
        instructions: Sequence[str],
        *,
        optimization: OptimizationSettings | None = None,
    ) -> list[Optimization | ScoreError]:
        """Optimizes one instruction per picture (algorithm 2).

        Returns:
            One result per row, or a ScoreError where none of the row's scores is finite.
        """
        _check_texts(instructions, "instruction")
        config = self._config(optimization)
        return optimize_instructions(
            self.backend, percept, instructions, templates=self.templates, config=config, known=self._known()
        )

    def optimize_shared(
        self,
        instruction: str,
        images: Sequence[ImageLike],
        *,
        batch_size: int = 16,
        optimization: OptimizationSettings | None = None,
    ) -> Optimization:
        """Optimizes one instruction for many pictures together: every IAS is the mean over all of them.

        Args:
            instruction: options included.
            images: at least one.
            batch_size: pictures that go through the model together.
            optimization: how the instruction is chosen.

        Raises:
            ImageError: a picture cannot be read.
            ScoreError: no instruction has a finite score on every picture.
        """
        starts = range(0, len(images), batch_size)
        return self.optimize_over(
            instruction,
            lambda: (self.see(*images[start : start + batch_size]) for start in starts),
            optimization=optimization,
        )

    def optimize_over(
        self,
        instruction: str,
        percepts: Callable[[], Iterable[Percept]],
        *,
        optimization: OptimizationSettings | None = None,
    ) -> Optimization:
        """Does the same for pictures that come in percepts; `percepts` gives them once more if it is called again."""
        _check_texts([instruction], "instruction")
        config = self._config(optimization)
        return optimize_shared(
            self.backend, percepts, instruction, templates=self.templates, config=config, known=self._known()
        )

    def score_each(
        self, percept: Percept, instructions: Sequence[Sequence[str]]
    ) -> list[list[ScoredInstruction] | ScoreError]:
        """Scores K instructions per picture (eq. 3), all in one batch.

        Returns:
            Per row its scored instructions, or a ScoreError where none of them is finite.
        """
        _check_texts([text for row in instructions for text in row], "instruction")
        scored = score_per_image(self.backend, percept, instructions, self.templates)
        return [row if any(math.isfinite(one.ias) for one in row) else _no_finite_score() for row in scored]

    def _config(self, given: OptimizationSettings | None) -> OptimizationSettings:
        config = given or OptimizationSettings()
        return replace(config, least_certainty=self.least_certainty) if config.least_certainty is None else config

    def _known(self) -> Rewritings:
        if len(self._rewritings) > _MOST_REMEMBERED:
            self._rewritings.clear()
        return self._rewritings

    def _percept(self, image: ImageLike | Percept) -> Percept:
        return image if isinstance(image, Percept) else self.see(image)

    def _answer(
        self,
        percept: Percept,
        instructions: Sequence[str],
        choices: Sequence[str],
        generation: GenerationSettings | None,
    ) -> list[Answer | VlinstructError]:
        if not instructions:
            return []
        if not choices:
            texts = self.backend.generate(percept, instructions, instructions, generation or GenerationSettings())
            return [Answer(text=text, instruction=asked) for text, asked in zip(texts, instructions, strict=True)]
        scores = self.backend.candidate_nll(percept, instructions, instructions, [choices] * len(instructions))
        return [_ranked_answer(choices, row, asked) for row, asked in zip(scores, instructions, strict=True)]


def _ranked_answer(choices: Sequence[str], scores: Sequence[TokenScores], instruction: str) -> Answer | ScoreError:
    """Turns likelihoods into probabilities: a softmax over the choices of the mean log-likelihood per token."""
    likelihoods = [-one.mean_nll for one in scores]
    if not all(math.isfinite(value) for value in likelihoods):
        return _no_finite_score()
    weights = [math.exp(value - max(likelihoods)) for value in likelihoods]
    ranked = tuple(
        Choice(text=text, probability=weight / math.fsum(weights), nll=-value)
        for text, weight, value in zip(choices, weights, likelihoods, strict=True)
    )
    best = max(ranked, key=lambda choice: choice.probability)
    return Answer(text=best.text, instruction=instruction, choices=ranked)


def _with_optimization(answer: Answer | VlinstructError, outcome: Optimization) -> Answer | VlinstructError:
    return replace(answer, optimization=outcome) if isinstance(answer, Answer) else answer


def _picture(image: ImageLike) -> Image.Image:
    return image if isinstance(image, Image.Image) else load_image(image).image


def _check_texts(texts: Sequence[str], what: str) -> None:
    for text in texts:
        check_instruction(text, what=what)


def _no_finite_score() -> ScoreError:
    return ScoreError("the model gave no finite score", advice="Its weights are damaged or --dtype is too narrow.")


def _only(outcomes: Sequence[T | VlinstructError]) -> T:
    """Returns the one row's value or raises its error."""
    (outcome,) = outcomes
    if isinstance(outcome, VlinstructError):
        raise outcome
    return outcome
