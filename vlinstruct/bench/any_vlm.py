"""Answers of any vision-language model, plain and optimized, ours beside transformers', in turns and on one model.

Every text is as long as it is asked to be: the output layer, which all arms share, makes words the likeliest tokens
while something is written, and no word ends a text. What is written is still the model's own choice, so that equal
arms write equal texts.

"written with transformers" runs algorithm 2 with every call alone: rewriting, two scores, the comparison, a score, the
answer.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from vlinstruct.backend import Backend, ProfiledBackend, Row, Written
from vlinstruct.backends.transformers.any_vlm import TransformersBackend
from vlinstruct.backends.transformers.opening import quietly
from vlinstruct.backends.transformers.prefix import tensors_of
from vlinstruct.bench.answers import ARMS, NOTES, arms_record, block
from vlinstruct.bench.naive import NaiveBackend
from vlinstruct.bench.timing import Timing, picture, ratio_of, timed_in_turns
from vlinstruct.bench.work import Work, bytes_per_second, work_of
from vlinstruct.bench.workload import INSTRUCTION
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Answer, Failed, good

INSTRUCTION_TOKENS = 20
_AIO = OptimizationSettings(select="paper", when="always", max_new_tokens=INSTRUCTION_TOKENS)
_BY_DEFAULT = OptimizationSettings(max_new_tokens=INSTRUCTION_TOKENS)
_WORDS_BEGIN = ("Ġ", "▁")  # how vocabularies spell the space in front of a word
_NEVER = -1e4  # added to a logit; finite in float16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VlmComparison:
    """What the arms took for one length of answers and one size of batches.

    Args:
        answer_tokens: length of every answer.
        batch: pictures that are asked about together.
        timings: of every arm.
        work: by arm, what it did in a run.
        cache_bytes: by arm, the most that caches of keys and values took at once.
        has_same_texts: whether transformers and ours wrote the same, plain and optimized.
        largest_difference: between their likelihoods of the same instructions, in nats of a token.
    """

    answer_tokens: int
    batch: int
    timings: tuple[Timing, ...]
    work: Mapping[str, Work]
    cache_bytes: dict[str, int]
    has_same_texts: bool
    largest_difference: float

    @property
    def heading(self) -> str:
        """What was asked, in a line."""
        return f"batch {self.batch}, answers of {self.answer_tokens} tokens"

    def ratio(self, arm: str, to: str) -> float:
        """Returns how many times another arm's time an arm takes."""
        return ratio_of(self.timings, arm, to)


def compare_vlm(
    backend: TransformersBackend, answer_tokens: Sequence[int], *, batch_sizes: Sequence[int], runs: int
) -> list[VlmComparison]:
    """Runs all arms in turns, for every length of answers and every batch size.

    Args:
        backend: ours; the others use its model and processor.
        answer_tokens: lengths of answers.
        batch_sizes: how many pictures are asked about together.
        runs: of every arm, at least 2.
    """
    comparisons, workloads = [], list(product(answer_tokens, batch_sizes))
    per_second = bytes_per_second(backend.model)
    with quietly(), words_alone(backend) as (naive, ours):
        for at, (length, batch) in enumerate(workloads, start=1):
            _log.info("%d of %d: batch %d, answers of %d tokens", at, len(workloads), batch, length)
            arms = {
                ARMS[0]: Arm(naive, length, batch),
                ARMS[1]: Arm(naive, length, batch, optimization=_AIO),
                ARMS[2]: Arm(ours, length, batch),
                ARMS[3]: Arm(ours, length, batch, optimization=_AIO),
                ARMS[4]: Arm(ours, length, batch, optimization=_BY_DEFAULT),
            }
            comparisons.append(_compared(backend, arms, length, batch, runs, per_second))
    return comparisons


def _compared(
    backend: TransformersBackend,
    arms: Mapping[str, Arm],
    answer_tokens: int,
    batch: int,
    runs: int,
    per_second: float,
) -> VlmComparison:
    answers: dict[str, list[Answer]] = {}
    cache_bytes: dict[str, int] = {}

    def metered(name: str, arm: Arm) -> None:
        with CacheMeter(backend) as meter:
            answers[name] = arm.answers()
        cache_bytes[name] = meter.peak_bytes

    # In a run of its own: to look at every layer and every cache takes time.
    metered_arms = {name: partial(metered, name, arm) for name, arm in arms.items()}
    recordings, backend.recordings = backend.recordings, None  # a replay calls no layer
    try:
        work = work_of([backend.model], _stacks_of(backend.model), metered_arms, per_second=per_second)
    finally:
        backend.recordings = recordings
    if recordings is not None:  # what is timed is what is compared
        answers |= {name: arms[name].answers() for name in ARMS[2:]}
    plain, optimized = (list(zip(answers[ARMS[i]], answers[ARMS[i + 2]], strict=True)) for i in (0, 1))
    return VlmComparison(
        answer_tokens=answer_tokens,
        batch=batch,
        timings=timed_in_turns({name: arm.run for name, arm in arms.items()}, runs),
        work=work,
        cache_bytes=cache_bytes,
        has_same_texts=all(_texts_of(one) == _texts_of(other) for one, other in (*plain, *optimized)),
        largest_difference=max(_difference(one, other) for one, other in optimized),
    )


def _stacks_of(model: Any) -> list[nn.Module]:
    """Returns the decoder of a model of transformers, and the encoder where its language model has one."""
    encoders = []
    while True:  # a model's decoder may be a whole language model, whose own decoder is meant
        encoders += [model.get_encoder()] if model.config.is_encoder_decoder else []
        inner = model.get_decoder()
        if inner is model:
            return [*dict.fromkeys(encoders), model]
        model = inner


class Arm:
    """Answers the same questions, from pictures that nobody has seen before.

    Args:
        backend: answers.
        answer_tokens: length of every answer.
        batch: how many questions, each about a picture.
        optimization: how the instruction is optimized first; None answers plainly.
    """

    def __init__(
        self, backend: Backend, answer_tokens: int, batch: int, *, optimization: OptimizationSettings | None = None
    ) -> None:
        self.backend = backend
        self.images = [picture()] * batch
        # Different ones, since equal instructions are rewritten once.
        self.questions = (
            [f"Picture {row}: {INSTRUCTION}" for row in range(1, batch + 1)] if batch > 1 else [INSTRUCTION]
        )
        self.generation = GenerationSettings(max_new_tokens=answer_tokens)
        self.optimization = optimization

    def answers(self) -> list[Answer]:
        """Answers, by a model that remembers nothing of an earlier run."""
        model = Model(self.backend)
        outcomes = model.ask_each(
            [good(outcome) for outcome in model.see_each(self.images)],
            self.questions,
            optimize=self.optimization is not None,
            optimization=self.optimization,
            generation=self.generation,
        )
        return [good(outcome) for outcome in outcomes]

    def run(self) -> None:
        """Answers."""
        self.answers()


class _WordsAlone(ProfiledBackend):
    """Another backend, which ends no text and writes nothing but words."""

    def __init__(self, backend: Backend, words: _Words) -> None:
        super().__init__(backend)
        self.words = words

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        self.words.are_favoured = True
        try:
            return super().write(rows, settings)
        finally:
            self.words.are_favoured = False


class _Words:
    """A hook of the output layer: while words are favoured, all other logits fall below theirs."""

    def __init__(self, bias: Tensor) -> None:
        self.bias = bias
        self.are_favoured = False

    def __call__(self, module: Any, inputs: Any, logits: Tensor) -> Tensor:
        return logits + self.bias if self.are_favoured else logits


@contextmanager
def words_alone(backend: TransformersBackend) -> Iterator[tuple[Backend, Backend]]:
    """Gives transformers' arm and ours on one model, both of which write as many tokens as they may, all of them words.

    A text of words has as many tokens again when it is read in a prompt or scored.
    """
    tokenizer = backend.template.tokenizer
    vocabulary, added = tokenizer.get_vocab(), tokenizer.added_tokens_decoder
    ids = [
        token
        for piece, token in vocabulary.items()
        if piece.startswith(_WORDS_BEGIN) and piece[1:].isascii() and piece[1:].isalpha() and token not in added
    ]
    layer = backend.model.get_output_embeddings()
    bias = torch.full((layer.weight.shape[0],), _NEVER, dtype=backend.dtype, device=layer.weight.device)
    bias[[token for token in ids if token < len(bias)]] = 0.0
    words = _Words(bias)
    hook = layer.register_forward_hook(words)
    try:
        yield _WordsAlone(NaiveBackend(backend), words), _WordsAlone(backend, words)
    finally:
        hook.remove()


class CacheMeter:
    """Watches the caches of keys and values that a model returns, for as long as they live.

    Args:
        backend: whose model is watched.
    """

    def __init__(self, backend: TransformersBackend) -> None:
        self.networks = {id(network): network for network in (backend.model, backend.reader.network)}
        self.name = backend.reader.cache_name
        self.peak_bytes = 0
        self._alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self._hooks: list[Any] = []

    def __enter__(self) -> CacheMeter:
        self._hooks = [network.register_forward_hook(self._look) for network in self.networks.values()]
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _look(self, module: Any, inputs: Any, output: Any) -> None:
        cache = getattr(output, self.name, None)
        halves = (getattr(cache, f"{kind}_attention_cache", None) for kind in ("self", "cross"))  # encoder-decoders'
        self._alive.update(part for part in (cache, *halves) if hasattr(part, "layers"))
        # By its place: forks share what they have not added to.
        sizes = {tensor.data_ptr(): tensor.nbytes for alive in self._alive for tensor in tensors_of(alive)}
        self.peak_bytes = max(self.peak_bytes, sum(sizes.values()))


def vlm_table(comparisons: Sequence[VlmComparison]) -> str:
    """Returns a block of lines per length of answers and batch size."""
    return "\n\n".join(["\n".join(_lines(comparison)) for comparison in comparisons] + [NOTES])


def _lines(comparison: VlmComparison) -> Iterator[str]:
    work, batch = comparison.work, comparison.batch
    yield from block(comparison.heading, comparison.timings, unit="ms", work=work, batch=batch)
    sizes = ", ".join(f"{size / 1e6:.1f}" for size in comparison.cache_bytes.values())
    yield f"  caches of keys and values at most, in this order: {sizes} MB"
    texts = "the same texts" if comparison.has_same_texts else "DIFFERENT texts"
    yield f"  transformers and vlinstruct: {texts}, likelihoods within {comparison.largest_difference:.0e} nats"


def _texts_of(answer: Answer) -> tuple[str, ...]:
    optimization = answer.optimization
    roles = optimization.by_role().values() if optimization is not None else ()
    return (answer.text, *(scored.text for scored in roles))


def _difference(one: Answer, other: Answer) -> float:
    """Returns by how much likelihoods of the same instructions differ, in nats of a token."""
    assert one.optimization is not None
    assert other.optimization is not None
    scores = {scored.text: scored.scores.token_nll for scored in one.optimization.by_role().values()}
    return max(
        abs(nats - other_nats)
        for scored in other.optimization.by_role().values()
        for nats, other_nats in zip(scores.get(scored.text, ()), scored.scores.token_nll, strict=False)
    )


def vlm_record(backbone: str, comparisons: Sequence[VlmComparison], environment: dict[str, Any]) -> dict[str, Any]:
    """Returns everything that was measured, every run's seconds included.

    Args:
        backbone: what was measured.
        comparisons: of all lengths and batch sizes.
        environment: what it was measured on.
    """
    return {
        "schema": "vlinstruct.bench.any_vlm/1",
        "id": backbone,
        "status": "ok",
        "environment": environment,
        "comparisons": [
            {
                "answer_tokens": comparison.answer_tokens,
                "batch": comparison.batch,
                **arms_record(comparison.timings, comparison.work, comparison.batch),
                "cache_bytes": comparison.cache_bytes,
                "has_same_texts": comparison.has_same_texts,
                "largest_difference": comparison.largest_difference,
            }
            for comparison in comparisons
        ],
    }
