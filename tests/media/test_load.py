"""Whatever a file is, it is read as that: by its first bytes, and by its name where they tell nothing."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from clip_fixtures import write_clip, write_sound
from picture_fixtures import encode_picture, make_picture
from PIL import Image

from vlinstruct.errors import ClipError, ImageError, InputError, SoundError
from vlinstruct.media.fetch import Url
from vlinstruct.media.inputs import ALL_KINDS, ListingOptions, list_images, load_medium_of
from vlinstruct.media.load import MediaSettings, load_medium
from vlinstruct.settings import ClipSettings
from vlinstruct.values import Abilities, Clip, Sound


@pytest.fixture
def media(tmp_path: Path) -> dict[type, bytes]:
    return {
        Image.Image: encode_picture(make_picture(), "PNG"),
        Clip: write_clip(tmp_path / "a.mp4").read_bytes(),
        Sound: write_sound(tmp_path / "a.wav", np.zeros(800)).read_bytes(),
    }


def test_the_kind_is_that_of_the_content(media: dict[type, bytes], tmp_path: Path) -> None:
    for kind, content in media.items():
        assert isinstance(load_medium(content).medium, kind)
        assert isinstance(load_medium(io.BytesIO(content)).medium, kind)
        for name in ("nothing", "other.wav", "other.mp4"):
            path = tmp_path / name
            path.write_bytes(content)
            assert isinstance(load_medium(path).medium, kind)
            assert isinstance(load_medium(str(path)).medium, kind)


def test_what_is_named_as_a_picture_is_read_as_one(media: dict[type, bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(media[Clip])
    with pytest.raises(ImageError, match="its format is video"):
        load_medium(path)


@pytest.mark.parametrize(
    ("name", "error"), [("a.mp4", ClipError), ("a.wav", SoundError), ("a.png", ImageError), ("a", ImageError)]
)
def test_what_cannot_be_told_is_what_its_name_says(name: str, error: type[InputError], tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(error) as caught:
        load_medium(path)
    assert caught.value.code.endswith("_missing")
    path.write_bytes(b"")
    with pytest.raises(error) as caught:
        load_medium(path)
    assert caught.value.code.endswith("_empty")


@pytest.mark.parametrize("name", ["a.mp4", "a.wav"])
def test_a_pipe_is_refused_without_a_wait(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError) as caught:
        load_medium(tmp_path / name)
    assert caught.value.code.endswith("_not_regular")


def test_what_is_not_taken_is_refused_by_what_is_before_it_is_decoded(media: dict[type, bytes]) -> None:
    pictures, cut = Abilities(), media[Clip][:64]
    for content in (media[Clip], cut, media[Sound]):
        with pytest.raises(InputError, match="takes pictures only") as caught:
            load_medium(content, name="it", abilities=lambda: pictures)
        assert caught.value.code == "media_not_taken"
    assert load_medium(media[Image.Image], abilities=lambda: Abilities(media=frozenset({"clip"}))).notices == ()


def test_the_number_of_frames_is_the_backends_unless_the_user_says(media: dict[type, bytes]) -> None:
    six = Abilities(media=ALL_KINDS, num_frames=6)
    for clips, abilities, expected in (
        (ClipSettings(), lambda: six, 6),
        (ClipSettings(num_frames=3), lambda: six, 3),
        (ClipSettings(fps=1), lambda: six, 3),
        (ClipSettings(), lambda: None, Abilities.num_frames),
    ):
        medium = load_medium(media[Clip], settings=MediaSettings(clips=clips), abilities=abilities).medium
        assert len(medium.frames) == expected


def test_a_url_is_read_as_what_it_gives(media: dict[type, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, content in media.items():
        monkeypatch.setattr("vlinstruct.media.inputs.fetch", lambda url, content=content: content)
        assert isinstance(load_medium_of(Url(address="https://h/x?y=1")).medium, kind)


def test_a_picture_asks_for_no_abilities(media: dict[type, bytes]) -> None:
    def refuse() -> None:
        raise AssertionError("a model is found for nothing")

    load_medium(media[Image.Image], abilities=refuse)


def test_a_folder_lists_what_was_asked_for(media: dict[type, bytes], tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(media[Image.Image])
    (tmp_path / "c.txt").write_text("no medium")
    listed = list_images([tmp_path], options=ListingOptions(kinds=ALL_KINDS))
    assert [Path(item.id).name for item in listed.items] == ["a.mp4", "a.wav", "b.png"]
    assert listed.notices == ("1 skipped: files without the extension of an image, a clip or a sound",)
    assert [Path(item.id).name for item in list_images([tmp_path]).items] == ["b.png"]


def test_a_folder_leaves_out_what_no_package_reads_and_says_so(
    media: dict[type, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.png").write_bytes(media[Image.Image])
    monkeypatch.setattr("vlinstruct.media.inputs.is_readable", lambda kind: kind == "picture")
    listed = list_images([tmp_path], options=ListingOptions(kinds=ALL_KINDS))
    assert [Path(item.id).name for item in listed.items] == ["b.png"]
    assert listed.notices == (
        "1 skipped: clips, which need vlinstruct[video]",
        "1 skipped: sounds, which need vlinstruct[audio]",
    )
