"""What is minimised: the answers' cross-entropy, and auxiliary losses that show the way to them.

All are means in nats over what is labelled. Legend: see `batches.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vlinstruct.mini.architecture import NUM_QUERY_TOKENS
from vlinstruct.mini.batches import FOCUS_SLOTS, IGNORED, VERDICTS, Batch, Ids, Rows
from vlinstruct.mini.labels import CHARACTER_CLASSES, COLOUR_CLASSES, INDEX_CLASSES, SHAPE_CLASSES
from vlinstruct.mini.pixels import normalised
from vlinstruct.mini.words import MAX_LENGTH
from vlinstruct.model.instructblip import InstructBlip

WEIGHTS = {
    "target": 1.0,
    "rewrite": 0.5,
    "patch_character": 1.0,
    "patch_index": 0.4,
    "patch_shape": 0.3,
    "patch_colour": 0.3,
    "query_character": 0.7,
    "query_cell": 0.3,
    "query_verdict": 0.3,
}
_NOTHING_WEIGHT = 0.15
_VERDICT_QUERY = NUM_QUERY_TOKENS - 1


class AuxiliaryHeads(nn.Module):
    """Linear classifiers on patches and queries; thrown away after training.

    Query i names character i; the next queries find the things in focus; the last one gives counts and yes or no.
    """

    def __init__(self, vision_width: int, query_width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        classes = {
            "character": CHARACTER_CLASSES,
            "index": INDEX_CLASSES,
            "shape": SHAPE_CLASSES,
            "colour": COLOUR_CLASSES,
        }
        self.patch = nn.ModuleDict({name: nn.Linear(vision_width, count) for name, count in classes.items()})
        self.character = nn.Linear(query_width, CHARACTER_CLASSES)
        self.cell = nn.Linear(query_width, 2 * grid)
        self.verdict = nn.Linear(query_width, len(VERDICTS))

    def patch_losses(self, image_embeds: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns one loss per kind of patch label; image_embeds is (P, 1 + G*G, D)."""
        losses = {}
        for name, head in self.patch.items():
            logits = head(image_embeds[:, 1:]).float().flatten(0, 1)
            labels = torch.from_numpy(getattr(batch.patches, name)).flatten()
            weight = torch.ones(logits.shape[-1])
            weight[0] = _NOTHING_WEIGHT
            losses[f"patch_{name}"] = cross_entropy(logits, labels, weight)
        return losses

    def query_losses(self, query_embeds: Tensor, visual: tuple[Rows, ...]) -> dict[str, Tensor]:
        """Returns the losses on the Q-Former's output (R, Q, D) of all rows."""
        focus = self.cell(query_embeds[:, MAX_LENGTH : MAX_LENGTH + FOCUS_SLOTS]).unflatten(-1, (2, self.grid))
        characters = self.character(query_embeds[:, :MAX_LENGTH])
        verdict = self.verdict(query_embeds[:, _VERDICT_QUERY])
        return {
            "query_character": _classification(characters, [rows.characters for rows in visual]),
            "query_cell": _classification(focus, [rows.cells for rows in visual]),
            "query_verdict": _classification(verdict, [rows.verdict for rows in visual]),
        }


def _classification(logits: Tensor, labels: list[Ids]) -> Tensor:
    """Mean cross-entropy of (..., classes) over the labels that count; 0 where none does."""
    wanted = torch.from_numpy(np.concatenate(labels)).flatten()
    total = cross_entropy(logits.float().flatten(0, -2), wanted, ignore_index=IGNORED, reduction="sum")
    return total / (wanted != IGNORED).sum().clamp(min=1)


def _target_loss(model: InstructBlip, prefix: Tensor | None, prompt_ids: Tensor, target_ids: Tensor) -> Tensor:
    """Returns (R,): each row's mean cross-entropy per target token; the prefix stands in front of the prompt.

    A mean per row, not over all tokens: else the few tokens of "red" would count nothing beside those of a caption.
    """
    embeds = model.language_model.embed_tokens(prompt_ids)
    mask = (prompt_ids != 0).long()
    if prefix is not None:
        embeds = torch.cat([prefix, embeds.to(prefix.dtype)], dim=1)
        mask = torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)
    logits = model.language_model.target_logits(embeds, mask, target_ids)
    losses = cross_entropy(logits.float().transpose(1, 2), target_ids, reduction="none")
    counts = target_ids != 0
    return (losses * counts).sum(dim=1) / counts.sum(dim=1)


def _rows_loss(model: InstructBlip, image_embeds: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Returns query_embeds (R, Q, D) and the rows' target losses (R,)."""
    qformer_ids = torch.from_numpy(rows.qformer_ids)
    query_embeds, _ = model.query(image_embeds[torch.from_numpy(rows.picture)], qformer_ids, (qformer_ids != 0).long())
    prompt_ids, target_ids = torch.from_numpy(rows.prompt_ids), torch.from_numpy(rows.target_ids)
    return query_embeds, _target_loss(model, model.project(query_embeds), prompt_ids, target_ids)


def all_losses(model: InstructBlip, heads: AuxiliaryHeads, batch: Batch) -> dict[str, Tensor]:
    """Returns the losses by their names in WEIGHTS, those of the patches alone when nothing is asked."""
    image_embeds = model.encode_image(normalised(torch.from_numpy(batch.pixels)))
    losses = heads.patch_losses(image_embeds, batch)
    return losses | _answer_losses(model, heads, image_embeds, batch) if batch.visual else losses


def _answer_losses(model: InstructBlip, heads: AuxiliaryHeads, image_embeds: Tensor, batch: Batch) -> dict[str, Tensor]:
    seen = [_rows_loss(model, image_embeds, rows) for rows in batch.visual]
    prompt_ids, target_ids = map(torch.from_numpy, (batch.rewriting_prompt_ids, batch.rewriting_target_ids))
    return {
        "target": torch.cat([losses for _, losses in seen]).mean(),
        "rewrite": _target_loss(model, None, prompt_ids, target_ids).mean(),
        **heads.query_losses(torch.cat([embeds for embeds, _ in seen]), batch.visual),
    }


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """Returns the weighted sum."""
    return torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
