"""What a training will do and take, worked out before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch.nn import Parameter

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.training.features import FeatureRows, row_bytes
from vlinstruct.training.loop import num_steps
from vlinstruct.training.recipe import FinetuneConfig

_IN_CHECKPOINT = 3  # the weights and AdamW's two moments
_IN_MEMORY = 4  # and the gradients
_FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a training will do.

    Args:
        learning: what learns, by name with its count.
        num_samples: N.
        num_steps: updates.
        batch_size: samples of one update, over all processes.
        num_processes: how many.
        features_bytes: of the caches of frozen features.
        checkpoint_bytes: of one checkpoint.
        weights_bytes: of the frozen weights in memory, on each process unless they are sharded.
        learning_bytes: of what learns, with gradients and optimizer.
    """

    learning: Mapping[str, int]
    num_samples: int
    num_steps: int
    batch_size: int
    num_processes: int
    features_bytes: int
    checkpoint_bytes: int
    weights_bytes: int
    learning_bytes: int

    @property
    def disk_bytes(self) -> int:
        """What has to be free: the caches, two checkpoints and one being written, two adapters."""
        return self.features_bytes + 3 * self.checkpoint_bytes + 2 * self.checkpoint_bytes // _IN_CHECKPOINT


def plan_of(
    model: InstructBlipBackend,
    learning: Mapping[str, Parameter],
    rows: Sequence[FeatureRows],
    shape: tuple[int, int],
    config: FinetuneConfig,
    num_processes: int,
) -> Plan:
    """Works out a training.

    Args:
        model: what is trained.
        learning: what learns of it.
        rows: of the training's and the validation's features.
        shape: of a row.
        config: the settings.
        num_processes: that train together.
    """
    num_samples, count = len(rows[0].of_sample), sum(parameter.numel() for parameter in learning.values())
    frozen = [parameter for parameter in model.network.parameters() if not parameter.requires_grad]
    return Plan(
        learning={name: parameter.numel() for name, parameter in learning.items()},
        num_samples=num_samples,
        num_steps=num_steps(num_samples, config, num_processes),
        batch_size=config.batch_size(num_processes),
        num_processes=num_processes,
        features_bytes=sum(len(one.firsts) for one in rows) * row_bytes(shape, model.dtype),
        checkpoint_bytes=_IN_CHECKPOINT * _FLOAT32_BYTES * count,
        weights_bytes=sum(parameter.numel() * parameter.element_size() for parameter in frozen),
        learning_bytes=_IN_MEMORY * _FLOAT32_BYTES * count,
    )
