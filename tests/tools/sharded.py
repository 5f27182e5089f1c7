"""Run by torchrun: a sharded language model gives the loss and the gradients of a whole one.

torchrun --nproc-per-node 2 tests/tools/sharded.py BACKBONE
"""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch.nn import Parameter

import vlinstruct as vli
from vlinstruct.training.devices import Devices, fully_sharded
from vlinstruct.training.examples import answer_nll
from vlinstruct.training.frontier import unfreeze
from vlinstruct.training.settings import TrainingSettings

PROMPTS, TARGETS = [[3, 4, 5, 6], [7, 8]], [[4, 5, 1], [6, 1]]


def gradients(backbone: str, *, is_sharded: bool) -> tuple[float, list[torch.Tensor], int]:
    """Returns the loss, the gradients of what learns and how many of the weights lie on this process."""
    torch.manual_seed(0)
    model = vli.load(backbone, device="cpu").backend
    settings = replace(TrainingSettings(), gradient_checkpointing=True)
    learning: dict[str, Parameter] = unfreeze(model.network, settings)
    language_model = model.network.language_model
    language_model.gradient_checkpointing = settings.gradient_checkpointing
    if is_sharded:
        plugin = SimpleNamespace(reshard_after_forward=True, cpu_offload=None)
        fully_sharded(language_model, set(learning.values()), plugin)
    hidden = torch.linspace(-1, 1, 2 * 8 * 24).view(2, 8, 24)
    nll = answer_nll(model, model.network.language_projection(hidden), PROMPTS, TARGETS)
    nll.backward()
    held = sum(getattr(one, "_local_tensor", one).numel() for one in language_model.parameters())
    return nll.item(), [one.grad for one in learning.values() if one.grad is not None], held


def main() -> None:
    """Compares."""
    devices = Devices(cpu=True)
    whole = gradients(sys.argv[1], is_sharded=False)
    sharded = gradients(sys.argv[1], is_sharded=True)
    assert abs(whole[0] - sharded[0]) < 1e-5, (whole[0], sharded[0])
    for one, other in zip(whole[1], sharded[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert sharded[2] < 0.6 * whole[2], (sharded[2], whole[2])
    print(f"rank {devices.rank}: held {sharded[2] / whole[2]:.2f} of the weights")
    devices.end()


if __name__ == "__main__":
    main()
