"""Samples as the loop reads them: token ids, and the row of frozen features."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from torch import Tensor

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.training.data.conversations import TrainingSample
from vlinstruct.training.features import FeatureRows, Features
from vlinstruct.training.frontier import Frontier
from vlinstruct.training.objective import answer_nll


class Examples:
    """A set of samples, tokenised once.

    Args:
        model: whose tokenizer reads them.
        samples: N.
        frontier: goes on from the features.
        features: the rows.
        rows: whose they are.
    """

    def __init__(
        self,
        model: InstructBlipBackend,
        samples: Sequence[TrainingSample],
        frontier: Frontier,
        features: Features,
        rows: FeatureRows,
    ) -> None:
        self.model = model
        self.ids = [sample.id for sample in samples]
        self.instructions = [sample.instruction for sample in samples]
        self.prompt_ids = [array("i", model.prompt_ids(sample.prompt)) for sample in samples]
        self.target_ids = [array("i", model.tokenizer.target_ids(sample.answer)) for sample in samples]
        self.frontier = frontier
        self.features = features
        self.rows = rows
        left_out = set(features.unreadable())
        self.left_out = frozenset(index for index, row in enumerate(rows.of_sample) if row in left_out)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """Tokens of the prompt and of the answer, per sample."""
        return [(len(prompt), len(target)) for prompt, target in zip(self.prompt_ids, self.target_ids, strict=True)]

    def readable(self, indices: Sequence[int]) -> list[int]:
        """Returns the samples among some whose picture could be read."""
        return [index for index in indices if index not in self.left_out]

    def nll(self, indices: Sequence[int]) -> Tensor:
        """Returns the summed negative log-likelihood of the answers of some samples, in nats; differentiable."""
        rows = self.features.read([self.rows.of_sample[index] for index in indices]).to(self.model.device)
        prefix = self.frontier.prefix(rows, [self.instructions[index] for index in indices])
        prompts = [self.prompt_ids[index] for index in indices]
        return answer_nll(self.model, prefix, prompts, [self.target_ids[index] for index in indices])

    def num_target_tokens(self, indices: Sequence[int]) -> int:
        """Returns how many tokens some samples' answers have, end tokens included."""
        return sum(len(self.target_ids[index]) for index in indices)

    def num_positions(self, indices: Sequence[int]) -> tuple[int, int]:
        """Returns how many positions of the language model some samples fill, and how many they take, padded."""
        model = self.model.network
        prefix = len(indices) * model.config.num_query_tokens * (2 if model.use_ema else 1)
        prompts = [len(self.prompt_ids[index]) for index in indices]
        targets = [len(self.target_ids[index]) for index in indices]
        padded = len(indices) * (max(prompts, default=0) + max(targets, default=0))
        return prefix + sum(prompts) + sum(targets), prefix + padded
