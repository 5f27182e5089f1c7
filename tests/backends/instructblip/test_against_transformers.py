"""Our modules and decoding equal transformers' InstructBlipForConditionalGeneration on the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.decoding import generate
from vlinstruct.backends.instructblip.language_model import Context
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.settings import GenerationSettings

KINDS = ("t5", "llama")
STOP_ID = {"t5": 1, "llama": 2}


class Pair:
    """transformers' model, ours with the same weights, and a batch of four rows of different length."""

    def __init__(self, kind: str, num_rows: int, seed: int) -> None:
        self.kind = kind
        self.theirs = tiny_models.hf_model(kind, seed)
        self.ours = InstructBlip(InstructBlipConfig.from_dict(tiny_models.tiny_config(kind))).eval()
        state = self.theirs.state_dict()
        shared = {name: state[name] for name in self.ours.state_dict()}
        self.ours.load_state_dict(shared)
        draw = torch.Generator().manual_seed(seed)
        self.pixel_values = torch.randn(num_rows, 3, 28, 28, generator=draw)
        self.qformer_ids = [torch.randint(5, 90, (n,), generator=draw) for n in (9, 3, 6, 7)[:num_rows]]
        self.prompts = [torch.randint(4, 98, (n,), generator=draw) for n in (10, 7, 4, 9)[:num_rows]]
        self.targets = torch.randint(4, 98, (num_rows, 6), generator=draw)

    @property
    def their_inputs(self) -> dict[str, Tensor]:
        images = torch.full((tiny_models.NUM_QUERY_TOKENS,), tiny_models.IMAGE_TOKEN_INDEX)
        rows = [torch.cat([images, prompt]) for prompt in self.prompts]
        return {
            "pixel_values": self.pixel_values,
            "qformer_input_ids": pad_sequence(self.qformer_ids, batch_first=True),
            "qformer_attention_mask": pad_sequence(
                [torch.ones_like(row) for row in self.qformer_ids], batch_first=True
            ),
            "input_ids": pad_sequence(rows, batch_first=True, padding_side="left"),
            "attention_mask": pad_sequence(
                [torch.ones_like(row) for row in rows], batch_first=True, padding_side="left"
            ),
        }

    def context(self, rows: slice = slice(None)) -> Context:
        theirs = self.their_inputs
        image_embeds = self.ours.encode_image(self.pixel_values[rows])
        prefix = self.ours.image_prefix(
            image_embeds, theirs["qformer_input_ids"][rows], theirs["qformer_attention_mask"][rows]
        )
        prompts = self.prompts[rows]
        embeds = [
            torch.cat([p, self.ours.language_model.embed_tokens(ids)]) for p, ids in zip(prefix, prompts, strict=True)
        ]
        mask = [torch.ones(len(row), dtype=torch.bool) for row in embeds]
        seen = [(0,) if self.kind == "t5" else (*ids.tolist(), tiny_models.IMAGE_TOKEN_INDEX) for ids in prompts]
        return Context(
            inputs_embeds=pad_sequence(embeds, batch_first=True, padding_side="left"),
            attention_mask=pad_sequence(mask, batch_first=True, padding_side="left"),
            penalized_ids=tuple(seen),
        )

    def their_logits(self) -> Tensor:
        inputs = self.their_inputs
        if self.kind == "t5":
            return self.theirs(**inputs, labels=self.targets).logits
        inputs["input_ids"] = torch.cat([inputs["input_ids"], self.targets], dim=1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(self.targets)], dim=1)
        positions = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        return self.theirs(**inputs, position_ids=positions).logits[:, -self.targets.shape[1] - 1 : -1]

    def their_texts(self, **settings: Any) -> list[list[int]]:
        inputs = self.their_inputs
        written = self.theirs.generate(**inputs, pad_token_id=0, eos_token_id=STOP_ID[self.kind], **settings)
        start = 1 if self.kind == "t5" else inputs["input_ids"].shape[1]
        return [before_stop(row[start:].tolist(), STOP_ID[self.kind]) for row in written]


def before_stop(ids: list[int], stop: int) -> list[int]:
    return ids[: ids.index(stop)] if stop in ids else ids


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_transformers_with_padding(kind: str, num_rows: int) -> None:
    pair = Pair(kind, num_rows, seed=0)
    context = pair.context()
    ours = pair.ours.language_model.target_logits(context.inputs_embeds, context.attention_mask, pair.targets)
    torch.testing.assert_close(ours, pair.their_logits(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_logits_equal_fresh_ones(kind: str) -> None:
    pair = Pair(kind, 4, seed=1)
    context, model = pair.context(), pair.ours.language_model
    fresh = model.target_logits(context.inputs_embeds, context.attention_mask, pair.targets)
    first, state = model.prefill(context.inputs_embeds, context.attention_mask)
    steps = [first]
    steps += [model.decode(pair.targets[:, :2], state), model.decode(pair.targets[:, 2:3], state)]
    steps += [model.decode(pair.targets[:, 3:5], state)]
    torch.testing.assert_close(torch.cat(steps, dim=1), fresh, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_drop_tokens_go_on_as_if_they_had_not_read_them(kind: str) -> None:
    pair = Pair(kind, 4, seed=1)
    context, model = pair.context(), pair.ours.language_model
    fresh = model.target_logits(context.inputs_embeds, context.attention_mask, pair.targets)
    first, state = model.prefill(context.inputs_embeds, context.attention_mask, pair.targets[:, :3])
    torch.testing.assert_close(first, fresh[:, :4], atol=1e-4, rtol=0)
    kept = [0, 3, 1, 2]
    state.drop([3 - count for count in kept])
    following = torch.stack([row[count : count + 2] for row, count in zip(pair.targets, kept, strict=True)])
    expected = torch.stack([row[count + 1 : count + 3] for row, count in zip(fresh, kept, strict=True)])
    torch.testing.assert_close(model.decode(following, state), expected, atol=1e-4, rtol=0)


SETTINGS = [
    {"num_beams": 1},
    {"num_beams": 1, "repetition_penalty": 1.3},
    {"num_beams": 5},
    {"num_beams": 5, "length_penalty": -1.0},
    {"num_beams": 5, "length_penalty": 2.0, "repetition_penalty": 1.5},
    {"num_beams": 3, "length_penalty": 0.0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(f"{v}" for v in settings.values()))
@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_texts_equal_transformers_token_for_token(kind: str, num_rows: int, settings: dict[str, Any]) -> None:
    for seed in range(3):
        pair = Pair(kind, num_rows, seed)
        config = GenerationSettings(max_new_tokens=12, **settings)
        ours = generate(pair.ours.language_model, pair.context(), config, (STOP_ID[kind],))
        assert [text.ids for text in ours] == pair.their_texts(
            max_new_tokens=12, do_sample=False, early_stopping=False, **settings
        )


@pytest.mark.parametrize("kind", KINDS)
def test_some_texts_end_before_the_limit_and_some_do_not(kind: str) -> None:
    """The comparison above would be blind if no text ever met the end token."""
    lengths: set[int] = set()
    for seed in range(40):  # which texts end depends on the release of transformers that drew the weights
        pair = Pair(kind, 4, seed)
        config = GenerationSettings(max_new_tokens=12, num_beams=5, length_penalty=-1.0)
        texts = generate(pair.ours.language_model, pair.context(), config, (STOP_ID[kind],))
        lengths |= {len(text.ids) for text in texts}
        assert all(text.is_complete == (len(text.ids) < 12) for text in texts)
        if len(lengths) > 1:
            break
    assert 12 in lengths
    assert min(lengths) < 12


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_writes_what_its_rows_write_alone(kind: str, num_beams: int) -> None:
    pair = Pair(kind, 4, seed=2)
    config = GenerationSettings(max_new_tokens=8, num_beams=num_beams)
    together = generate(pair.ours.language_model, pair.context(), config, (STOP_ID[kind],))
    alone = [
        generate(pair.ours.language_model, pair.context(slice(row, row + 1)), config, (STOP_ID[kind],))[0]
        for row in range(4)
    ]
    assert [(text.ids, text.is_complete) for text in together] == [(text.ids, text.is_complete) for text in alone]
