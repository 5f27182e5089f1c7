"""The package's verbs: functions of `vlinstruct`, whatever was imported before, and the same at a second call."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import vlinstruct as vli

PICTURE = Path(__file__).parents[1] / "examples" / "pictures" / "sign.png"
QUICK = vli.GenerationSettings(max_new_tokens=4)


@pytest.fixture
def backbone(tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", str(tiny_folders["t5"]))
    return str(tiny_folders["t5"])


def test_every_name_has_a_home_and_every_home_is_named() -> None:
    assert sorted([*vli._HOMES, "__version__"]) == vli.__all__
    for name in vli.__all__:
        assert getattr(vli, name) is not None


def test_dir_shows_the_verbs_and_what_they_take_and_return_and_nothing_else() -> None:
    assert dir(vli) == vli.__all__


def test_what_a_type_checker_reads_is_what_is_imported() -> None:
    tree = ast.parse(Path(vli.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    homes = {name.name: str(node.module).removeprefix("vlinstruct.") for node in imports for name in node.names}
    assert homes == vli._HOMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'anwser'"):
        vli.anwser  # noqa: B018


def test_every_verb_can_be_called_twice_in_one_process(backbone: str, tmp_path: Path) -> None:
    image = Image.open(PICTURE).convert("RGB")
    item = vli.BatchItem(id="a", source=PICTURE, image="a", texts=("what is it?",))
    for number in (1, 2):
        model = vli.load()
        seen = model.see(image)
        assert model.ask(seen, "what is it?", generation=QUICK).instruction == "what is it?"
        assert model.score(seen, "what is it?")[0].ias > 0
        assert model.optimize("what is it?", seen).instruction
        assert model.chat(seen).ask("what is it?") is not None
        record = vli.run_one(vli.Ask(generation=QUICK), item)
        summary = vli.run_batch(vli.Ask(generation=QUICK), [item], output=tmp_path / f"{number}.jsonl")
        assert (record["status"], summary.num_done, summary.num_failed) == ("ok", 1, 0)
        assert vli.optimize_shared("what is it?", [item])["images"] == 1
        assert vli.convert([backbone], tmp_path / f"converted-{number}").kind == "folder"
        assert vli.plan_memory(backbone).footprints
        assert vli.diagnose(backbone).backbone


def test_a_verb_is_a_function_after_its_room_was_imported() -> None:
    rooms = "vlinstruct.evaluation.evaluate, vlinstruct.training.finetune, vlinstruct.conversion.convert"
    verbs = "vlinstruct.evaluate, vlinstruct.finetune, vlinstruct.convert"
    code = f"import vlinstruct, {rooms}; print(*map(callable, ({verbs})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 3
