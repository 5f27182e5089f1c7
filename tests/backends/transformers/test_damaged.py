"""What nobody thought of, in a folder or a picture, ends in one line; what surrounds it goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picture_fixtures import assert_one_line, make_picture
from PIL import Image

import vlinstruct as vli
from vlinstruct.backend import Row
from vlinstruct.backends.transformers.chat_template import ChatTemplate
from vlinstruct.errors import CheckpointError, ImageError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed, good

from .conftest import Pair

PICTURE = make_picture(80, 60, seed=1)
SETTINGS = GenerationSettings(max_new_tokens=4)


@pytest.fixture
def damaged(folder_of: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Returns a copy of a model's folder, some of whose settings are others."""

    def copy(file: str, **values: Any) -> Path:
        folder = Path(shutil.copytree(folder_of("qwen3_vl"), tmp_path / "damaged"))
        settings = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps(settings))
        return folder

    return copy


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        vli.load(folder, device="cpu")
    assert_one_line(caught.value)
    return caught.value.message


def test_a_picture_over_which_the_model_fails_fails_alone(pair_of: Callable[[str], Pair]) -> None:
    backend = pair_of("gemma4").ours.backend  # its vision tower has no positions for a strip of this length
    pictures = [PICTURE, Image.new("RGB", (3, 700)), make_picture(60, 80, seed=2)]
    rows = [Row(prompt="What is it?", seen=(good(seen),)) for seen in backend.see(pictures)]
    first, strip, last = backend.write(rows, SETTINGS)
    for written, picture in ((first, PICTURE), (last, pictures[2])):
        (alone,) = backend.write([Row(prompt="What is it?", seen=(good(backend.see([picture])[0]),))], SETTINGS)
        assert good(written).text == good(alone).text
    for outcome in (strip, backend.score(rows, [["yes", "no"]] * 3)[1]):
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ImageError)
        assert_one_line(outcome.error)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ raise_exception('a\\nb') }}", r"a\nb"),
        ("{{ messages.no.such }}", "no"),
    ],
)
def test_a_template_that_fails_is_told_when_it_is_loaded(
    template: str, says: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folder_of("qwen3_vl"), tmp_path / "damaged"))
    (folder / "chat_template.jinja").write_text(template)
    assert says in refusal(folder)


def test_ends_that_are_no_tokens_end_nothing(damaged: Callable[..., Path], pair_of: Callable[[str], Pair]) -> None:
    model = vli.load(damaged("generation_config.json", eos_token_id=[10**6, -1, "x", None]), device="cpu")
    assert model.ask(PICTURE, "What is it?") == pair_of("qwen3_vl").ours.ask(PICTURE, "What is it?")


def test_a_processor_that_takes_nothing_is_told(damaged: Callable[..., Path]) -> None:
    assert "takes no pictures" in refusal(damaged("processor_config.json", processor_class="NoSuchProcessor"))


def test_a_token_without_an_embedding_is_told(damaged: Callable[..., Path], pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of("qwen3_vl")
    token = pair.ours.backend.prompts.num_embeddings
    folder = damaged("tokenizer.json")
    values = json.loads((folder / "tokenizer.json").read_text())
    values["added_tokens"].append({**values["added_tokens"][0], "id": token, "content": "zebra", "special": False})
    (folder / "tokenizer.json").write_text(json.dumps(values))
    backend = vli.load(folder, device="cpu").backend
    (seen,) = map(good, backend.see([PICTURE]))
    rows = [Row(prompt=text, seen=(seen,)) for text in ("A zebra?", "A horse?")]
    for outcomes in (backend.write(rows, SETTINGS), backend.score([rows[1]] * 2, [["zebra"], ["horse"]])):
        unknown, known = outcomes
        assert isinstance(unknown, Failed)
        assert str(token) in unknown.error.message
        assert not isinstance(known, Failed)


def test_a_word_that_a_training_added_is_no_control_token(folder_of: Callable[[str], Path]) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder_of("qwen3_vl"))
    processor.tokenizer.add_tokens(["zebra", "<zebra>"])
    word, tag = processor.tokenizer.convert_tokens_to_ids(["zebra", "<zebra>"])
    template = ChatTemplate(processor, [])
    assert template.target_ids("zebra", with_end=False) == [word]
    assert tag not in template.target_ids("<zebra>", with_end=False)
    assert not template.mistaken_tokens()
