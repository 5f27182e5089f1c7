"""The public API: one picture or many, the vision tower once, errors that stay in their row."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import not_finite, seen_of

import vlinstruct as vli
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.registry import mini_folder
from vlinstruct.errors import ImageError, InputError, ScoreError, TextError, UsageError
from vlinstruct.media.images import ImageLimits
from vlinstruct.values import Answer, Failed, Optimization


@pytest.fixture(params=["t5", "llama"])
def model(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> vli.Model:
    return vli.load(str(tiny_folders[request.param]), device="cpu")


@pytest.fixture
def picture() -> Image.Image:
    return Image.new("RGB", (40, 30), "red")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts the pictures that go through the vision tower, one entry per pass."""
    passes: list[int] = []
    original = InstructBlip.encode_image

    def counted(self: InstructBlip, pixel_values: torch.Tensor) -> torch.Tensor:
        passes.append(len(pixel_values))
        return original(self, pixel_values)

    monkeypatch.setattr(InstructBlip, "encode_image", counted)
    return passes


def test_a_picture_is_encoded_once_whatever_follows(model: vli.Model, picture: Image.Image, encoded: list[int]) -> None:
    seen = model.see(picture)
    model.ask(seen, "what?", optimize=True, choices=["yes", "no"])
    model.optimize("what is it?", seen)
    model.score(seen, "a", "b", "c")
    assert encoded == [1]


def test_a_question_about_a_file_encodes_it_once(
    model: vli.Model, picture: Image.Image, encoded: list[int], tmp_path: Path
) -> None:
    picture.save(tmp_path / "a.png")
    model.ask(tmp_path / "a.png", "what?", optimize=True)
    model.score((tmp_path / "a.png").read_bytes(), "a", "b")
    assert encoded == [1, 1]


def test_a_picture_is_seen_alike_however_it_is_given(model: vli.Model, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    image = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 20, 15))
    path = tmp_path / "a.png"
    image.save(path, exif=exif)
    by_path = _pixels(model, path)
    with path.open("rb") as stream:
        array = np.asarray(Image.open(path).transpose(Image.Transpose.ROTATE_270))
        others = [Image.open(path), path.read_bytes(), str(path), stream, array]
        assert all(torch.equal(_pixels(model, other), by_path) for other in others)
    assert not torch.equal(_pixels(model, image.convert("RGB")), by_path)  # as it lies on the disk
    assert model.ask(Image.open(path), "what?") == model.ask(path, "what?") == model.ask(array, "what?")
    shared = [model.optimize_shared("what?", [given]) for given in (path, Image.open(path))]
    assert shared[0] == shared[1]
    assert model.chat(Image.open(path)).ask("what?") == model.chat(path).ask("what?")


def _pixels(model: vli.Model, image: Any) -> torch.Tensor:
    (seen,) = seen_of(model, image)
    return seen.image_embeds


def test_the_models_limits_hold_for_what_it_sees(model: vli.Model, picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "a.jpg")
    cut = (tmp_path / "a.jpg").read_bytes()[:-2]
    with pytest.raises(ImageError, match="truncated"):
        model.see(cut)
    model.limits = ImageLimits(allow_truncated=True)
    assert torch.equal(_pixels(model, cut), _pixels(model, tmp_path / "a.jpg"))
    model.limits = ImageLimits(max_pixels=5)
    with pytest.raises(ImageError, match="at most 5 are decoded"):
        model.see(tmp_path / "a.jpg")


def test_what_a_user_should_know_of_a_picture_is_logged(
    model: vli.Model, picture: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture.save(tmp_path / "a.gif", save_all=True, append_images=[picture.rotate(90)])
    with Image.open(tmp_path / "a.gif") as opened:
        for image in (tmp_path / "a.gif", opened):
            caplog.clear()
            model.see(image)
            assert "a.gif: it has several frames, only the first one is used" in caplog.text


@pytest.mark.parametrize("given", [None, 3, [[1, 2], [3, 4]]])
def test_what_is_no_picture_is_refused_by_every_call(model: vli.Model, given: Any) -> None:
    for call in (model.see, lambda it: model.ask(it, "what?"), lambda it: model.score(it, "what?"), model.chat):
        with pytest.raises(ImageError, match="a PIL picture can be read"):
            call(given)


def test_an_optimized_question_is_answered_as_the_chosen_instruction(model: vli.Model, picture: Image.Image) -> None:
    seen = model.see(picture)
    answer = model.ask(seen, "name 2 things", optimize=True)
    assert answer.optimization is not None
    assert answer.instruction == answer.optimization.instruction
    assert answer.text == model.ask(seen, answer.instruction).text
    assert answer.optimization == model.optimize("name 2 things", seen)


def test_paper_selection_takes_the_optimized_instruction(model: vli.Model, picture: Image.Image) -> None:
    result = model.optimize("name 2 things", picture, optimization=vli.OptimizationSettings(select="paper"))
    assert result.chosen == "optimized"


def test_a_setting_is_a_keyword_of_every_call(model: vli.Model, picture: Image.Image) -> None:
    seen = model.see(picture)
    few = vli.GenerationSettings(max_new_tokens=3)
    paper = vli.OptimizationSettings(select="paper", max_new_tokens=5)
    assert model.ask(seen, "what?", max_new_tokens=3) == model.ask(seen, "what?", generation=few)
    assert model.optimize("what?", seen, select="paper", max_new_tokens=5) == model.optimize(
        "what?", seen, optimization=paper
    )
    both = model.ask(seen, "what?", optimize=True, optimization=paper, max_new_tokens=3, when="always")
    assert both.optimization == model.optimize("what?", seen, optimization=paper)  # its own number of tokens
    assert both.text == model.ask(seen, both.instruction, generation=few).text
    chat = model.chat(seen, optimize=True, select="paper", max_new_tokens=3)
    assert (chat.settings.generation, chat.settings.optimization.select) == (few, "paper")
    shared = [model.optimize_shared("what?", [picture], **given) for given in ({"optimization": paper}, vars(paper))]
    assert shared[0] == shared[1]


def test_a_guard_that_changes_nothing_is_refused(model: vli.Model, picture: Image.Image) -> None:
    for call in (lambda: model.ask(picture, "what?", keep=("a",)), lambda: model.chat(picture, keep=("a",))):
        with pytest.raises(UsageError, match="keep changes nothing without optimize=True"):
            call()


def test_safe_selection_takes_the_lowest_ias_that_keeps_the_content(model: vli.Model, picture: Image.Image) -> None:
    result = model.optimize("name 2 things", picture)
    assert result.instruction.count("2") >= 1
    assert getattr(result, result.chosen).ias <= result.initial.ias


def test_many_pictures_optimize_like_one(model: vli.Model) -> None:
    images = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")]
    texts = ["what is it?", "name 2 things", "x"]
    together = model.optimize_each(seen_of(model, *images), texts)
    alone = [model.optimize(text, image) for text, image in zip(texts, images, strict=True)]
    for batched, other in zip(together, alone, strict=True):
        assert isinstance(batched, Optimization)
        assert batched.instruction == other.instruction
        assert batched.initial.ias == pytest.approx(other.initial.ias, abs=1e-5)


def test_a_row_that_fails_does_not_bring_the_others_down(model: vli.Model, picture: Image.Image) -> None:
    seen = model.see(picture)
    sound, broken = model.score_each([seen, not_finite(seen)], [["a"], ["a"]])
    assert isinstance(broken, Failed)
    assert isinstance(broken.error, ScoreError)
    assert isinstance(sound, list)
    (alone,) = model.score(seen, "a")
    assert sound[0].ias == pytest.approx(alone.ias, abs=1e-5)


def test_a_picture_that_cannot_be_read_does_not_bring_the_others_down(
    model: vli.Model, picture: Image.Image, encoded: list[int]
) -> None:
    first, failed, last = model.see_each([picture, b"<html>", picture])
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ImageError)
    assert encoded == [2]
    assert model.score(first, "a") == model.score(last, "a")


@pytest.mark.parametrize("settings", [{}, {"choices": [["yes", "no"]] * 3}, {"optimize": True}])
def test_a_prompt_that_is_too_long_fails_its_row_alone(
    settings: dict[str, Any], tiny_folders: dict[str, Path], picture: Image.Image
) -> None:
    model = vli.load(str(tiny_folders["llama"]), device="cpu")
    seen = [model.see(picture)] * 3
    questions = ["what?", "a" * 2500, "name 2 things"]
    if "optimize" in settings:
        settings = {**settings, "optimization": vli.OptimizationSettings(max_new_tokens=8)}
    first, failed, last = model.ask_each(seen, questions, **settings)
    assert isinstance(failed, Failed)
    assert failed.error.code == "text_too_long"
    if "choices" in settings:
        settings["choices"] = settings["choices"][:2]
    for answer, alone in zip((first, last), model.ask_each(seen[:2], questions[::2], **settings), strict=True):
        assert isinstance(answer, Answer)
        assert isinstance(alone, Answer)
        assert (answer.text, answer.instruction) == (alone.text, alone.instruction)


def test_an_optimized_row_that_is_too_long_is_its_own_failure(
    tiny_folders: dict[str, Path], picture: Image.Image
) -> None:
    model = vli.load(str(tiny_folders["llama"]), device="cpu")
    optimization = vli.OptimizationSettings(max_new_tokens=8)
    outcomes = model.optimize_each([model.see(picture)] * 2, ["a" * 2500, "what?"], optimization=optimization)
    assert [type(outcome) for outcome in outcomes] == [Failed, Optimization]


@pytest.mark.parametrize("text", ["", "  \n", "\u200b", "\udcff", "a" * 20_001])
def test_a_text_that_cannot_be_asked_is_refused(model: vli.Model, picture: Image.Image, text: str) -> None:
    with pytest.raises(TextError):
        model.ask(picture, text)
    with pytest.raises(TextError):
        model.score(picture, "fine", text)


def test_a_picture_that_cannot_be_read_is_refused(model: vli.Model, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        model.see(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "cuda:9"}, "cannot use --device"),
        ({"device": "toaster"}, "cannot use --device"),
        ({"dtype": "float8"}, "cannot use --dtype"),
        ({"dtype": "float16"}, "T5 language models overflow in float16"),
        ({"compile": True, "quantize": "8bit"}, r"cannot use --compile \(--quantize 8bit\)"),
    ],
)
def test_a_device_or_dtype_that_does_not_fit_is_refused(
    settings: dict[str, Any], words: str, tiny_folders: dict[str, Path]
) -> None:
    with pytest.raises(InputError, match=words):
        vli.load(str(tiny_folders["t5"]), **{"device": "cpu", **settings})


def test_bfloat16_answers_too(tiny_folders: dict[str, Path], picture: Image.Image) -> None:
    model = vli.load(str(tiny_folders["t5"]), device="cpu", dtype="bfloat16")
    assert isinstance(model.ask(picture, "what?", choices=["yes", "no"]), Answer)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, vlinstruct; vlinstruct.GenerationSettings(); print({'torch', 'PIL', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_answering_imports_neither_torchs_compiler_nor_transformers(tiny_folders: dict[str, Path]) -> None:
    code = f"""
import sys, vlinstruct
from PIL import Image
vlinstruct.load({str(tiny_folders["t5"])!r}, device="cpu").ask(Image.new("RGB", (9, 9)), "what?", optimize=True)
print(sorted({{"torch._dynamo", "sympy", "transformers", "peft"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vli.nothing
    assert all(hasattr(vli, name) for name in vli.__all__)


def test_mini_refuses_uncertain_rewritings_and_others_do_not(tiny_folders: dict[str, Path]) -> None:
    assert vli.load("mini", device="cpu").thresholds.least_certainty == 0.8
    assert vli.load(str(mini_folder()), device="cpu").thresholds.least_certainty == 0.8
    assert vli.load(str(tiny_folders["t5"]), device="cpu").thresholds.least_certainty == 0


@pytest.mark.parametrize("variant", ["", "\ud800"])
def test_a_variant_is_checked_as_an_instruction_is(model: vli.Model, picture: Image.Image, variant: str) -> None:
    settings = vli.OptimizationSettings(variants=("what is it?", variant))
    with pytest.raises(TextError, match=r"cannot use text \(variant\)"):
        model.optimize("what?", picture, optimization=settings)
    with pytest.raises(TextError, match=r"cannot use text \(variant\)"):
        model.optimize_shared("what?", [picture], optimization=settings)
