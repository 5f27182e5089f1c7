"""A clip is its frames, side by side: four as transformers' InstructBlipVideo reads them, any other number alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

import vlinstruct as vli
from vlinstruct.backend import Row, Seen
from vlinstruct.errors import ClipError, InputError
from vlinstruct.model import Model
from vlinstruct.settings import ClipSettings, GenerationSettings, OptimizationSettings
from vlinstruct.values import Clip, Failed, Sound, good

QUESTION, TARGETS = "what moves?", ("a dog", "red.")
_SHORT = GenerationSettings(max_new_tokens=8)


def make_clip(num_frames: int, seed: int = 0) -> Clip:
    noise = np.random.default_rng(seed).integers(0, 255, (num_frames, 30, 40, 3), dtype=np.uint8)
    return Clip(
        frames=tuple(map(Image.fromarray, noise)),
        frame_indices=tuple(range(num_frames)),
        num_source_frames=num_frames,
        fps=1.0,
        duration_s=float(num_frames),
    )


@pytest.fixture(scope="module", params=["t5", "llama"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(kind: str, tiny_folders: dict[str, Path]) -> Model:
    return vli.load(tiny_folders[kind], device="cpu")


def row(seen: Seen, question: str = QUESTION) -> Row:
    return Row(prompt=question, seen=(seen,), reads=question)


def nll(model: Model, rows: list[Row]) -> list[list[float]]:
    scores = model.backend.score(rows, [TARGETS] * len(rows))
    return [[nats for target in good(of_row) for nats in target.token_nll] for of_row in scores]


def texts(model: Model, rows: list[Row]) -> list[str]:
    return [good(written).text for written in model.backend.write(rows, _SHORT)]


def their_video_model(kind: str) -> Any:
    """transformers' model for videos with the weights of its model for pictures, whose names are the same."""
    from transformers import InstructBlipVideoConfig, InstructBlipVideoForConditionalGeneration

    values = tiny_models.tiny_config(kind)
    for part in ("vision_config", "qformer_config"):
        values[part] = {**values[part], "model_type": values[part]["model_type"].replace("blip_", "blipvideo_")}
    values |= {"model_type": "instructblipvideo", "video_token_index": tiny_models.IMAGE_TOKEN_INDEX}
    theirs = InstructBlipVideoForConditionalGeneration(InstructBlipVideoConfig(**values)).eval()
    state = tiny_models.hf_model(kind).state_dict()
    if kind == "t5":  # else its head would be its token table
        theirs.language_model.lm_head.weight = torch.nn.Parameter(state["language_model.lm_head.weight"])
    theirs.load_state_dict(state)
    return theirs


def test_four_frames_are_read_as_transformers_reads_a_video(kind: str, model: Model) -> None:
    theirs, clip, backend = their_video_model(kind), make_clip(4), model.backend
    seen = model.see(clip)
    ids = [tiny_models.IMAGE_TOKEN_INDEX] * 4 * tiny_models.NUM_QUERY_TOKENS + backend.prompt_ids(QUESTION)
    qformer_ids, qformer_mask = backend.qformer_ids([QUESTION])
    inputs = {
        "pixel_values": backend.pixel_values(clip.frames)[None],
        "qformer_input_ids": qformer_ids,
        "qformer_attention_mask": qformer_mask,
    }
    expected: list[float] = []
    for target in map(backend.tokenizer.target_ids, TARGETS):
        with torch.no_grad():
            if kind == "t5":
                decoder_ids = torch.tensor([[0, *target[:-1]]])
                logits = theirs(**inputs, input_ids=torch.tensor([ids]), decoder_input_ids=decoder_ids).logits[0]
            else:
                logits = theirs(**inputs, input_ids=torch.tensor([ids + target])).logits[0, len(ids) - 1 : -1]
        expected += [-logits.log_softmax(-1)[place, token].item() for place, token in enumerate(target)]
    assert nll(model, [row(seen)])[0] == pytest.approx(expected, abs=1e-5)
    generated = theirs.generate(**inputs, input_ids=torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0]
    new_ids = generated[1:] if kind == "t5" else generated[len(ids) :] if len(generated) > len(ids) else generated
    stops = [place for place, token in enumerate(new_ids.tolist()) if token in backend.tokenizer.stop_ids]
    assert texts(model, [row(seen)]) == [backend.tokenizer.decode(new_ids.tolist()[: (stops or [8])[0]]).strip()]


@pytest.mark.parametrize("use_ema", [False, True])
def test_a_batch_of_clips_and_pictures_answers_like_one_by_one(model: Model, use_ema: bool) -> None:
    model.backend.network.use_ema = use_ema
    media = [make_clip(3, 1), make_clip(1, 2).frames[0], make_clip(5, 3), make_clip(2, 4), make_clip(1, 2).frames[0]]
    rows = [row(good(seen), f"{QUESTION} {place}") for place, seen in enumerate(model.see_each(media))]
    alone = [row(model.see(medium), f"{QUESTION} {place}") for place, medium in enumerate(media)]
    for together, by_itself in zip(nll(model, rows), [nll(model, [one])[0] for one in alone], strict=True):
        assert together == pytest.approx(by_itself, abs=1e-5)
    assert texts(model, rows) == [texts(model, [one])[0] for one in alone]
    # The order of the frames is a part of what is asked.
    backwards = replace(make_clip(3, 1), frames=make_clip(3, 1).frames[::-1])
    assert nll(model, [row(model.see(backwards), f"{QUESTION} 0")])[0] != pytest.approx(nll(model, rows)[0], abs=1e-3)


@pytest.mark.parametrize("use_ema", [False, True])
def test_a_clip_of_one_frame_is_its_picture(model: Model, use_ema: bool) -> None:
    model.backend.network.use_ema = use_ema
    clip = make_clip(1)
    of_clip, of_picture = row(model.see(clip)), row(model.see(clip.frames[0]))
    assert nll(model, [of_clip]) == nll(model, [of_picture])
    assert texts(model, [of_clip]) == texts(model, [of_picture])
    assert model.backend.num_tokens([of_clip]) == model.backend.num_tokens([of_picture])


def test_what_was_prepared_or_kept_is_seen_alike(model: Model) -> None:
    clip = make_clip(3)
    fresh, prepared = model.see(clip), model.backend.see([model.prepare(clip)])[0]
    first = nll(model, [row(fresh)])
    num_read: list[int] = []
    handle = model.backend.network.qformer.register_forward_hook(
        lambda module, inputs, output: num_read.append(len(output[0]))
    )
    assert nll(model, [row(fresh)]) == first  # its prefixes are kept, frame by frame
    assert num_read == []
    assert nll(model, [row(good(prepared))]) == first
    handle.remove()
    assert num_read == [3]


def test_algorithm_2_and_streams_take_clips(model: Model) -> None:
    clip = make_clip(2)
    settings = OptimizationSettings(max_new_tokens=8)
    assert model.optimize(QUESTION, clip, optimization=settings).rewritten is not None
    *pieces, written = model.backend.stream(row(model.see(clip)), _SHORT)
    assert "".join(pieces) == written.text == texts(model, [row(model.see(clip))])[0]


def test_a_clip_takes_room_for_each_of_its_frames(tiny_folders: dict[str, Path]) -> None:
    model = vli.load(tiny_folders["llama"], device="cpu")
    two, three = (row(model.see(make_clip(num_frames))) for num_frames in (2, 3))
    (of_two, of_three) = model.backend.num_tokens([two, three])
    assert of_two.room - of_three.room == tiny_models.NUM_QUERY_TOKENS


def test_more_frames_than_a_decoder_has_positions_for_fail_alone(tiny_folders: dict[str, Path]) -> None:
    model = vli.load(tiny_folders["llama"], device="cpu")
    most = model.backend.network.config.text_config.max_position_embeddings // tiny_models.NUM_QUERY_TOKENS
    picture = make_clip(1).frames[0]
    long = Clip(frames=(picture,) * most, frame_indices=tuple(range(most)), num_source_frames=most, fps=1, duration_s=1)
    written = model.backend.write([row(model.see(long)), row(model.see(picture))], _SHORT)
    assert isinstance(written[0], Failed)
    assert isinstance(written[0].error, ClipError)
    assert "--frames" in written[0].error.message
    assert good(written[1]).text == texts(model, [row(model.see(picture))])[0]


def test_a_sound_is_refused_by_name_and_fails_alone(model: Model) -> None:
    sound = Sound(samples=np.zeros(160, np.float32), sampling_rate=16_000)
    outcomes = model.see_each([sound, make_clip(2)])
    assert isinstance(outcomes[0], Failed)
    assert not isinstance(outcomes[1], Failed)
    with pytest.raises(InputError, match="takes pictures and clips"):
        model.see(sound)
    assert isinstance(model.backend.see([sound])[0], Failed)


def test_a_file_gives_the_backends_own_number_of_frames_or_the_users(model: Model, tmp_path: Path) -> None:
    from clip_fixtures import write_clip

    path = write_clip(tmp_path / "a.mp4", num_frames=12)
    assert len(model.see(path).frames) == model.backend.abilities.num_frames == 4
    model.clips = ClipSettings(num_frames=3)
    assert len(model.see(path.read_bytes()).frames) == 3
