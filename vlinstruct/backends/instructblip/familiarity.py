"""Which pictures a model knows: by how far what the vision tower makes of one lies from what it made of training's.

The distance is Mahalanobis's, of the mean over a picture's patches (Lee et al., NeurIPS 2018, take it to tell pictures
of another kind from those of training). Only a folder that ships its training's mean and covariance can tell.

Legend: N pictures, P positions (class token, then patches), D the vision tower's width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vlinstruct.errors import CheckpointError

# In a folder of its own: beside config.json it would be taken for a shard of the weights.
FILE = Path("familiarity") / "pictures.safetensors"
# Of the covariance's mean variance, added to every direction: what training hardly varied in must not decide alone.
_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True)
class Familiarity:
    """What training's pictures look like to the vision tower.

    Args:
        mean: (D,), of the pictures.
        whitening: (D, D), makes their covariance one.
        limit: the squared distance beyond which a picture is unknown.
    """

    mean: Tensor
    whitening: Tensor
    limit: Tensor

    def distances(self, image_embeds: Tensor) -> Tensor:
        """Returns (N,), the squared distances of pictures (N, P, D)."""
        centred = _pooled(image_embeds).to(self.mean) - self.mean
        return (centred @ self.whitening.T).square().sum(dim=-1)

    def knows(self, image_embeds: Tensor) -> bool:
        """Returns whether a picture (P, D) is one of those that training might have shown."""
        return bool(self.distances(image_embeds[None]) <= self.limit)


def _pooled(image_embeds: Tensor) -> Tensor:
    return image_embeds[:, 1:].float().mean(dim=1)


def fitted(image_embeds: Tensor, held_out: Tensor, *, false_alarms: float) -> Familiarity:
    """Returns what pictures look like.

    Args:
        image_embeds: (N, P, D), training's.
        held_out: (N, P, D), of pictures that training did not show; they set the limit.
        false_alarms: the share of these that lie beyond it.
    """
    pooled = _pooled(image_embeds).double()
    covariance = torch.cov(pooled.T)
    floor = _FLOOR * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    whitening = torch.linalg.inv(torch.linalg.cholesky(covariance + floor))
    unlimited = Familiarity(mean=pooled.mean(dim=0).float(), whitening=whitening.float(), limit=torch.tensor(0.0))
    limit = torch.quantile(unlimited.distances(held_out), 1 - false_alarms)
    return Familiarity(mean=unlimited.mean, whitening=unlimited.whitening, limit=limit)


def save(familiarity: Familiarity, folder: Path) -> None:
    """Writes it into a model's folder."""
    from safetensors.torch import save_file

    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    save_file({name: getattr(familiarity, name).contiguous() for name in ("mean", "whitening", "limit")}, path)


def read(folder: Path, width: int) -> Familiarity | None:
    """Reads what a model's folder says of its training's pictures; None where it says nothing.

    Args:
        folder: the model's.
        width: D.

    Raises:
        CheckpointError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", advice="Install the model again.") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {"mean": (width,), "whitening": (width, width), "limit": ()}:
        raise CheckpointError(f"{path} is damaged: its tensors are {shapes}", advice="Install the model again.")
    return Familiarity(**tensors)
