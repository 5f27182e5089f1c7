"""Names, folders and hub ids are told apart; without a network it is one clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import vlinstruct as vli
from vlinstruct.backends import registry
from vlinstruct.backends.instructblip import configuration
from vlinstruct.backends.registry import (
    BACKBONES,
    default_backbone,
    find,
    find_folder,
    instructblip_backbones,
    known_backbone,
    mini_folder,
    of_same_shape,
)
from vlinstruct.errors import CheckpointError, NetworkError
from vlinstruct.evaluation.report.published import PUBLISHED
from vlinstruct.settings import Thresholds
from vlinstruct.weights.fingerprint import fingerprint


@pytest.mark.parametrize("name", [name for name, backbone in BACKBONES.items() if backbone.hub_id])
def test_a_paper_backbone_that_is_not_cached_needs_the_network(name: str) -> None:
    with pytest.raises(NetworkError, match="not in the cache and offline") as caught:
        find_folder(name, offline=True)
    assert BACKBONES[name].hub_id in caught.value.message


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["flant5-x", "../../x", "", "a b", "./missing"])
def test_an_unknown_backbone_is_refused_with_where_the_names_are(name: str) -> None:
    with pytest.raises(CheckpointError, match="`vlinstruct backbones` lists the names"):
        find_folder(name)


def test_a_model_that_should_ship_and_does_not_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vlinstruct.backends.registry.resources.files", lambda package: tmp_path)
    with pytest.raises(CheckpointError, match=r"mini-llama.*its weights are not in this installation") as caught:
        find_folder("mini-llama")
    assert "\n" not in caught.value.message


def test_the_nearest_name_is_guessed() -> None:
    with pytest.raises(CheckpointError, match="Did you mean flant5-xl"):
        find_folder("flant5xl")


def test_the_environment_changes_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLINSTRUCT_BACKBONE", raising=False)
    assert default_backbone() == "mini"
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", "vicuna-7b")
    assert default_backbone() == "vicuna-7b"
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", "mini-llama")
    assert find().name == default_backbone() == "mini-llama"


def test_an_identity_holds_what_a_command_needs(tiny_folders: dict[str, Path]) -> None:
    mini, tiny = find("mini"), find(str(tiny_folders["t5"]))
    assert (mini.name, mini.folder, mini.revision, mini.entry) == ("mini", mini_folder(), None, BACKBONES["mini"])
    assert mini.config == BACKBONES["mini"].config()
    assert tiny.entry is None
    assert tiny.fingerprint == fingerprint(tiny_folders["t5"]) != mini.fingerprint


def test_a_snapshot_of_the_hub_has_its_commit(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b" / "snapshots" / ("0123456789" * 4)
    shutil.copytree(tiny_folders["t5"], folder)
    assert find(str(folder)).revision == "0123456789" * 4


def test_a_configuration_is_read_once_and_the_fingerprint_when_it_is_asked_for(
    tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[str] = []
    read = registry.read_json_object

    def counted(path: Path) -> dict[str, object]:
        paths.append(path.name)
        return read(path)

    rooms = ("instructblip.image_processor", "instructblip.tokenization", "registry")
    for module in (*(f"backends.{room}" for room in rooms), "weights.hub"):
        monkeypatch.setattr(f"vlinstruct.{module}.read_json_object", counted)
    monkeypatch.setattr(registry, "fingerprint", lambda folder: pytest.fail("nobody asked for it"))
    vli.load(find(str(tiny_folders["t5"])), device="cpu")
    assert paths.count("config.json") == 1
    assert not hasattr(configuration, "read_json_object")


def test_facts_come_by_name_hub_id_or_the_folder_that_ships(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for backbone in BACKBONES.values():
        assert known_backbone(backbone.name) is backbone
        assert backbone.hub_id is None or known_backbone(backbone.hub_id) is backbone
    link = tmp_path / "link"
    link.symlink_to(mini_folder())
    monkeypatch.chdir(mini_folder().parent)
    assert known_backbone(str(link)) is known_backbone("weights") is BACKBONES["mini"]


def test_a_stranger_of_minis_shape_has_none_of_its_facts(tmp_path: Path) -> None:
    shutil.copytree(mini_folder(), tmp_path / "copy")
    copy = find(str(tmp_path / "copy"))
    assert copy.entry is None
    assert of_same_shape(copy.config) is BACKBONES["mini"]
    assert vli.load(copy, device="cpu").thresholds == Thresholds()
    assert vli.load("mini", device="cpu").thresholds == BACKBONES["mini"].thresholds != Thresholds()


def test_a_shape_is_told_by_its_configuration() -> None:
    for backbone in BACKBONES.values():
        twin = backbone if backbone in instructblip_backbones() else None
        assert of_same_shape(json.loads(json.dumps(backbone.config()))) is twin
    assert of_same_shape({}) is None


def test_the_papers_figures_are_filed_under_names_of_known_backbones() -> None:
    assert {name for name, _ in PUBLISHED} <= BACKBONES.keys()
