"""Where the queries look and what they read equal transformers' attentions, recomputed plainly from its outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

import vlinstruct as vli
from vlinstruct.backend import ProfiledBackend, Row
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.model import Model
from vlinstruct.values import AttentionMap, Clip

TEXT = "what is it?"


@pytest.fixture
def model(tiny_folders: dict[str, Path]) -> Model:
    return vli.load(str(tiny_folders["t5"]), device="cpu")


def network(model: Model) -> InstructBlip:
    return model.backend.network


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8))


def maps(model: Model, *texts: str) -> list[AttentionMap]:
    seen = model.see(picture(0))
    rows = [Row(prompt="", seen=(seen,), reads=text) for text in texts]
    return [frame for (frame,) in model.backend.attention(rows)]


@torch.inference_mode()
def theirs(model: Model, folder: Path, text: str) -> Any:
    """Returns what transformers' Q-Former says of the same picture and text, its attentions included."""
    from transformers import InstructBlipForConditionalGeneration

    their_model = InstructBlipForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()
    image_embeds = their_model.vision_model(model.backend.pixel_values([picture(0)])).last_hidden_state
    ids, mask = model.backend.qformer_ids([text])
    return their_model.qformer(
        input_ids=ids,
        attention_mask=torch.cat([torch.ones(1, tiny_models.NUM_QUERY_TOKENS, dtype=torch.long), mask], dim=1),
        query_embeds=their_model.query_tokens,
        encoder_hidden_states=image_embeds,
        output_attentions=True,
    )


def test_where_the_queries_look_equals_transformers_cross_attentions(
    model: Model, tiny_folders: dict[str, Path]
) -> None:
    (ours,) = maps(model, TEXT)
    attentions = [layer for layer in theirs(model, tiny_folders["t5"], TEXT).cross_attentions if layer is not None]
    assert len(attentions) == 2  # of four layers every second reads the picture
    mean = torch.stack([layer[0].mean(dim=0) for layer in attentions]).mean(dim=0)  # (Q, P)
    assert ours.looks.shape == (tiny_models.NUM_QUERY_TOKENS, 2, 2)
    np.testing.assert_allclose(ours.looks.reshape(len(mean), -1), mean[:, 1:].numpy(), atol=1e-6)
    assert ours.reads is None  # without EMA nothing is read
    assert ours.looks.std() > 1e-3


@pytest.mark.parametrize("is_learned", [False, True])
def test_what_the_queries_read_equals_eq_1_over_transformers_outputs(
    model: Model, tiny_folders: dict[str, Path], is_learned: bool
) -> None:
    network(model).use_ema = True
    queries_and_text = theirs(model, tiny_folders["t5"], TEXT).last_hidden_state[0].double().numpy()
    queries, text = np.split(queries_and_text, [tiny_models.NUM_QUERY_TOKENS])
    if is_learned:
        cmaa = network(model).learn_cmaa()
        for projection in (cmaa.q_proj, cmaa.k_proj):
            torch.nn.init.normal_(projection.weight, std=0.3, generator=torch.Generator().manual_seed(1))
        queries, text = (
            part @ projection.weight.detach().double().numpy().T
            for part, projection in ((queries, cmaa.q_proj), (text, cmaa.k_proj))
        )
    logits = queries @ text.T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    (ours,) = maps(model, TEXT)
    np.testing.assert_allclose(ours.reads, weights / weights.sum(axis=1, keepdims=True), atol=1e-5)
    assert len(ours.tokens) == len(text)
    assert (ours.tokens[0], ours.tokens[-1]) == ("[CLS]", "[SEP]")


def test_looking_changes_nothing_and_leaves_nothing_behind(model: Model) -> None:
    seen = model.see(picture(0))
    row = Row(prompt=TEXT, seen=(seen,), reads=TEXT)
    ids, mask = model.backend.qformer_ids([TEXT])
    before = network(model).image_prefix(seen.image_embeds[None], ids, mask)
    model.backend.attention([row])
    assert torch.equal(network(model).image_prefix(seen.image_embeds[None], ids, mask), before)
    assert not any(module._forward_pre_hooks for module in network(model).modules())


def test_a_clip_has_a_map_for_each_frame_and_a_text_alone_has_none(model: Model) -> None:
    frames = (picture(0), picture(1))
    clip = Clip(frames=frames, frame_indices=(0, 5), num_source_frames=9, fps=3.0, duration_s=3.0)
    rows = [Row(prompt="", seen=(model.see(clip),), reads=TEXT), Row(prompt="", reads=TEXT)]
    of_clip, of_text = ProfiledBackend(model.backend).attention(rows)
    (of_picture,) = maps(model, TEXT)
    assert len(of_clip) == 2
    np.testing.assert_array_equal(of_clip[0].looks, of_picture.looks)
    assert of_text == ()
