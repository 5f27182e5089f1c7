"""Pictures and spies for the tests of the command line; the backbone is the tiny T5 folder unless a test says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlinstruct.backend import Row, Written
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.settings import GenerationSettings

Pictures = Callable[..., list[Path]]


@pytest.fixture(autouse=True)
def tiny_backbone(tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", str(tiny_folders["t5"]))


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """Writes pictures of noise, each another one, into a folder of the test's own."""

    def write(count: int, folder: str = "pictures") -> list[Path]:
        (tmp_path / folder).mkdir(exist_ok=True)
        paths = [tmp_path / folder / f"{index:03}.png" for index in range(count)]
        for index, path in enumerate(paths):
            noise = np.random.default_rng(index).integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
        return paths

    return write


@pytest.fixture
def picture(pictures: Pictures) -> Path:
    return pictures(1)[0]


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects every prompt that the language model is sent."""
    seen: list[str] = []
    original = InstructBlipBackend.prompt_ids

    def spy(self: InstructBlipBackend, prompt: str) -> list[int]:
        seen.append(prompt)
        return original(self, prompt)

    monkeypatch.setattr(InstructBlipBackend, "prompt_ids", spy)
    return seen


@pytest.fixture
def num_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects, for every run of the vision tower, the number of pictures it was given."""
    seen: list[int] = []
    original = InstructBlip.encode_image

    def spy(self: InstructBlip, pixel_values: object) -> object:
        seen.append(len(pixel_values))  # type: ignore[arg-type]
        return original(self, pixel_values)  # type: ignore[arg-type]

    monkeypatch.setattr(InstructBlip, "encode_image", spy)
    return seen


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes loading a model a failure of the test."""

    def refuse(*args: object, **kwargs: object) -> None:
        pytest.fail("the model was loaded")

    monkeypatch.setattr("vlinstruct.model.load", refuse)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the model write one text whatever it is asked, with and without a picture."""

    def set_text(text: str) -> None:
        def write(self: object, rows: Sequence[Row], settings: GenerationSettings) -> list[Written]:
            return [Written(text=text.strip(), token_nll=(0.0,)) for _ in rows]

        monkeypatch.setattr(InstructBlipBackend, "write", write)

    return set_text
