"""Batches of the command line: JSON lines from every kind of input, and an output that a second run completes.

The law of resuming: however often a run is stopped, its output becomes that of a run that never was.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, assert_is_error_line, vli

from vlinstruct.backends.instructblip.adapter import save_adapter
from vlinstruct.model import load

Pictures = Callable[..., list[Path]]
ASKED = "what is it?"
BAD = b"<html>404</html>"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_complete(output: Path, whole: Path) -> bool:
    """Whether an output holds what an uninterrupted run wrote: nothing is missing, twice or changed."""
    return sorted(output.read_bytes().splitlines()) == sorted(whole.read_bytes().splitlines())


def write_items(folder: Path, count: int, **fields: object) -> Path:
    """A file of items about pictures/000.png, pictures/001.png ..."""
    items = [
        {"image": f"pictures/{index:03}.png", "question": f"is it {index}?", "id": index} for index in range(count)
    ]
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps({**item, **fields}) + "\n" for item in items))
    return path


# What is a batch


def test_a_folder_a_glob_and_several_files_give_the_same_json_lines(pictures: Pictures) -> None:
    paths = pictures(3)
    folder = vli("ask", paths[0].parent, ASKED)
    assert [record["id"] for record in folder.records] == [str(path) for path in paths]
    assert all(record["status"] == "ok" and record["schema"] == "vlinstruct.ask/1" for record in folder.records)
    assert folder.exit_code == 0
    assert vli("ask", paths[0].parent / "*.png", ASKED).stdout == folder.stdout
    assert vli("ask", *paths, ASKED).stdout == folder.stdout
    assert vli("ask", paths[0].parent, ASKED, "--json", "--batch-size", 2).stdout == folder.stdout


def test_a_folder_of_one_picture_is_a_batch_and_its_record_that_of_the_picture(picture: Path) -> None:
    folder = vli("score", picture.parent, ASKED)
    assert folder.stdout == vli("score", picture, ASKED, "--json").stdout
    assert len(folder.records) == 1


def test_records_of_a_batch_are_those_of_one_by_one(pictures: Pictures) -> None:
    paths = pictures(3)
    for command in (["ask"], ["optimize"]):
        arguments = [[ASKED, path] if command == ["optimize"] else [path, ASKED] for path in paths]
        alone = b"".join(vli(*command, *each, "--json").stdout for each in arguments)
        typed = [ASKED, *paths] if command == ["optimize"] else [*paths, ASKED]
        assert vli(*command, *typed).stdout == alone


def test_recursive_enters_subfolders(pictures: Pictures, tmp_path: Path) -> None:
    pictures(1, "top")
    (tmp_path / "top" / "below").mkdir()
    shutil.copy(tmp_path / "top" / "000.png", tmp_path / "top" / "below" / "a.png")
    shallow = vli("ask", tmp_path / "top", ASKED)
    assert len(shallow.records) == 1
    assert "--recursive" in shallow.stderr
    deep = vli("ask", tmp_path / "top", ASKED, "--recursive")
    assert [Path(record["image"]).name for record in deep.records] == ["000.png", "a.png"]


def test_stdin_among_files_is_one_item(pictures: Pictures) -> None:
    first, second = pictures(2)
    result = vli("ask", first, "-", ASKED, stdin=second.read_bytes())
    assert [record["id"] for record in result.records] == [str(first), "-"]
    assert result.records[1]["answer"] == vli("ask", second, ASKED, "--json").records[0]["answer"]


def test_a_file_of_items_gives_every_question_its_own_record(pictures: Pictures, tmp_path: Path) -> None:
    paths = pictures(3)
    items = write_items(tmp_path, 3)
    result = vli("ask", "--data", items)
    assert [(record["id"], record["question"]) for record in result.records] == [
        (index, f"is it {index}?") for index in range(3)
    ]
    typed = vli("ask", paths[1], "is it 1?", "--json").records[0]
    assert {**result.records[1], "id": typed["id"]} == typed


def test_a_bad_line_of_a_file_of_items_is_one_record(pictures: Pictures, tmp_path: Path) -> None:
    pictures(3)
    items = write_items(tmp_path, 3)
    good = vli("ask", "--data", items).stdout.splitlines()
    first, second, third = items.read_text().splitlines()
    bad = {
        "line-2": ('{"image": "pictures/000.png"}', "missing_field"),
        "outside": ('{"image": "/etc/passwd", "question": "?", "id": "outside"}', "image_outside"),
        "line-4": ('{"image"', "bad_json"),
        "url": ('{"image": "http://127.0.0.1:9/a.png", "question": "?", "id": "url"}', "url_refused"),
        "blank": ('{"image": "pictures/000.png", "question": " ", "id": "blank"}', "text_empty"),
    }
    items.write_text("\n".join([first, *(line for line, _ in bad.values()), second, third]))
    for batch_size in (1, 2):
        result = vli("ask", "--data", items, "--batch-size", batch_size)
        assert result.exit_code == 3
        errors = {record["id"]: record["code"] for record in result.records[1:-2]}
        assert errors == {name: code for name, (_, code) in bad.items()}
        assert [result.stdout.splitlines()[place] for place in (0, -2, -1)] == good


def test_a_file_of_items_that_says_an_id_twice_is_refused(pictures: Pictures, tmp_path: Path, no_model: None) -> None:
    pictures(2)
    assert "ids are used twice" in vli("ask", "--data", write_items(tmp_path, 2, id="same")).refusal(4)


# Resuming


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_a_second_run_has_nothing_to_do_and_loads_no_model(
    pictures: Pictures, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(3)[0].parent
    first = vli("ask", folder, ASKED, "--output", output)
    assert first.text == ""
    assert first.lines == [f"done: 3 records written to {output}"]
    before, changed_at = output.read_bytes(), output.stat().st_mtime_ns
    monkeypatch.setattr("vlinstruct.model.load", lambda *_, **__: pytest.fail("the model was loaded"))
    second = vli("ask", folder, ASKED, "--output", output)
    assert second.text == ""
    assert second.lines[-1] == f"done: 0 records written to {output}, 3 were already there"
    assert vli("ask", folder, ASKED, "--output", output, "--quiet").lines == []
    assert (output.read_bytes(), output.stat().st_mtime_ns) == (before, changed_at)


def test_a_file_holds_the_records_that_stdout_would_with_a_key_each(pictures: Pictures, output: Path) -> None:
    folder = pictures(3)[0].parent
    vli("score", folder, ASKED, "--output", output)
    records = read(output)
    assert len({record.pop("key") for record in records}) == 3
    assert records == vli("score", folder, ASKED).records


def test_one_picture_with_an_output_is_a_batch_of_one(picture: Path, output: Path) -> None:
    assert vli("ask", picture, ASKED, "--output", output).text == ""
    assert [record["id"] for record in read(output)] == [str(picture)]


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_killed_run_is_completed_to_the_same_bytes(
    batch_size: int, kind: str, pictures: Pictures, tmp_path: Path, output: Path, tiny_folders: dict[str, Path]
) -> None:
    command = ["score", pictures(7)[0].parent, ASKED, "name the animal", "--batch-size", batch_size]
    command += ["--backbone", tiny_folders[kind], "--quiet", "--output"]
    assert vli(*command, output).text == ""
    whole = output.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]
    for place in (1, 30, ends[0] - 1, ends[2] + 200, ends[3], ends[5] + 1, ends[6] - 1):
        output.write_bytes(whole[:place])
        result = vli(*command, output)
        assert (result.exit_code, result.stderr) == (0, ""), place
        assert output.read_bytes() == whole, place


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_killed_run_is_completed_to_the_same_table(suffix: str, pictures: Pictures, tmp_path: Path) -> None:
    command = ["ask", pictures(3)[0].parent, ASKED, "--quiet", "--output"]
    table, lines = tmp_path / f"out{suffix}", tmp_path / f"out{suffix}.jsonl"
    assert vli(*command, table).text == ""
    whole = table.read_bytes()
    lines.write_bytes(lines.read_bytes()[:-40])
    table.unlink()
    assert vli(*command, table).exit_code == 0
    assert table.read_bytes() == whole


@pytest.mark.slow
def test_a_run_killed_again_and_again_is_completed(pictures: Pictures, output: Path, tmp_path: Path) -> None:
    paths = pictures(6)
    paths[3].write_bytes(BAD)
    command = ["optimize", ASKED, *paths, "--batch-size", 2, "--output"]
    assert vli(*command, tmp_path / "whole.jsonl").exit_code == 3
    for lost_bytes in (100, 1, 700, 0, 300):
        if output.exists():
            output.write_bytes(output.read_bytes()[: max(0, output.stat().st_size - lost_bytes)])
        result = vli(*command, output, "--max-failures", 1)
        assert result.exit_code in (3, 4)
    vli(*command, output)
    assert is_complete(output, tmp_path / "whole.jsonl")


def test_failed_items_are_tried_again_and_good_ones_are_not(
    pictures: Pictures, output: Path, tmp_path: Path, num_seen: list[int]
) -> None:
    paths = pictures(4)
    sound = paths[1].read_bytes()
    paths[1].write_bytes(BAD)
    first = vli("ask", *paths, ASKED, "--output", output)
    assert first.exit_code == 3
    assert [record["status"] for record in read(output)] == ["ok", "error", "ok", "ok"]
    repeated = vli("ask", *paths, ASKED, "--output", output)
    assert repeated.exit_code == 3
    assert num_seen == [1, 1, 1]
    paths[1].write_bytes(sound)
    last = vli("ask", *paths, ASKED, "--output", output)
    assert last.exit_code == 0
    assert f"done: 1 record written to {output}, 3 were already there" in last.lines
    assert num_seen == [1, 1, 1, 1]
    vli("ask", *paths, ASKED, "--output", tmp_path / "whole.jsonl")
    assert is_complete(output, tmp_path / "whole.jsonl")


def add_pictures(pictures: Pictures, folder: Path, count: int) -> None:
    """Draws more pictures into the folder; those that were there keep their time, as they do for a user."""
    before = {path: path.stat().st_mtime for path in folder.iterdir()}
    pictures(count)
    for path, time_s in before.items():
        os.utime(path, (time_s, time_s))


def test_new_pictures_of_a_folder_are_added(pictures: Pictures, output: Path, num_seen: list[int]) -> None:
    folder = pictures(2)[0].parent
    vli("ask", folder, ASKED, "--output", output)
    before = output.read_bytes()
    add_pictures(pictures, folder, 4)
    assert vli("ask", folder, ASKED, "--output", output).exit_code == 0
    assert output.read_bytes().startswith(before)
    assert num_seen == [1, 1, 1, 1]


def test_a_file_of_items_is_resumed_too(pictures: Pictures, tmp_path: Path, output: Path) -> None:
    pictures(3)
    items = write_items(tmp_path, 3)
    vli("ask", "--data", items, "--output", output)
    whole = output.read_bytes()
    output.write_bytes(whole[: len(whole) // 2])
    assert vli("ask", "--data", items, "--output", output).exit_code == 0
    assert output.read_bytes() == whole


def test_a_terminal_counts_what_was_there_already(pictures: Pictures, output: Path) -> None:
    folder = pictures(2)[0].parent
    vli("ask", folder, ASKED, "--output", output)
    add_pictures(pictures, folder, 3)
    assert "3/3" in vli("ask", folder, ASKED, "--output", output, is_terminal=True).stderr


# Another run


@pytest.fixture
def refuses_to_load(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, loading a model is a failure of the test."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the model was loaded")

    return lambda: monkeypatch.setattr("vlinstruct.model.load", refuse)


def assert_refused(command: list[object], output: Path) -> None:
    """The command must say that the output is another run's, and leave it as it is."""
    before = output.read_bytes()
    line = vli(*command, "--output", output).refusal(4)
    assert "made with other arguments, weights or input" in line
    assert "--overwrite" in line
    assert output.read_bytes() == before


CHANGES = ["--max-new-tokens 5", "--num-beams 2", "--do-sample --seed 1", "--choices yes,no", "--optimize"]


@pytest.mark.parametrize("changed", [*CHANGES, "--dtype bfloat16", "--quantize 8bit", "--template Say:{question}"])
def test_records_made_with_other_arguments_are_never_mixed(
    changed: str, pictures: Pictures, output: Path, refuses_to_load: Callable[[], None]
) -> None:
    command = ["ask", *pictures(2), ASKED]
    vli(*command, "--output", output)
    refuses_to_load()
    assert_refused([*command, *changed.split()], output)
    assert_refused(["ask", *command[1:-1], "what else?"], output)


@pytest.mark.parametrize("same", ["--batch-size 2", "--device cpu", "--quiet", "--max-pixels 1000", "--offline"])
def test_arguments_that_change_no_record_resume(
    same: str, pictures: Pictures, output: Path, refuses_to_load: Callable[[], None]
) -> None:
    command = ["ask", *pictures(2), ASKED, "--output", output]
    vli(*command)
    refuses_to_load()
    assert vli(*command, *same.split()).exit_code == 0
    assert len(read(output)) == 2


def test_records_of_other_weights_are_never_mixed(
    picture: Path, output: Path, tmp_path: Path, tiny_folders: dict[str, Path], refuses_to_load: Callable[[], None]
) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_folders["t5"], folder)
    command = ["ask", picture, ASKED, "--backbone", folder]
    vli(*command, "--output", output)
    refuses_to_load()
    assert vli(*command, "--output", output).exit_code == 0
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    assert_refused(command, output)


def test_records_of_another_adapter_are_never_mixed(
    picture: Path, output: Path, tmp_path: Path, tiny_folders: dict[str, Path], refuses_to_load: Callable[[], None]
) -> None:
    model = load(str(tiny_folders["t5"]), device="cpu").backend.network
    save_adapter(tmp_path / "plain", model)
    model.use_ema = not model.use_ema  # the same numbers, another way through them
    save_adapter(tmp_path / "with_ema", model)
    command = ["ask", picture, ASKED]
    vli(*command, "--adapter", tmp_path / "plain", "--output", output)
    refuses_to_load()
    assert vli(*command, "--adapter", tmp_path / "plain", "--output", output).exit_code == 0
    assert_refused(command, output)
    assert_refused([*command, "--adapter", tmp_path / "with_ema"], output)


def test_records_of_other_templates_are_never_mixed(
    picture: Path, output: Path, tmp_path: Path, refuses_to_load: Callable[[], None]
) -> None:
    templates = tmp_path / "templates.yaml"
    text = vli("optimize", "--show-templates").text
    templates.write_text(text)
    vli("optimize", ASKED, picture, "--output", output)
    refuses_to_load()
    command = ["optimize", ASKED, picture, "--templates", templates]
    assert vli(*command, "--output", output).exit_code == 0
    templates.write_text(text.replace("should be:", "must be:"))
    assert_refused(command, output)


def test_another_picture_on_stdin_is_another_item(
    pictures: Pictures, output: Path, refuses_to_load: Callable[[], None]
) -> None:
    first, second = (path.read_bytes() for path in pictures(2))
    vli("ask", "-", ASKED, "--output", output, stdin=first)
    refuses_to_load()
    assert vli("ask", "-", ASKED, "--output", output, stdin=first).exit_code == 0
    assert "made with other" in vli("ask", "-", ASKED, "--output", output, stdin=second).refusal(4)


def test_an_edited_question_of_a_file_of_items_is_refused(
    pictures: Pictures, tmp_path: Path, output: Path, refuses_to_load: Callable[[], None]
) -> None:
    pictures(2)
    items = write_items(tmp_path, 2)
    vli("ask", "--data", items, "--output", output)
    refuses_to_load()
    items.write_text(items.read_text().replace("is it 1?", "is it one?"))
    assert_refused(["ask", "--data", items], output)


def test_the_records_of_another_command_are_refused(
    picture: Path, output: Path, refuses_to_load: Callable[[], None]
) -> None:
    vli("ask", picture, ASKED, "--output", output)
    refuses_to_load()
    before = output.read_bytes()
    assert "no vlinstruct.score/1 record" in vli("score", picture, ASKED, "--output", output).refusal(4)
    assert output.read_bytes() == before


@pytest.mark.parametrize("content", [b"milk\nbread\n", b'{"a": 1}\n', b'{"schema": "', b"\0\xff"])
def test_overwrite_replaces_whatever_was_there(content: bytes, picture: Path, output: Path) -> None:
    vli("ask", picture, ASKED, "--output", output)
    fresh = output.read_bytes()
    output.write_bytes(content)
    assert vli("ask", picture, ASKED, "--output", output, "--overwrite").exit_code == 0
    assert output.read_bytes() == fresh


def test_overwrite_does_everything_again(pictures: Pictures, output: Path, num_seen: list[int]) -> None:
    command = ["ask", *pictures(2), ASKED, "--output", output]
    vli(*command)
    assert vli(*command, "--overwrite").lines == [f"done: 2 records written to {output}"]
    assert num_seen == [1, 1, 1, 1]


def test_a_second_writer_is_refused_and_names_the_output(picture: Path, output: Path, no_model: None) -> None:
    with output.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        line = vli("ask", picture, ASKED, "--output", output).refusal(8)
        assert "another process" in line or "process " in line
        assert output.name in line
        assert output.name in vli("ask", picture, ASKED, "--output", output, "--overwrite").refusal(8)
    assert output.read_bytes() == b""


def test_a_device_may_be_the_output(pictures: Pictures) -> None:
    assert vli("ask", *pictures(2), ASKED, "--output", "/dev/null").exit_code == 0


# Failures


def failing(paths: list[Path], *places: int) -> list[Path]:
    for place in places:
        paths[place].write_bytes(BAD)
    return paths


def last_line(result: Result) -> str:
    assert_is_error_line(result.lines[-1])
    return result.lines[-1]


def test_max_failures_stops_a_batch_and_says_what_is_left(pictures: Pictures, num_seen: list[int]) -> None:
    paths = failing(pictures(6), 1, 3)
    result = vli("ask", *paths, ASKED, "--max-failures", 2)
    assert result.exit_code == 3
    assert [record["status"] for record in result.records] == ["ok", "error", "ok", "error"]
    assert "2 of 6 items failed, 2 were not tried (--max-failures)" in last_line(result)
    assert num_seen == [1, 1]


def test_max_failures_that_are_not_reached_change_nothing(pictures: Pictures) -> None:
    paths = failing(pictures(4), 1, 3)
    plain = vli("ask", *paths, ASKED)
    assert vli("ask", *paths, ASKED, "--max-failures", 3) == plain
    assert "2 of 4 items failed. Their records say why" in last_line(plain)


def test_a_batch_that_max_failures_stopped_goes_on_where_it_was(
    pictures: Pictures, output: Path, tmp_path: Path
) -> None:
    paths = failing(pictures(5), 1)
    sound = paths[0].read_bytes()
    assert vli("ask", *paths, ASKED, "--output", output, "--max-failures", 1).exit_code == 3
    assert len(read(output)) == 2
    paths[1].write_bytes(sound)
    assert vli("ask", *paths, ASKED, "--output", output, "--max-failures", 1).exit_code == 0
    vli("ask", *paths, ASKED, "--output", tmp_path / "whole.jsonl")
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_run_in_which_all_that_was_left_fails_is_no_total_failure(pictures: Pictures, output: Path) -> None:
    paths = failing(pictures(3), 2)
    assert vli("ask", *paths, ASKED, "--output", output).exit_code == 3
    repeated = vli("ask", *paths, ASKED, "--output", output)
    assert repeated.exit_code == 3
    assert "1 of 3 items failed" in last_line(repeated)
    assert vli("ask", paths[2], paths[2].with_name("missing.png"), ASKED).exit_code == 4


def test_a_shipped_adapter_is_named_in_a_batch_too(pictures: Pictures, output: Path) -> None:
    command = ("ask", *pictures(2), "What colour is the circle?", "--backbone", "mini", "--adapter", "mini-ema")
    assert vli(*command, "-o", output).exit_code == 0
    assert len(output.read_text().splitlines()) == 2


def test_shards_divide_a_folder_and_nothing_is_asked_twice(pictures: Pictures, tmp_path: Path) -> None:
    paths = pictures(5)
    folder = str(paths[0].parent)
    shards = [vli("ask", folder, ASKED, "--shard", f"{place}/3").records for place in (1, 2, 3)]
    assert sorted(record["id"] for shard in shards for record in shard) == sorted(map(str, paths))
    assert [len(shard) for shard in shards] == [2, 2, 1]
    nothing = tmp_path / "none.jsonl"
    assert vli("ask", folder, ASKED, "--shard", "9/9", "-o", str(nothing)).exit_code == 0
    assert nothing.read_text() == ""


@pytest.mark.parametrize("typed", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_a_shard_that_is_none_is_refused(typed: str, pictures: Pictures) -> None:
    (path,) = pictures(1)
    assert "--shard" in vli("ask", str(path), ASKED, "--shard", typed).refusal(2)
