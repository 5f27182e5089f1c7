"""What every arm of a training comparison learns: the same samples, whose texts are words of the tokenizer at random.

Two distributions of lengths. `short answers` are those of visual question answering. `LLaVA-like lengths` are our own
approximation of LLaVA-Instruct-150K, not a measurement of it: its three kinds in its proportions (58,000 conversations,
23,000 descriptions, 77,000 of reasoning), uniform lengths within each, and of a conversation the last answer is learned
behind the earlier turns, as the paper does it (appendix C.3).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.conversation import prompt_of
from vlinstruct.backends.instructblip.tokenization import TextTokenizer
from vlinstruct.bench.compare import picture
from vlinstruct.training.data.conversations import TrainingSample

_SPACE = "▁"


@dataclass(frozen=True, kw_only=True)
class SampleKind:
    """Samples of one kind; lengths are uniform, the ends included, in tokens.

    Args:
        share: of this kind among all, 0 to 1.
        answer_tokens: fewest and most of what is learned, its end token included.
        question_tokens: fewest and most of every question.
        earlier_turns: fewest and most questions with answers that stand before the last one.
    """

    share: float
    answer_tokens: tuple[int, int]
    question_tokens: tuple[int, int] = (8, 16)
    earlier_turns: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class TrainingWorkload:
    """An epoch of a training; every sample has a picture of its own.

    Args:
        name: what the lengths are like.
        kinds: of samples.
        batch_size: samples of one update.
        num_updates: of one epoch.
    """

    name: str
    kinds: tuple[SampleKind, ...]
    batch_size: int = 8
    num_updates: int = 24

    @property
    def num_samples(self) -> int:
        """Samples of one epoch."""
        return self.batch_size * self.num_updates


_SHORT = (SampleKind(share=1.0, answer_tokens=(2, 6)),)
_LLAVA_LIKE = (
    SampleKind(share=58 / 158, answer_tokens=(10, 60), earlier_turns=(1, 4)),
    SampleKind(share=23 / 158, answer_tokens=(100, 200)),
    SampleKind(share=77 / 158, answer_tokens=(100, 200)),
)


def training_workloads(batch_size: int) -> tuple[TrainingWorkload, ...]:
    """Returns both distributions."""
    kinds = {"short answers": _SHORT, "LLaVA-like lengths": _LLAVA_LIKE}
    return tuple(TrainingWorkload(name=name, kinds=of, batch_size=batch_size) for name, of in kinds.items())


def draw_samples(
    workload: TrainingWorkload, model: InstructBlipBackend, folder: Path, *, seed: int = 0
) -> list[TrainingSample]:
    """Draws the samples of an epoch.

    Args:
        workload: how many, and how long.
        model: its tokenizer gives the words, its image processor the size of the pictures: preparing them costs next
            to nothing.
        folder: gets the pictures.
        seed: of all draws.
    """
    rng, writer = random.Random(f"{workload.name}/{seed}"), _Writer(model.tokenizer)
    size = model.image_processor.image_size
    image = picture().resize((size, size))
    kinds = rng.choices(workload.kinds, [kind.share for kind in workload.kinds], k=workload.num_samples)
    paths = [folder / f"{number}.png" for number in range(len(kinds))]
    for path in paths:
        image.save(path)
    return [_sample(kind, path, writer, rng) for kind, path in zip(kinds, paths, strict=True)]


def _sample(kind: SampleKind, image: Path, writer: _Writer, rng: random.Random) -> TrainingSample:
    num_turns = 1 + rng.randint(*kind.earlier_turns)
    turns = [
        (writer.text(rng, rng.randint(*kind.question_tokens)), writer.text(rng, rng.randint(*kind.answer_tokens) - 1))
        for _ in range(num_turns)
    ]
    instruction, answer = turns[-1]
    return TrainingSample(id=image.stem, image=image, instruction=instruction, prompt=prompt_of(turns), answer=answer)


class _Writer:
    """Writes texts of a given length in the words that cost a tokenizer the fewest tokens."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        costs = {word: len(tokenizer.encode(word)) for word in _words(tokenizer)}
        self.tokens_per_word = min(costs.values())
        self.words = [word for word, cost in costs.items() if cost == self.tokens_per_word]

    def text(self, rng: random.Random, num_tokens: int) -> str:
        return " ".join(rng.choices(self.words, k=max(1, num_tokens // self.tokens_per_word)))


def _words(tokenizer: TextTokenizer) -> Sequence[str]:
    pieces = sorted(tokenizer.tokenizer.get_vocab())
    return [word for word in (piece.removeprefix(_SPACE) for piece in pieces) if word.isascii() and word.isalpha()]
