"""The shipped mini-llama: it computes what transformers computes of its folder, and its adapters are its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vlinstruct as vli
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.bench.models import load_both
from vlinstruct.bench.theirs import TheirArms
from vlinstruct.bench.workload import Workload
from vlinstruct.errors import CheckpointError
from vlinstruct.model import Model
from vlinstruct.values import good

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
QUESTION = "What colour is the star?"


@pytest.fixture(scope="module")
def both() -> tuple[InstructBlipBackend, Any]:
    return load_both("mini-llama", device="cpu", dtype="float32")


def test_it_answers_and_rewrites(both: tuple[InstructBlipBackend, Any]) -> None:
    """Each token is likelier than the next best one by 5 nats and more, the rewriting's IAS lower by 3.3."""
    ours = Model(both[0])
    assert ours.ask(PICTURES / "star.png", QUESTION).text == "red"
    assert ours.ask(PICTURES / "sign.png", "What is written in the picture?").text == "stop"
    optimized = ours.optimize("hi, what color is the star please", PICTURES / "star.png")
    assert optimized.rewritten.text == QUESTION


def test_its_scores_are_those_of_transformers(both: tuple[InstructBlipBackend, Any]) -> None:
    backend, theirs = both
    model = Model(backend)
    with Image.open(PICTURES / "star.png") as opened:
        image = opened.convert("RGB")
    other = TheirArms(theirs, backend, [image], Workload(answer_tokens=2, batch=1, acceptance=0.0))
    for target in ("red", "a red star on a white background"):
        expected = other.target_nll(image, QUESTION, QUESTION, backend.tokenizer.target_ids(target))
        ((scores,),) = map(good, model.rank_each([model.see(image)], [QUESTION], [[target]]))
        assert scores.token_nll == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["ema", "projection"])
def test_its_adapters_ship_and_are_its_own(kind: str) -> None:
    loaded = vli.load("mini-llama", adapter=f"mini-llama-{kind}", device="cpu")
    assert loaded.backend.network.use_ema == (kind == "ema")
    with pytest.raises(CheckpointError, match="made for another backbone") as refused:
        vli.load("mini", adapter=f"mini-llama-{kind}", device="cpu")
    assert "the adapter mini-llama-" in str(refused.value)
    assert str(refused.value).endswith("Those that ship for this one are mini-ema and mini-projection.")
