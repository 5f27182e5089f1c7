"""From a picture and a question to text: the whole path equals transformers' on the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

import vlinstruct as vli
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.settings import GenerationSettings

QUESTION = "what colour is it?"


def their_answer(theirs: Any, vlm: InstructBlipBackend, image: Image.Image, **settings: Any) -> str:
    images = [tiny_models.IMAGE_TOKEN_INDEX] * tiny_models.NUM_QUERY_TOKENS
    ids = torch.tensor([images + vlm.tokenizer.prompt_ids(QUESTION)])
    qformer_ids = torch.tensor([vlm.qformer_tokenizer.encode(QUESTION)])
    written = theirs.generate(
        pixel_values=vlm.image_processor([image]),
        qformer_input_ids=qformer_ids,
        qformer_attention_mask=torch.ones_like(qformer_ids),
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        pad_token_id=0,
        eos_token_id=vlm.tokenizer.eos_id,
        **settings,
    )[0]
    start = 0 if theirs.config.text_config.model_type == "t5" else ids.shape[1]
    return vlm.tokenizer.decode(written[start:].tolist()).strip()


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 1},
        {"num_beams": 1, "repetition_penalty": 3.0},
        {"num_beams": 5, "repetition_penalty": 1.5, "length_penalty": -1.0},
    ],
)
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_answers_equal_transformers(kind: str, settings: dict[str, Any], tiny_folders: dict[str, Path]) -> None:
    theirs, ours = tiny_models.hf_model(kind), vli.load(str(tiny_folders[kind]), device="cpu")
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (33, 47, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        answer = ours.ask(image, QUESTION, generation=GenerationSettings(max_new_tokens=10, **settings))
        assert answer.text == their_answer(theirs, ours.backend, image, max_new_tokens=10, **settings)
