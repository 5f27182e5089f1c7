"""How well answers that are not learned are predicted, while the training goes on."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vlinstruct.training.devices import Devices
from vlinstruct.training.examples import Examples


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
    order = sorted(examples.readable(range(len(examples))), key=lambda index: sum(lengths[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    language_model = examples.model.network.language_model.eval()  # LoRA has a dropout
    total = torch.zeros(2, dtype=torch.float64)
    for first in range(0, len(batches), devices.num_processes):
        mine = batches[first : first + devices.num_processes]
        batch = mine[devices.rank] if devices.rank < len(mine) else []
        nll = examples.nll(batch or mine[0]).item() * (len(batch) > 0)  # sharded weights need every process
        total += devices.sum_floats([nll, float(should_stop())])
        if total[1] > 0:
            return None
    language_model.train()
    return float(total[0]) / examples.num_target_tokens(order)
