"""Names, folders and hub ids are told apart; without a network it is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlinstruct.backends.registry import BACKBONES, default_backbone, locate
from vlinstruct.errors import CheckpointError, NetworkError


@pytest.mark.parametrize("name", [name for name, backbone in BACKBONES.items() if backbone.hub_id])
def test_a_paper_backbone_that_is_not_cached_needs_the_network(name: str) -> None:
    with pytest.raises(NetworkError, match="not in the cache and offline") as caught:
        locate(name, offline=True)
    assert BACKBONES[name].hub_id in caught.value.message


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["flant5-x", "../../x", "https://hub/model", "", "a b", "./missing"])
def test_an_unknown_backbone_is_refused_with_the_names(name: str) -> None:
    with pytest.raises(CheckpointError, match="flant5-xl"):
        locate(name)


def test_a_model_that_should_ship_and_does_not_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vlinstruct.backends.registry.resources.files", lambda package: tmp_path)
    with pytest.raises(CheckpointError, match=r"mini-llama.*its weights are not in this installation") as caught:
        locate("mini-llama")
    assert "\n" not in caught.value.message


def test_the_nearest_name_is_guessed() -> None:
    with pytest.raises(CheckpointError, match="Did you mean flant5-xl"):
        locate("flant5xl")


def test_the_environment_changes_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLINSTRUCT_BACKBONE", raising=False)
    assert default_backbone() == "mini"
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", "vicuna-7b")
    assert default_backbone() == "vicuna-7b"
