"""A small model says what it does not know: a picture of another kind, an answer that it guessed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import vli as vli_command
from PIL import Image

import vlinstruct as vli
from vlinstruct.backends.instructblip import familiarity
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.registry import BACKBONES
from vlinstruct.doubts import doubts
from vlinstruct.errors import CheckpointError
from vlinstruct.mini.draw import draw
from vlinstruct.mini.world import sample_scene
from vlinstruct.operations import Ask, Optimize, Score
from vlinstruct.values import Answer, Identity

SURE = Answer(text="red", instruction="what?", token_nll=(0.0, 0.0))
GUESSED = replace(SURE, token_nll=(0.0, math.log(4)))


def _cloud(num: int, seed: int, *, spread: float = 1.0) -> torch.Tensor:
    """Returns (N, 3, 4): what a vision tower might make of pictures; the class token is noise."""
    return spread * torch.randn(num, 3, 4, generator=torch.Generator().manual_seed(seed))


def test_the_limit_calls_as_many_unknown_as_it_is_told() -> None:
    known = familiarity.fitted(_cloud(2000, 0), _cloud(1000, 1), false_alarms=0.05)
    assert (known.distances(_cloud(1000, 1)) > known.limit).float().mean() == pytest.approx(0.05, abs=0.002)
    assert (known.distances(_cloud(1000, 2, spread=6.0)) > known.limit).float().mean() > 0.9


def test_distances_are_mahalanobiss() -> None:
    seen = _cloud(500, 3) + torch.arange(4.0)
    known = familiarity.fitted(seen, seen, false_alarms=0.01)
    pooled = seen[:, 1:].mean(dim=1).double().numpy()
    covariance = np.cov(pooled.T)
    centred = pooled - pooled.mean(axis=0)
    floor = 1e-3 * covariance.diagonal().mean() * np.eye(4)
    expected = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance + floor), centred)
    assert known.distances(seen).numpy() == pytest.approx(expected, rel=1e-4)


def test_what_is_written_is_read_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    known = familiarity.fitted(_cloud(100, 4), _cloud(100, 5), false_alarms=0.01)
    assert familiarity.read(tmp_path, width=4) is None
    familiarity.save(known, tmp_path)
    again = familiarity.read(tmp_path, width=4)
    assert again is not None
    assert all(torch.equal(getattr(again, name), getattr(known, name)) for name in ("mean", "whitening", "limit"))
    with pytest.raises(CheckpointError, match="its tensors are"):
        familiarity.read(tmp_path, width=5)
    (tmp_path / familiarity.FILE).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        familiarity.read(tmp_path, width=4)


@pytest.fixture(scope="module")
def model() -> vli.Model:
    return vli.load("mini")


def test_mini_knows_its_own_pictures_and_no_noise(model: vli.Model) -> None:
    rng = np.random.default_rng(0)
    pictures = [draw(sample_scene(seed, fonts=("pillow",))) for seed in range(40)]
    noise = [Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)) for _ in range(5)]
    known = [model.backend.knows(model.see(picture)) for picture in pictures]
    assert sum(known) >= 38
    assert not any(model.backend.knows(model.see(picture)) for picture in noise)


def test_a_strange_picture_is_said_and_what_would_see_it(model: vli.Model) -> None:
    seen = model.see(Image.effect_noise((120, 120), 90).convert("RGB"))
    (line,) = doubts(model, seen, SURE)
    least = min(b.download_gb for b in BACKBONES.values() if not b.is_built_in)
    assert any(f"--backbone {name} " in line for name, b in BACKBONES.items() if b.download_gb == least)
    assert f"{least:g} GB" in line


@pytest.mark.parametrize("operation", [Ask(), Optimize(answer=True), Optimize(), Score()])
def test_a_doubt_stands_in_every_record(operation: Ask | Optimize | Score, model: vli.Model) -> None:
    seen = model.see(Image.effect_noise((120, 120), 90).convert("RGB"))
    (record,) = operation.run(model, [seen], [["what is it?"]])
    assert isinstance(record, dict)
    assert "unlike" in record["notices"][-1]


def test_a_batch_says_once_of_how_many_pictures(tmp_path: Path) -> None:
    for seed in range(3):
        Image.effect_noise((120, 120), 60 + 20 * seed).convert("RGB").save(tmp_path / f"{seed}.png")
    for more in ({"is_terminal": True}, {}):
        said = vli_command("ask", tmp_path, "what is it?", "--backbone", "mini", **more).stderr
        assert said.count("3 of 3 records: this picture is unlike those that mini was trained on") == 1


def test_a_guess_is_said_of_a_shipped_model_alone(model: vli.Model) -> None:
    seen = model.see(draw(sample_scene(2, fonts=("pillow",))))
    assert doubts(model, seen, SURE) == []
    assert doubts(model, seen, GUESSED) == ["mini guesses: the certainty of this answer is 0.25."]
    backend = model.backend
    assert isinstance(backend, InstructBlipBackend)
    identity = backend.identity
    try:
        backend.identity = Identity(name="flant5-xl")
        assert doubts(model, seen, GUESSED) == []
    finally:
        backend.identity = identity


def test_a_model_that_cannot_tell_knows_everything(model: vli.Model) -> None:
    backend = model.backend
    assert isinstance(backend, InstructBlipBackend)
    own = backend.familiarity
    try:
        backend.familiarity = None
        assert backend.knows(model.see(Image.effect_noise((120, 120), 90).convert("RGB")))
    finally:
        backend.familiarity = own
