"""What is minimised: the answers' cross-entropy, and auxiliary losses that show the way to them.

All are means in nats over what is labelled. Legend: see `row_tokenizer.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from pretrain_mini.architecture import GRID, normalised
from pretrain_mini.batches import Batch
from pretrain_mini.copying import copying_loss
from pretrain_mini.encoder_attention import encoder_attention_loss
from pretrain_mini.guidance import guidance_loss, on_device, recorded_attention
from pretrain_mini.guides import LanguageGuide, LlamaGuide, T5Guide
from pretrain_mini.labels import (
    CHARACTER_CLASSES,
    COLOUR_CLASSES,
    FAMILY_NAMES,
    FAMILY_QUERY,
    FOCUS_QUERIES,
    HALVES,
    IGNORED,
    INDEX_CLASSES,
    SHAPE_CLASSES,
    VERDICT_QUERY,
    Ids,
    PatchLabels,
    RowLabels,
)
from pretrain_mini.row_tokenizer import ReadRows, Rows, TextRows
from pretrain_mini.rows import VERDICTS
from vlinstruct.backends.instructblip.llama import Llama
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.instructblip.t5 import T5
from vlinstruct.mini.scene import COLOUR_NAMES, SHAPES
from vlinstruct.mini.words import MAX_LENGTH

WEIGHTS = {
    "target": 1.0,
    "unlikely": 0.5,
    "rewrite": 1.0,
    "copying": 0.6,
    "encoder_attention": 0.5,
    "encoder_better": 0.5,
    "encoder_agrees": 0.5,
    "encoder_verdict": 0.5,
    "patch_character": 1.0,
    "patch_index": 0.7,
    "patch_shape": 0.3,
    "patch_centre": 0.3,
    "patch_colour": 0.3,
    "patch_row": 0.2,
    "patch_column": 0.2,
    "query_attention": 0.5,
    "query_characters": 0.7,
    "query_verdict": 0.5,
    "query_family": 0.2,
    "query_shapes": 0.3,
    "query_colours": 0.3,
    "query_grid_rows": 0.2,
    "query_grid_columns": 0.2,
    "query_horizontal": 0.3,
    "query_vertical": 0.3,
    "read_family": 0.3,
    "read_shapes": 0.2,
    "read_colours": 0.2,
}
_NOTHING_WEIGHT = 0.15
# A thing's centre is one patch: that its neighbours are none is half of what there is to know.
_NO_CENTRE_WEIGHT = 0.5
# In nats a token: how much less likely what does not fit should be, and how sharply a lack of it counts.
_MARGIN, _MARGIN_SCALE = 1.5, 0.5


class AuxiliaryHeads(nn.Module):
    """Linear classifiers on patches, queries and what the language model knows of them; thrown away after training.

    Characters and their indices are told apart in a patch's left and right half. Query i names character i, the next
    ones name and place the things in focus; one tells what is asked; the verdict's query gives counts, colours, shapes,
    yes or no, and in what order two things stand.
    """

    def __init__(self, vision_width: int, query_width: int, language_width: int) -> None:
        super().__init__()
        outputs = {
            "character": HALVES * CHARACTER_CLASSES,
            "index": HALVES * INDEX_CLASSES,
            "shape": SHAPE_CLASSES,
            "centre": SHAPE_CLASSES,
            "colour": COLOUR_CLASSES,
        }
        self.patch = nn.ModuleDict({name: nn.Linear(vision_width, count) for name, count in outputs.items()})
        names = {
            "characters": CHARACTER_CLASSES,
            "verdict": len(VERDICTS),
            "shapes": len(SHAPES),
            "colours": len(COLOUR_NAMES),
            "family": len(FAMILY_NAMES),
            "grid_rows": GRID,
            "grid_columns": GRID,
            "horizontal": 2,
            "vertical": 2,
        }
        self.query = nn.ModuleDict({name: nn.Linear(query_width, count) for name, count in names.items()})
        self.place = nn.ModuleDict({name: nn.Linear(vision_width, GRID) for name in ("row", "column")})
        outputs = {"better": 2, "agrees": 2, "verdict": len(VERDICTS)}
        self.encoder = nn.ModuleDict({name: nn.Linear(language_width, count) for name, count in outputs.items()})

    def patch_losses(self, image_embeds: Tensor, patches: PatchLabels) -> dict[str, Tensor]:
        """Returns one loss per kind of patch label; image_embeds is (P, 1 + G*G, D)."""
        return {
            f"patch_{name}": _dense_loss(
                head(image_embeds[:, 1:]),
                _tensor(getattr(patches, name), image_embeds),
                _NO_CENTRE_WEIGHT if name == "centre" else _NOTHING_WEIGHT,
            )
            for name, head in self.patch.items()
        }

    def place_losses(self, image_embeds: Tensor) -> dict[str, Tensor]:
        """Returns the losses for each patch's own row and column: without them the tower forgot where things are."""
        axis = torch.arange(GRID, device=image_embeds.device)
        labels = {"row": axis[:, None].expand(GRID, GRID), "column": axis.expand(GRID, GRID)}
        logits = {name: self.place[name](image_embeds[:, 1:]).float().flatten(0, 1) for name in labels}
        pictures = len(image_embeds)
        return {
            f"patch_{name}": cross_entropy(logits[name], labels[name].flatten().repeat(pictures)) for name in labels
        }

    def encoder_losses(self, encoded: list[Tensor], groups: Sequence[Rows]) -> dict[str, Tensor]:
        """Returns the losses on what the language model knows of its context: in T5's encoder, or half-way up Llama.

        Args:
            encoded: (R, Q + T, L) of each group of rows.
            groups: the rows; where they compare or judge, positions are labelled, and one is asked for the verdict.
        """
        tokens = torch.cat([embeds.flatten(0, 1) for embeds in encoded])
        verdicts = torch.cat([_at(*pair) for pair in zip(encoded, groups, strict=True)])
        return {
            "encoder_better": _classification(
                self.encoder["better"](tokens), [rows.better.flatten() for rows in groups]
            ),
            "encoder_agrees": _classification(
                self.encoder["agrees"](tokens), [rows.agrees.flatten() for rows in groups]
            ),
            "encoder_verdict": _classification(
                self.encoder["verdict"](verdicts), [rows.labels.verdict for rows in groups]
            ),
        }

    def query_losses(self, query_embeds: Tensor, labels: list[RowLabels]) -> dict[str, Tensor]:
        """Returns the losses on the Q-Former's output (R, Q, D) of all rows, labelled group by group."""
        focus = query_embeds[:, FOCUS_QUERIES[0] : FOCUS_QUERIES[-1] + 1]
        inputs = {
            "characters": query_embeds[:, :MAX_LENGTH],
            **dict.fromkeys(("verdict", "horizontal", "vertical"), query_embeds[:, VERDICT_QUERY]),
            "family": query_embeds[:, FAMILY_QUERY],
            **dict.fromkeys(("shapes", "colours", "grid_rows", "grid_columns"), focus),
        }
        return {
            f"query_{name}": _classification(self.query[name](embeds), [getattr(group, name) for group in labels])
            for name, embeds in inputs.items()
        }

    def reading_losses(self, read: Sequence[Tensor], groups: Sequence[ReadRows]) -> dict[str, Tensor]:
        """Returns the losses on what the Q-Former's output (R, Q, D) of each group knows of questions alone."""
        query_embeds = torch.cat([*read])
        focus = query_embeds[:, FOCUS_QUERIES[0] : FOCUS_QUERIES[-1] + 1]
        return {
            "read_family": _classification(
                self.query["family"](query_embeds[:, FAMILY_QUERY]), [rows.family for rows in groups]
            ),
            "read_shapes": _classification(self.query["shapes"](focus), [rows.shapes for rows in groups]),
            "read_colours": _classification(self.query["colours"](focus), [rows.colours for rows in groups]),
        }


def _tensor(array: NDArray[Any], beside: Tensor) -> Tensor:
    """Moves an array to where a tensor is."""
    return on_device(array, beside.device)


def _at(encoded: Tensor, rows: Rows) -> Tensor:
    """(R, Q + T, L) -> (R, L), where each row is asked for the verdict."""
    places = _tensor(rows.verdict_places, encoded)
    return torch.take_along_dim(encoded, places[:, None, None], dim=1)[:, 0]


def _dense_loss(outputs: Tensor, labels: Tensor, nothing_weight: float) -> Tensor:
    """Mean cross-entropy of (P, G*G, classes) over labels (P, G, G), or twice as many of both; nothing counts less."""
    halves = labels.numel() // outputs[..., 0].numel()
    logits = outputs.view(*outputs.shape[:-1], halves, -1).float().flatten(0, -2)
    weight = torch.ones(logits.shape[-1], device=logits.device)
    weight[0] = nothing_weight
    return cross_entropy(logits, labels.flatten(), weight)


def _classification(logits: Tensor, labels: list[Ids]) -> Tensor:
    """Mean cross-entropy of (..., classes) over the labels that count; 0 where none does."""
    targets = _tensor(np.concatenate(labels), logits).flatten()
    total = cross_entropy(logits.float().flatten(0, -2), targets, ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


def _guide_of(model: InstructBlip) -> LanguageGuide:
    language_model = model.language_model
    if isinstance(language_model, T5):
        return T5Guide(language_model)
    assert isinstance(language_model, Llama)
    return LlamaGuide(language_model)


def _target_loss(
    model: InstructBlip, guide: LanguageGuide, prefix: Tensor | None, prompt_ids: Tensor, target_ids: Tensor
) -> Tensor:
    """Returns (R,): each row's mean cross-entropy per target token; the prefix stands in front of the prompt.

    A mean per row, not over all tokens: else the few tokens of "red" would count nothing beside those of a caption.
    """
    embeds = model.language_model.embed_tokens(prompt_ids)
    mask = (prompt_ids != 0).long()
    if prefix is not None:
        embeds = torch.cat([prefix, embeds.to(prefix.dtype)], dim=1)
        mask = torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)
    logits = guide.target_logits(embeds, mask, target_ids)
    losses = cross_entropy(logits.float().transpose(1, 2), target_ids, reduction="none")
    counts = target_ids != 0
    return (losses * counts).sum(dim=1) / counts.sum(dim=1)


def _rows_loss(model: InstructBlip, guide: LanguageGuide, image_embeds: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Returns query_embeds (R, Q, D) and the rows' target losses (R,)."""
    picture, qformer_ids, prompt_ids, target_ids = (
        _tensor(ids, image_embeds) for ids in (rows.picture, rows.qformer_ids, rows.prompt_ids, rows.target_ids)
    )
    query_embeds, _ = model.query(image_embeds[picture], qformer_ids, (qformer_ids != 0).long())
    return query_embeds, _target_loss(model, guide, model.project(query_embeds), prompt_ids, target_ids)


def all_losses(model: InstructBlip, heads: AuxiliaryHeads, batch: Batch) -> dict[str, Tensor]:
    """Returns the losses by their names in WEIGHTS, those of the patches alone where nothing is asked.

    The vision tower learns from its dense labels alone. In ten minutes under the gradients of the answers, too (and
    with fewer pages), the share of unseen words that its dense labels spell fell from 79 to 70 % (410 words, one run).
    """
    losses: dict[str, Tensor] = {}
    image_embeds: Tensor = model.query_tokens
    if batch.patches is not None:
        image_embeds = model.encode_image(normalised(_tensor(batch.pixels, model.query_tokens)))
        losses |= heads.patch_losses(image_embeds, batch.patches) | heads.place_losses(image_embeds)
    if batch.read:
        losses |= heads.reading_losses([_read(model, rows) for rows in batch.read], batch.read)
    if batch.visual:
        losses |= _answer_losses(model, heads, image_embeds.detach(), batch)
    elif batch.text:
        losses |= _text_losses(model, batch.text)
    return losses


def _read(model: InstructBlip, rows: ReadRows) -> Tensor:
    """Returns (R, Q, D), what the Q-Former knows of questions alone; it sees nothing, one position of zeros."""
    ids = _tensor(rows.qformer_ids, model.query_tokens)
    nothing = model.query_tokens.new_zeros(len(ids), 1, model.config.vision_config.hidden_size)
    query_embeds, _ = model.query(nothing, ids, (ids != 0).long())
    return query_embeds


def _text_loss(model: InstructBlip, guide: LanguageGuide, rows: TextRows) -> Tensor:
    """Returns the rows' target losses (R,)."""
    ids = (_tensor(ids, model.query_tokens) for ids in (rows.prompt_ids, rows.target_ids))
    return _target_loss(model, guide, None, *ids)


def _text_losses(model: InstructBlip, groups: Sequence[TextRows]) -> dict[str, Tensor]:
    guide = _guide_of(model)
    with guide.recording() as recorded:
        rewritten = torch.cat([_text_loss(model, guide, rows) for rows in groups])
    return {
        "rewrite": rewritten.mean(),
        "copying": copying_loss(recorded.copying, [rows.sources for rows in groups]),
    }


def _margin_loss(losses: Tensor, fits: Tensor) -> Tensor:
    """Returns how far instructions that do not fit are from being less likely than those that do, over all pairs.

    Args:
        losses: (R,), each instruction's mean negative log-likelihood, as IAS is (paper, equation 3).
        fits: (R,), 1 where it fits, 0 where not, IGNORED where it takes no part.
    """
    margins = losses[fits == 0][:, None] - losses[fits == 1][None]
    distances = softplus((_MARGIN - margins) / _MARGIN_SCALE) * _MARGIN_SCALE
    return distances.sum() / max(1, distances.numel())


def _answer_losses(model: InstructBlip, heads: AuxiliaryHeads, image_embeds: Tensor, batch: Batch) -> dict[str, Tensor]:
    guide = _guide_of(model)
    with recorded_attention(model.qformer) as attention, guide.recording() as recorded:
        seen = [_rows_loss(model, guide, image_embeds, rows) for rows in batch.visual]
        rewritten = torch.cat([_text_loss(model, guide, rows) for rows in batch.text])
    sources = [*(rows.sources for rows in batch.visual), *(rows.sources for rows in batch.text)]
    losses = torch.cat([of_group for _, of_group in seen])
    fits = torch.cat([_tensor(rows.fits, losses) for rows in batch.visual])
    return {
        "target": losses[fits != 0].mean(),
        "unlikely": _margin_loss(losses, fits),
        "rewrite": rewritten.mean(),
        "query_attention": guidance_loss(attention, [rows.labels.attention for rows in batch.visual]),
        "copying": copying_loss(recorded.copying, sources),
        "encoder_attention": encoder_attention_loss(recorded.looking, [rows.looks for rows in batch.visual]),
        **heads.encoder_losses(recorded.encoded[: len(batch.visual)], batch.visual),
        **heads.query_losses(torch.cat([embeds for embeds, _ in seen]), [rows.labels for rows in batch.visual]),
    }


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """Returns the weighted sum."""
    return torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
