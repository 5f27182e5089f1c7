"""What is wrong with a data file, settings, a model or an adapter ends with its own exit code, and costs no more.

The rooms' own tests say each fault's words; here each goes through the command line.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_is_error_line, vli
from PIL import Image
from safetensors.torch import load_file, save_file

from vlinstruct.backends.instructblip.adapter import save_adapter
from vlinstruct.model import load

Pictures = Callable[..., list[Path]]
QUICK = ("--learning-rate", "0.01", "--warmup-steps", "1", "--max-steps", "2", "--save-steps", "1")
QUICK += ("--per-device-train-batch-size", "1", "--gradient-accumulation-steps", "1", "--device", "cpu")
GOOD = {"image": "pictures/000.png", "question": "what?", "answer": "red"}


def line(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


BAD_LINES = {
    "no picture": (b'{"question": "what?", "answer": "red"}', "missing_field"),
    "cut off": (b'{"image": "pictures/000.png", "ques', "bad_json"),
    "two objects": (line() + b" " + line(), "bad_json"),
    "latin-1": (line().replace(b"what", b"caf\xe9"), "encoding"),
    "field twice": (b'{"image": "a.png", ' + line()[1:], "bad_json"),
    "NaN": (line()[:-1] + b', "score": NaN}', "bad_json"),
    "5,000 digits": (line()[:-1] + b', "score": ' + b"9" * 5000 + b"}", "bad_json"),
    "nested 100,000 deep": (line()[:-1] + b', "score": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "bad_json"),
    "climbs": (line(image="../../../etc/passwd"), "image_outside"),
    "a whole path": (line(image="/etc/passwd"), "image_outside"),
}


def test_bad_lines_cost_a_record_each_and_change_no_other(pictures: Pictures, tmp_path: Path) -> None:
    pictures(1)
    path = tmp_path / "items.jsonl"
    path.write_bytes(line(id="first") + b"\n" + line(id="last", question="who?"))
    first, last = vli("ask", "--data", path).stdout.splitlines()
    bad = b"\n".join(content for content, _ in BAD_LINES.values())
    path.write_bytes(line(id="first") + b"\n" + bad + b"\n" + line(id="last", question="who?"))
    result = vli("ask", "--data", path)
    assert result.exit_code == 3
    printed = result.stdout.splitlines()
    assert (printed[0], printed[-1]) == (first, last)
    errors = [(one["status"], one["code"]) for one in map(json.loads, printed[1:-1])]
    assert errors == [("error", code) for _, code in BAD_LINES.values()]
    assert all(f"line {number}" in text.decode() for number, text in enumerate(printed[1:-1], start=2))


@pytest.mark.parametrize("content", [content for content, _ in BAD_LINES.values()], ids=BAD_LINES)
def test_a_bad_line_is_named_before_a_training_begins(content: bytes, tmp_path: Path, no_model: None) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(b"\n".join([line(), content, line(question="who?")]))
    assert "line 2)" in vli("finetune", "--data", path, "-o", tmp_path / "a", *QUICK).refusal(4)
    assert not (tmp_path / "a").exists()


def zipped(content: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("items.jsonl", content)


BAD_FILES: dict[str, tuple[Callable[[bytes, Path], object], str]] = {
    "empty": (lambda content, path: path.write_bytes(b""), "nothing to do"),
    "blank lines": (lambda content, path: path.write_bytes(b"\n \n\t\n"), "nothing to do"),
    "an empty list": (lambda content, path: path.write_bytes(b"[]"), "nothing to do"),
    "gzip": (lambda content, path: path.write_bytes(gzip.compress(content)), "compressed input not supported"),
    "zip": (zipped, "compressed input not supported"),
    "UTF-16": (lambda content, path: path.write_bytes(content.decode().encode("utf-16")), "it is UTF-16"),
    "ids twice": (lambda content, path: path.write_bytes(b"\n".join([line(id="a")] * 2)), "a"),
}


@pytest.mark.parametrize(("write", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_of_which_nothing_can_be_used_is_refused_before_any_work(
    write: Callable[[bytes, Path], object], words: str, tmp_path: Path, no_model: None
) -> None:
    write(line(), tmp_path / "items.jsonl")
    for command in (("ask",), ("finetune", "-o", tmp_path / "a", *QUICK), ("finetune", "--dry-run")):
        assert words in vli(*command, "--data", tmp_path / "items.jsonl").refusal(4)
    assert not (tmp_path / "a").exists()


def test_a_mark_before_the_first_line_and_a_list_of_records_change_no_record(
    pictures: Pictures, tmp_path: Path
) -> None:
    pictures(1)
    records = [line(id="a"), line(id="b", question="who?")]
    contents = (b"\n".join(records), b"\xef\xbb\xbf" + b"\n".join(records), b"[" + b",\n".join(records) + b"]")
    printed = []
    for content in contents:
        (tmp_path / "items.json").write_bytes(content)
        printed.append(vli("ask", "--data", tmp_path / "items.json").text)
    assert len(set(printed)) == 1


def test_an_answer_of_the_wrong_kind_is_named_with_its_line(pictures: Pictures, tmp_path: Path) -> None:
    pictures(1)
    for answer in (None, [], "", {}):
        (tmp_path / "items.jsonl").write_bytes(line() + b"\n" + line(answer=answer))
        refused = vli("finetune", "--data", tmp_path / "items.jsonl", "-o", tmp_path / "a", *QUICK).refusal(4)
        assert "line 2): field 'answer'" in refused


def test_names_that_differ_in_their_case_alone_are_two_items(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, colour in (("A.png", "red"), ("a.png", "blue")):
        Image.new("RGB", (9, 9), colour).save(tmp_path / "folder" / name)
    if len(list((tmp_path / "folder").iterdir())) < 2:
        pytest.skip("this file system takes both names for one")
    printed = vli("score", tmp_path / "folder", "what?").records
    assert [Path(record["id"]).name for record in printed] == ["A.png", "a.png"]
    output = tmp_path / "out.jsonl"
    for _ in range(2):
        assert vli("score", tmp_path / "folder", "what?", "-o", output).exit_code == 0
        assert [json.loads(one)["id"] for one in output.read_text().splitlines()] == [one["id"] for one in printed]


# Settings


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("learning_rate: fast", "learning_rate must be"),
        ("learning_rte: 1e-4", "did you mean learning_rate?"),
        ("seed: 1\nmax_steps: 2\nseed: 3", "duplicate key seed (lines 1 and 3)"),
        ("learning_rate: !!python/object/apply:os.system ['touch canary']", "YAML tags (!) are not allowed"),
        ("a: &a [x, x]\nb: [*a, *a]", "anchors and aliases"),
        ("[" * 500, "nested more than"),
        ("seed: 1\n" * 1_000_000, "bytes, at most"),
        ("learning_rate: .nan", "learning_rate must be"),
        ("learning_rate: -1.0", "learning_rate"),
        ("per_device_train_batch_size: 0", "per_device_train_batch_size"),
        ("num_train_epochs: 1e9", "num_train_epochs"),
        ("ema: yes", "ema must be true or false"),
        ("warmup_steps: 010", "warmup_steps must be"),
        ("warmup_steps: 12:30", "warmup_steps must be"),
        ("", "it must be a mapping"),
        ("- 1", "it must be a mapping"),
        ("seed: 1\0", "not valid YAML (line 1)"),
        ("seed:\n\t1", "not valid YAML (line 2)"),
    ],
)
def test_settings_that_cannot_be_used_are_bad_input_named_before_any_work(
    content: str, words: str, pictures: Pictures, tmp_path: Path, no_model: None
) -> None:
    pictures(1)
    (tmp_path / "items.jsonl").write_bytes(line())
    (tmp_path / "mine.yaml").write_text(content)
    asked = ("finetune", "--config", tmp_path / "mine.yaml", "--data", tmp_path / "items.jsonl", "-o", tmp_path / "a")
    assert words in vli(*asked).refusal(4)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["../../x", "https://huggingface.co/a/b", "a/b/c", "x:y", "", "~"])
def test_a_model_or_an_adapter_by_no_name_is_refused_and_nothing_is_fetched(name: str, picture: Path) -> None:
    assert vli("ask", picture, "what?", "--backbone", name).refusal(5)
    assert vli("ask", picture, "what?", "--adapter", name).refusal(5)


def test_garbage_in_the_environment_changes_no_answer_or_is_named(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = vli("ask", picture, "what?").text
    for name, value in (("HF_HUB_OFFLINE", "maybe"), ("CUDA_VISIBLE_DEVICES", "99"), ("OMP_NUM_THREADS", "lots")):
        with monkeypatch.context() as context:
            context.setenv(name, value)
            assert vli("ask", picture, "what?").text == plain
    monkeypatch.setenv("VLINSTRUCT_DEVICE", "toaster")
    assert "toaster" in vli("ask", picture, "what?").refusal(4)


# Models, adapters, checkpoints


def with_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    values = json.loads(content[8 : 8 + size])
    change(values)
    header = json.dumps(values).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + size :])


def first(values: dict[str, Any]) -> dict[str, Any]:
    return next(value for name, value in values.items() if name != "__metadata__")


DAMAGE: dict[str, Callable[[Path], object]] = {
    **{
        f"cut to {keep}": lambda path, keep=keep: path.write_bytes(path.read_bytes()[:keep])
        for keep in (0, 4, 8, 50, -1)
    },
    "trailing bytes": lambda path: path.write_bytes(path.read_bytes() + bytes(8)),
    "an endless header": lambda path: path.write_bytes(struct.pack("<Q", 10**12) + path.read_bytes()[8:]),
    "overlapping": lambda path: with_header(path, lambda values: first(values).update(data_offsets=[0, 8])),
    "an overflow": lambda path: with_header(path, lambda values: first(values).update(shape=[2**62, 2**62])),
    "no shape": lambda path: with_header(path, lambda values: first(values).pop("shape")),
    "a shape of words": lambda path: with_header(path, lambda values: first(values).update(shape=["a", -1])),
    "an unknown type": lambda path: with_header(path, lambda values: first(values).update(dtype="F7")),
    "a web page": lambda path: path.write_bytes(b"<!DOCTYPE html><html></html>"),
    "a pointer": lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
}


@pytest.fixture
def backbone(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folders["t5"], tmp_path / "backbone"))


@pytest.fixture
def adapter(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    save_adapter(tmp_path / "adapter", load(str(tiny_folders["t5"]), device="cpu").backend.network, training={})
    return tmp_path / "adapter"


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_tensors_are_refused_by_every_command_that_reads_them(
    damage: Callable[[Path], object], backbone: Path, adapter: Path, picture: Path, tmp_path: Path
) -> None:
    damage(backbone / "model.safetensors")
    damage(adapter / "alignment.safetensors")
    place = "model.safetensors"
    assert place in vli("ask", picture, "what?", "--backbone", backbone).refusal(5)
    assert place in vli("convert", backbone, "-o", tmp_path / "out").refusal(5)
    assert "damaged adapter" in vli("ask", picture, "what?", "--adapter", adapter).refusal(5)
    assert not (tmp_path / "out").exists()


def test_tensors_that_do_not_fit_are_named_with_both_shapes_and_counted(backbone: Path, picture: Path) -> None:
    state = load_file(backbone / "model.safetensors")
    for number in range(7):
        state[f"surplus.{number}"] = state["query_tokens"].clone()
    del state["query_tokens"]
    state["language_projection.bias"] = state["language_projection.bias"][:7].clone()
    save_file(state, backbone / "model.safetensors")
    refused = vli("ask", picture, "what?", "--backbone", backbone).refusal(5)
    for words in ("1 missing (query_tokens)", "7 unexpected (surplus.0", "(7,) instead of (28,)"):
        assert words in refused
    assert "surplus.6" not in refused


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "alignment_config.json is missing"),
        ("{", "alignment_config.json is damaged"),
        ('{"format": 2}', "has format 2, this version reads 1"),
    ],
)
def test_an_adapter_without_a_configuration_that_can_be_read_is_refused(
    content: str | None, words: str, adapter: Path, picture: Path
) -> None:
    (adapter / "alignment_config.json").unlink()
    if content is not None:
        (adapter / "alignment_config.json").write_text(content)
    assert words in vli("ask", picture, "what?", "--adapter", adapter).refusal(5)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_every_file_of_a_training_has_the_mode_that_the_umask_gives(
    umask: int, mode: int, pictures: Pictures, tmp_path: Path
) -> None:
    pictures(1)
    (tmp_path / "items.jsonl").write_bytes(line())
    before = os.umask(umask)
    try:
        vli("finetune", "--data", tmp_path / "items.jsonl", "-o", tmp_path / "a", "--lora", *QUICK)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert {"alignment.safetensors", "adapter_model.safetensors", "state.json", "log.jsonl"} <= modes.keys()
    assert {name: oct(found) for name, found in modes.items() if found != mode} == {}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root can write")
@pytest.mark.parametrize(("output", "exit_code"), [("/proc/none/a", 6), ("/dev/null/a", 4)])
def test_a_folder_that_cannot_be_written_is_said_before_anything_is_computed(
    output: str, exit_code: int, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(1)
    (tmp_path / "items.jsonl").write_bytes(line())
    monkeypatch.setattr("vlinstruct.training.train.compute_features", lambda *_, **__: pytest.fail("it was computed"))
    assert output.rpartition("/")[0] in vli(
        "finetune", "--data", tmp_path / "items.jsonl", "-o", output, *QUICK
    ).refusal(exit_code)


def test_a_checkpoint_that_is_passed_over_is_said_with_the_reason_and_none_is_touched_when_all_are_damaged(
    pictures: Pictures, tmp_path: Path
) -> None:
    pictures(1)
    (tmp_path / "items.jsonl").write_bytes(line())
    asked = ("finetune", "--data", tmp_path / "items.jsonl", "-o", tmp_path / "a", *QUICK)
    assert vli(*asked).exit_code == 0
    older, newest = sorted((tmp_path / "a" / "checkpoints").iterdir())
    (newest / "optimizer.safetensors").write_bytes(b"half")
    resumed = vli(*asked, "--resume")
    assert resumed.exit_code == 0
    (notice,) = [one for one in resumed.lines if "damaged" in one]
    assert newest.name in notice
    assert "optimizer.safetensors has another checksum" in notice
    for checkpoint in (older, newest):
        (checkpoint / "state.json").write_text("{")
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    refused = vli(*asked, "--resume")
    assert refused.exit_code == 5
    assert_is_error_line(refused.lines[-1])
    assert before == {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
