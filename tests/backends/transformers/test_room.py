"""Positions end: a text stops at the last one, and what has no place behind its prompt is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from picture_fixtures import make_picture

from vlinstruct.backend import Row
from vlinstruct.backends.transformers.any_vlm import TransformersBackend
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed, good

from .conftest import Pair

PICTURE = make_picture(80, 60, seed=1)


@pytest.fixture(params=["blip2_opt", "florence2", "llava"])
def backend(request: pytest.FixtureRequest, pair_of: Callable[[str], Pair]) -> Iterator[TransformersBackend]:
    backend = pair_of(request.param).ours.backend
    assert isinstance(backend, TransformersBackend)
    most = backend.prompts.max_positions
    yield backend
    backend.prompts.max_positions = most


def test_a_text_ends_at_the_last_position_and_cuts_no_other(backend: TransformersBackend) -> None:
    (seen,) = map(good, backend.see([PICTURE]))
    settings = GenerationSettings(max_new_tokens=4)
    prompts = [Row(prompt=text, seen=(seen,)) for text in ("What is written on the sign?", "no")]
    lengths = [good(outcome).usage.prompt for outcome in backend.write(prompts, settings)]
    num_read = 0 if backend.is_encoder_decoder else lengths[0]
    backend.prompts.max_positions = room = lengths[0] + 3
    texts = [good(outcome) for outcome in backend.write(prompts, settings)]
    assert texts[0].usage.written <= room - num_read
    backend.prompts.max_positions = None
    whole = [good(outcome) for outcome in backend.write(prompts, settings)]
    assert texts[0] == whole[0] or (whole[0].text.startswith(texts[0].text) and not texts[0].is_complete)
    assert lengths[1] < lengths[0]
    assert texts[1].text == whole[1].text


def test_a_target_without_room_is_refused_alone(backend: TransformersBackend) -> None:
    (seen,) = map(good, backend.see([PICTURE]))
    assert backend.prompts.max_positions is not None
    targets = [["What is it? " * backend.prompts.max_positions], ["yes"]]
    long, short = backend.score([Row(prompt="What is it?", seen=(seen,))] * 2, targets)
    assert isinstance(long, Failed)
    assert long.error.message.startswith("text too long: ")
    assert not isinstance(short, Failed)
