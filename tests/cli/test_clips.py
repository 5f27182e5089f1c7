"""Clips and sounds as they are typed: answered where the model takes them, else one line and no model."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from clip_fixtures import write_clip, write_sound
from command_line import vli
from PIL import Image

ASKED = "what moves?"
COMMANDS = {
    "ask": lambda path: ("ask", path, ASKED),
    "score": lambda path: ("score", path, ASKED),
    "optimize": lambda path: ("optimize", ASKED, path),
    "shared": lambda path: ("optimize", ASKED, path, "--shared"),
    "chat": lambda path: ("chat", path),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip and a sound."""
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "clip.mp4", num_frames=12)
    write_sound(folder / "sound.wav", np.zeros(1600))
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_a_clip(command: str, made: Path, num_seen: list[int]) -> None:
    stdin = f"{ASKED}\n".encode()
    assert vli(*COMMANDS[command](made / "clip.mp4"), stdin=stdin).text
    assert set(num_seen) == {4}  # InstructBLIP's own number of frames


@pytest.mark.parametrize(("options", "num_frames"), [(("--frames", 3), 3), (("--fps", 2), 3), (("--fps", "0.1"), 1)])
def test_the_number_of_frames_is_the_users(
    options: tuple[object, ...], num_frames: int, made: Path, num_seen: list[int]
) -> None:
    assert vli("ask", made / "clip.mp4", ASKED, *options).text
    assert num_seen == [num_frames]


def test_a_clip_of_equal_frames_is_answered_as_its_frame(made: Path, tmp_path: Path) -> None:
    """From file to answer: one frame of it is the picture that PyAV decodes."""
    import av

    with av.open(str(made / "clip.mp4")) as container:
        frame = [frame.to_image() for frame in container.decode(video=0)][6]
    frame.save(tmp_path / "frame.png")
    (of_clip,) = vli("score", made / "clip.mp4", ASKED, "--frames", 1, "--json").records
    (of_picture,) = vli("score", tmp_path / "frame.png", ASKED, "--json").records
    assert of_clip["scores"] == of_picture["scores"]
    assert of_clip["image"] == str(made / "clip.mp4")


def test_stdin_may_be_a_clip(made: Path) -> None:
    piped = vli("ask", "-", ASKED, "--json", stdin=(made / "clip.mp4").read_bytes()).records[0]
    assert piped["answer"] == vli("ask", made / "clip.mp4", ASKED, "--json").records[0]["answer"]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_model_does_not_take_is_one_line_and_loads_no_model(command: str, made: Path, no_model: None) -> None:
    line = vli(*COMMANDS[command](made / "sound.wav"), stdin=b"what?\n").refusal(4)
    assert "sound.wav): this model takes pictures and clips" in line


@pytest.mark.parametrize("backbone", ["flant5-xl", "Salesforce/instructblip-vicuna-7b"])
def test_no_model_is_downloaded_for_what_it_does_not_take_or_what_cannot_be_read(
    backbone: str, made: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes((made / "clip.mp4").read_bytes()[:99])
    assert "takes pictures and clips" in vli("ask", made / "sound.wav", ASKED, "--backbone", backbone).refusal(4)
    assert "its index is missing" in vli("ask", bad, ASKED, "--backbone", backbone, "--offline").refusal(4)
    vli("ask", made / "clip.mp4", ASKED, "--backbone", backbone, "--offline").refusal(9)  # else it would be


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("name", "package", "extra"), [("clip.mp4", "av", "video"), ("sound.wav", "soxr", "audio")])
def test_a_missing_package_is_one_line_with_its_extra_and_loads_no_model(
    command: str, name: str, package: str, extra: str, made: Path, no_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    line = vli(*COMMANDS[command](made / name), stdin=b"what?\n").refusal(6)
    assert f"vlinstruct[{extra}]" in line


def test_a_bad_clip_is_one_line_and_loads_no_model(made: Path, tmp_path: Path, no_model: None) -> None:
    content = (made / "clip.mp4").read_bytes()
    for name, bad, why in (
        ("a.mp4", b"", "empty file"),
        ("b.mp4", content[:-300], "its index is missing"),
        ("c.mp4", b"#EXTM3U\nfile:///etc/passwd\n", "looks like text"),
        ("d", b"\x1aE\xdf\xa3" + bytes(100), "damaged clip"),
    ):
        (tmp_path / name).write_bytes(bad)
        assert why in vli("ask", tmp_path / name, ASKED).refusal(4)
    assert "no such file" in vli("ask", tmp_path / "missing.mp4", ASKED).refusal(4)
    assert "64 x 48 pixels a frame" in vli("ask", made / "clip.mp4", ASKED, "--max-pixels", 9).refusal(4)


def test_a_folder_of_all_kinds_is_a_batch_and_changes_no_pictures_record(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "all")
    Image.new("RGB", (12, 9), "red").save(folder / "a.png")
    Image.new("RGB", (12, 9), "blue").save(folder / "z.png")
    alone = vli("ask", folder / "*.png", ASKED)
    for size in (1, 4):
        together = vli("ask", folder, ASKED, "--frames", 2, "--batch-size", size)
        assert together.exit_code == 3
        records = {Path(record["id"]).name: record for record in together.records}
        assert list(records) == ["a.png", "clip.mp4", "sound.wav", "z.png"]
        assert [records[name]["status"] for name in records] == ["ok", "ok", "error", "ok"]
        assert records["sound.wav"]["code"] == "media_not_taken"
        of_pictures = [line for line in together.stdout.splitlines() if b'.png", "status"' in line]
        assert size > 1 or of_pictures == alone.stdout.splitlines()


def test_an_output_goes_on_only_where_clips_are_read_alike(made: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    Image.new("RGB", (12, 9)).save(tmp_path / "a.png")
    assert vli("ask", tmp_path / "a.png", ASKED, "-o", output, "--quiet").exit_code == 0
    before = output.read_bytes()
    # A picture's record does not depend on how clips are read.
    assert vli("ask", tmp_path / "a.png", ASKED, "-o", output, "--frames", 2, "--quiet").exit_code == 0
    assert output.read_bytes() == before
    clips = tmp_path / "clips.jsonl"
    assert vli("ask", made / "clip.mp4", ASKED, "-o", clips, "--frames", 2).exit_code == 0
    assert "1 were already there" in vli("ask", made / "clip.mp4", ASKED, "-o", clips, "--frames", 2).stderr
    assert "made with other arguments" in vli("ask", made / "clip.mp4", ASKED, "-o", clips, "--frames", 3).refusal(4)


@pytest.mark.parametrize(
    "fields",
    [
        {"image": "clip.mp4"},
        {"video": "clip.mp4"},
        {"videos": ["clip.mp4"]},
        {"messages": [{"role": "user", "content": [{"type": "video", "video": "clip.mp4"}]}]},
    ],
)
def test_an_item_of_a_file_may_name_a_clip(fields: dict[str, object], made: Path, num_seen: list[int]) -> None:
    items = made / "items.jsonl"
    items.write_text(json.dumps({**fields, "question": ASKED}) + "\n")
    (record,) = vli("ask", "--data", items).records
    assert (record["status"], Path(record["image"]).name) == ("ok", "clip.mp4")
    assert num_seen == [4]


def test_a_chat_goes_on_after_what_it_cannot_take(made: Path) -> None:
    lines = f"{ASKED}\n/image {made / 'clip.mp4'}\n{ASKED}\n"
    first, again = vli("chat", made / "clip.mp4", "--json", stdin=lines.encode()).records
    assert first["answer"] == again["answer"]
    assert "takes pictures and clips" in vli(
        "chat", made / "clip.mp4", stdin=f"/image {made / 'sound.wav'}\n".encode()
    ).refusal(4)


def test_words_are_read_in_pictures_alone(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlinstruct.media.ocr.ocr_tokens", lambda image: ("stop",))
    monkeypatch.setattr("vlinstruct.media.ocr.require_ocr", lambda: None)
    assert "--ocr reads the words of pictures" in vli("ask", made / "clip.mp4", ASKED, "--ocr").refusal(4)


def test_options_of_frames_contradict_each_other_or_change_nothing(made: Path, picture: Path, no_model: None) -> None:
    assert "exclude each other" in vli("ask", made / "clip.mp4", ASKED, "--frames", 2, "--fps", 1).refusal(2)
    assert "--fps must be above 0" in vli("ask", made / "clip.mp4", ASKED, "--fps", 0).refusal(2)
    assert "--frames" in vli("ask", made / "clip.mp4", ASKED, "--frames", 1000).refusal(2)


def test_frames_without_a_clip_are_said_to_change_nothing(picture: Path) -> None:
    assert vli("ask", picture, ASKED, "--frames", 2).lines == ["notice: --frames changes nothing without a clip."]
