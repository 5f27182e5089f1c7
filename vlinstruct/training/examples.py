"""Samples as the loop reads them: token ids and the row of frozen features; the loss, and the validation's.

The loss is the cross-entropy of the answer's tokens and of nothing else (eq. 2), a sum in nats over a batch.

Legend: B samples, P prefix positions, L the language model's width.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.training.data.conversations import TrainingSample
from vlinstruct.training.devices import Devices
from vlinstruct.training.features import FeatureRows, Features
from vlinstruct.training.frontier import Frontier


class Examples:
    """A set of samples, tokenised once.

    Args:
        backend: whose tokenizer reads them.
        samples: N.
        frontier: goes on from the features.
        features: the rows.
        rows: whose they are.
    """

    def __init__(
        self,
        backend: InstructBlipBackend,
        samples: Sequence[TrainingSample],
        frontier: Frontier,
        features: Features,
        rows: FeatureRows,
    ) -> None:
        self.backend = backend
        self.ids = [sample.id for sample in samples]
        self.instructions = [sample.instruction for sample in samples]
        # Arrays of 4 bytes a token: a list of Python's integers takes 8, and as many objects to collect.
        self.prompt_ids = [array("i", backend.prompt_ids(sample.prompt)) for sample in samples]
        self.target_ids = [array("i", backend.tokenizer.target_ids(sample.answer)) for sample in samples]
        self.frontier = frontier
        self.features = features
        self.rows = rows
        unreadable = set(features.unreadable())
        self.unreadable = frozenset(index for index, row in enumerate(rows.of_sample) if row in unreadable)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """Tokens of the prompt and of the answer, per sample."""
        return [(len(prompt), len(target)) for prompt, target in zip(self.prompt_ids, self.target_ids, strict=True)]

    def readable(self, indices: Sequence[int]) -> list[int]:
        """Returns the samples among some whose picture could be read."""
        return [index for index in indices if index not in self.unreadable]

    def nll(self, indices: Sequence[int]) -> Tensor:
        """Returns the summed negative log-likelihood of the answers of some samples, in nats; differentiable."""
        rows = self.features.read([self.rows.of_sample[index] for index in indices]).to(self.backend.device)
        prefix = self.frontier.prefix(rows, [self.instructions[index] for index in indices])
        prompts = [self.prompt_ids[index] for index in indices]
        return answer_nll(self.backend, prefix, prompts, [self.target_ids[index] for index in indices])

    def num_target_tokens(self, indices: Sequence[int]) -> int:
        """Returns how many tokens some samples' answers have, end tokens included."""
        return sum(len(self.target_ids[index]) for index in indices)

    def num_positions(self, indices: Sequence[int]) -> tuple[int, int]:
        """Returns how many positions of the language model some samples fill, and how many they take, padded."""
        prefix = len(indices) * self.backend.network.num_prefix_tokens
        prompts = [len(self.prompt_ids[index]) for index in indices]
        targets = [len(self.target_ids[index]) for index in indices]
        padded = len(indices) * (max(prompts, default=0) + max(targets, default=0))
        return prefix + sum(prompts) + sum(targets), prefix + padded


def answer_nll(
    backend: InstructBlipBackend,
    prefix: Tensor,
    prompt_ids: Sequence[Sequence[int]],
    target_ids: Sequence[Sequence[int]],
) -> Tensor:
    """Returns the negative log-likelihood of all answers' tokens, end tokens included, summed, in nats.

    Args:
        backend: whose language model reads and writes.
        prefix: what stands in front of the prompts, (B, P, L).
        prompt_ids: B prompts.
        target_ids: B answers.
    """
    context = backend.context_of_ids(prompt_ids, list(prefix))
    fed = pad_sequence([torch.tensor(ids) for ids in target_ids], batch_first=True).to(backend.device)
    lengths = [len(ids) for ids in target_ids]
    return backend.network.language_model.summed_nll(context.inputs_embeds, context.attention_mask, fed, lengths)


@torch.no_grad()
def validation_loss(
    examples: Examples, devices: Devices, *, batch_size: int, should_stop: Callable[[], bool] = lambda: False
) -> float | None:
    """Returns the mean negative log-likelihood per answer token, in nats; None where it was asked to stop.

    Args:
        examples: what is predicted.
        devices: the processes, each of which takes batches of its own.
        batch_size: samples that go through the model together.
        should_stop: asked after every batch.
    """
    lengths = examples.lengths
    # Samples of like length share a batch, which saves padding; the mean is over all tokens, whatever the order.
    order = sorted(examples.readable(range(len(examples))), key=lambda index: sum(lengths[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    language_model = examples.backend.network.language_model.eval()  # LoRA has a dropout
    total = torch.zeros(2, dtype=torch.float64)  # of nats, and of processes that were asked to stop
    for first in range(0, len(batches), devices.num_processes):
        group = batches[first : first + devices.num_processes]
        batch = group[devices.rank] if devices.rank < len(group) else []
        nll = examples.nll(batch or group[0]).item() * (len(batch) > 0)  # sharded weights need every process
        total += devices.sum_floats([nll, float(should_stop())])
        if total[1] > 0:
            return None
    language_model.train()
    return float(total[0]) / examples.num_target_tokens(order)
