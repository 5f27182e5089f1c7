"""`doctor --deep` tells how near the weights come to what transformers has published of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

from vlinstruct.backends.registry import find
from vlinstruct.doctor.finding import DoctorSettings, Finding
from vlinstruct.doctor.golden import GOLDENS, Golden, compare_deeply
from vlinstruct.errors import NetworkError
from vlinstruct.settings import GenerationSettings

QUESTION = "what is it?"


def compared(folder: Path, image: Path, golden: Golden) -> list[Finding]:
    settings = DoctorSettings(backbone=str(folder), device="cpu", dtype="float32", picture=image, offline=True)
    return list(compare_deeply(settings, [golden]))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def written_by_transformers(folder: Path, image: Path) -> Golden:
    """What transformers' model writes about the picture, and its first logits."""
    import vlinstruct

    backend = vlinstruct.load(str(folder), device="cpu", dtype="float32").backend
    theirs = tiny_models.hf_model("llama")
    placeholder = [tiny_models.IMAGE_TOKEN_INDEX] * tiny_models.NUM_QUERY_TOKENS
    ids = torch.tensor([[*placeholder, *backend.prompt_ids(QUESTION)]])
    qformer_ids, mask = backend.qformer_ids([QUESTION])
    inputs = {"pixel_values": backend.pixel_values([Image.open(image)]), "qformer_input_ids": qformer_ids}
    inputs |= {"qformer_attention_mask": mask, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        new = theirs.generate(**inputs, max_new_tokens=12, pad_token_id=0, eos_token_id=2)[0, ids.shape[1] :]
        logits = theirs(**inputs).logits[0, :3, :3]
    return Golden(
        picture="https://example.org/a.png",
        prompt=QUESTION,
        ids=tuple(token for token in new.tolist() if token != 2),
        settings=GenerationSettings(max_new_tokens=12),
        dtype="float32",
        logits=tuple(map(tuple, logits.tolist())),
    )


def test_an_output_of_transformers_is_met(tiny_folders: dict[str, Path], image: Path) -> None:
    golden = written_by_transformers(tiny_folders["llama"], image)
    text, logits = compared(tiny_folders["llama"], image, golden)
    assert text.level == logits.level == "ok"
    assert f"all {len(golden.ids)} tokens are the published ones (float32 on cpu)" in text.found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda golden: {"ids": (*golden.ids[:5], 50, *golden.ids[6:])}, "5 of 12 tokens are the published ones"),
        (lambda golden: {"ids": (*golden.ids, 50)}, "12 of 13 tokens"),
        (lambda golden: {"ids": golden.ids[:-2]}, "10 of 10 tokens"),
        (lambda golden: {"logits": ((9.0, 9.0, 9.0),)}, "the first logits differ"),
    ],
)
def test_a_difference_is_told_with_its_place(
    change: Callable[[Golden], dict[str, object]], words: str, tiny_folders: dict[str, Path], image: Path
) -> None:
    golden = written_by_transformers(tiny_folders["llama"], image)
    findings = compared(tiny_folders["llama"], image, replace(golden, **change(golden)))
    assert any(words in finding.found for finding in findings if finding.level == "notice")


def test_without_its_picture_an_output_is_not_tried_offline(tiny_folders: dict[str, Path]) -> None:
    golden = GOLDENS["flant5-xl"][0]
    (finding,) = compare_deeply(DoctorSettings(backbone=str(tiny_folders["t5"]), offline=True), [golden])
    assert (finding.level, golden.picture in str(finding.fix)) == ("notice", True)


def test_a_backbone_without_published_outputs_is_told() -> None:
    (finding,) = compare_deeply(DoctorSettings(backbone="mini"))
    assert "none of mini is known" in finding.found


@pytest.mark.real_weights
@pytest.mark.parametrize("name", list(GOLDENS))
def test_the_real_weights_write_what_transformers_has_published(name: str) -> None:
    try:
        find(name, offline=True)
    except NetworkError as error:
        pytest.skip(error.message)
    findings = list(compare_deeply(DoctorSettings(backbone=name)))
    assert [finding.found for finding in findings if finding.level != "ok"] == []
