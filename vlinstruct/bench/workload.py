"""What every arm of a comparison does: the same questions and answers, or the same samples to learn.

Answering: the same instruction is asked, and the same tokens are written in answer. Random weights write noise and
trained ones stop early, so the written tokens are laid down: every arm computes its logits as ever, and then writes the
workload's next token in place of its own.

Training: the samples' texts are words of the tokenizer at random, in two distributions of lengths. `short answers` are
those of visual question answering. `LLaVA-like lengths` are our own approximation of LLaVA-Instruct-150K, not a
measurement of it: its three kinds in its proportions (58,000 conversations, 23,000 descriptions, 77,000 of reasoning),
uniform lengths within each, and of a conversation the last answer is learned behind the earlier turns, as the paper
does it (appendix C.3).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.conversation import prompt_of
from vlinstruct.bench.timing import picture
from vlinstruct.training.data.conversations import TrainingSample

INSTRUCTION = "Tell me what is the number of all the objects in the picture, if there are some."
REWRITTEN = "What is the number of the objects that you can see in the picture, if there are some?"
OPTIMIZED = "Count the objects in the picture and say what the number of them is, one number as answer."
ANSWER = "the picture shows a red star on the left and a blue ring in the middle of it"

_SPACE = "▁"  # the word's beginning in a vocabulary


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One question about one picture, or the same about several.

    Args:
        answer_tokens: how long the answer is; it never ends before.
        batch: how many pictures are asked about at once.
        acceptance: share of the tokens of instructions that drafts give, 0 to 1 (`replay.draft_of`).
    """

    answer_tokens: int = 2
    batch: int = 1
    acceptance: float = 1.0

    @property
    def heading(self) -> str:
        """What is asked, in a line: pictures together, length of the answers, share of drafts that are right."""
        share = f"{100 * self.acceptance:.0f} % of drafts right"
        return f"batch {self.batch}, answers of {self.answer_tokens} tokens, {share}"


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
    """Returns an epoch of short answers and one of LLaVA-like lengths, in batches of `batch_size` samples."""
    kinds = {"short answers": _SHORT, "LLaVA-like lengths": _LLAVA_LIKE}
    return tuple(TrainingWorkload(name=name, kinds=parts, batch_size=batch_size) for name, parts in kinds.items())


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
    rng = random.Random(f"{workload.name}/{seed}")
    # Words that cost the fewest tokens of all: with one token each, texts have the lengths that are asked for exactly.
    pieces = [piece.removeprefix(_SPACE) for piece in sorted(model.tokenizer.tokenizer.get_vocab())]
    costs = {piece: len(model.tokenizer.encode(piece)) for piece in pieces if piece.isascii() and piece.isalpha()}
    tokens_per_word = min(costs.values())
    words = [word for word, cost in costs.items() if cost == tokens_per_word]

    def text(num_tokens: int) -> str:
        return " ".join(rng.choices(words, k=max(1, num_tokens // tokens_per_word)))

    size = model.image_processor.image_size
    image = picture().resize((size, size))
    samples = []
    for number, kind in enumerate(
        rng.choices(workload.kinds, [kind.share for kind in workload.kinds], k=workload.num_samples)
    ):
        path = folder / f"{number}.png"
        image.save(path)
        turns = [
            (text(rng.randint(*kind.question_tokens)), text(rng.randint(*kind.answer_tokens) - 1))
            for _ in range(1 + rng.randint(*kind.earlier_turns))
        ]
        instruction, answer = turns[-1]
        samples.append(
            TrainingSample(id=path.stem, image=path, instruction=instruction, prompt=prompt_of(turns), answer=answer)
        )
    return samples
