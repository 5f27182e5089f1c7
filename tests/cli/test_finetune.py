"""`vlinstruct finetune` from the shell: plan, train, stop, kill, go on."""

from __future__ import annotations

import errno
import json
import os
import pkgutil
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from command_line import assert_is_error_line, exit_code_of_main, vli
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from vlinstruct.backends.registry import mini_folder
from vlinstruct.cli.finetune_output import result
from vlinstruct.training.features import compute_features
from vlinstruct.training.job import Finetuned

QUICK = ("--learning-rate", "0.01", "--warmup-steps", "2", "--num-train-epochs", "8", "--save-steps", "2")
QUICK += ("--per-device-train-batch-size", "2", "--gradient-accumulation-steps", "1", "--seed", "3")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six samples."""
    records = []
    for number in range(6):
        Image.new("RGB", (30, 20), (40 * number, 90, 20)).save(tmp_path / f"{number}.png")
        records.append({"image": f"{number}.png", "question": f"what is {number}?", "answer": "b" * (1 + number)})
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_an_adapter_is_trained_and_can_be_asked(data: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    assert vli("finetune", "--data", data, "-o", adapter, *QUICK).text == f"{adapter}\n"
    log = [json.loads(line) for line in (adapter / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(1, 25))
    assert log[-1]["loss"] < log[0]["loss"]
    config = json.loads((adapter / "alignment_config.json").read_text())
    assert config["use_ema"] is True
    assert config["training"]["learning_rate"] == 0.01
    assert "language_projection.weight" in (adapter / "README.md").read_text()
    assert vli("ask", tmp_path / "0.png", "what is 0?", "--adapter", adapter).exit_code == 0


def test_a_dry_run_prints_the_plan_and_writes_nothing(data: Path, tmp_path: Path) -> None:
    (record,) = vli("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "--dry-run", "--json").records
    assert (record["num_samples"], record["num_steps"], record["batch_size"]) == (6, 24, 2)
    text = vli("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "--dry-run").text
    assert "language_projection.weight" in text
    assert "MB of frozen weights\n" in text
    quantized = vli("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "--dry-run", "--quantize", "8bit").text
    assert "MB of frozen weights, the language model's in 8 bits\n" in quantized
    assert not (tmp_path / "a").exists()


def test_what_to_type_next_loads_the_model_as_it_was_trained() -> None:
    outcome = Finetuned(folder=Path("a"), backbone="mini-llama", step=1, num_steps=1, quantize="4bit")
    assert result(outcome).endswith(
        "try: vlinstruct ask IMAGE QUESTION --backbone mini-llama --quantize 4bit --adapter a"
    )


def test_a_dry_run_needs_no_weights_that_are_not_here(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlinstruct.training.finetune.is_cached", lambda backbone: backbone.is_built_in)
    planned = vli("finetune", "--data", data, "--backbone", "vicuna-7b", "--dry-run", "--offline", "--device", "cpu")
    assert "language_projection.weight: 3,145,728 numbers" in planned.text  # 768 of the Q-Former's times 4,096
    assert "1 process\n" in planned.text
    assert "notice: vicuna-7b is not here, a download of 32 GB: it is planned from its shapes" in planned.lines


def test_a_dry_run_on_minis_examples_writes_nothing_either(tmp_path: Path) -> None:
    text = vli("finetune", "--backbone", "mini", "-o", tmp_path / "a", "--dry-run", "--device", "cpu").text
    assert "updates     50 of 16 samples" in text
    assert not (tmp_path / "a").exists()


@pytest.fixture
def few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example set in less time."""
    monkeypatch.setattr("vlinstruct.training.sets._EXAMPLE_PICTURES", 2)
    monkeypatch.setattr("vlinstruct.training.sets._EXAMPLE_EVAL_PICTURES", 1)


@pytest.mark.usefixtures("few_examples")
def test_the_three_lines_that_the_project_is_known_by_run_as_typed(
    tmp_path: Path, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[str] = []

    def download(name: str, **_: object) -> Path:  # the hub's files, tiny ones in their place
        asked_for.append(name)
        return tiny_folders["t5"]

    monkeypatch.setattr("vlinstruct.backends.registry.download", download)
    monkeypatch.setenv("VLINSTRUCT_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (30, 20), "red").save("img.jpg")
    done = vli("finetune", "--backbone", "flant5-xl")
    assert done.text == "adapter\n"
    assert set(asked_for) == {"Salesforce/instructblip-flan-t5-xl"}
    told = [line for line in done.lines if line.startswith("notice: ")]
    assert "no --data: 8 questions about drawn pictures are learned" in told[0]
    assert "LLaVA-Instruct-150K, 158,000 conversations, 229 MB, CC BY-NC 4.0" in told[1]
    assert "--data llava_instruct_150k.json --image-root train2017" in told[1]
    assert len(told[1]) <= 300
    assert "the warm-up is 1,000 of 3 updates" in told[2]
    last = done.lines[-1]
    assert last.startswith("done: validation ")
    assert last.endswith("; try: vlinstruct ask IMAGE QUESTION --backbone flant5-xl --adapter adapter")
    words = last.partition("vlinstruct ")[2].replace("IMAGE", "img.jpg").split()
    assert vli(*words).exit_code == 0, "what is said next runs as it stands"
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", str(tiny_folders["t5"]))
    assert vli("optimize", "describe this", "img.jpg").exit_code == 0
    assert vli("ask", "img.jpg", "what is written?").exit_code == 0


@pytest.mark.slow
def test_mini_draws_its_own_examples(tmp_path: Path) -> None:
    adapter = tmp_path / "a"
    vli("finetune", "--backbone", "mini", "-o", adapter, "--max-steps", "2", "--device", "cpu")
    lines = (adapter / "example-data" / "train.jsonl").read_text().splitlines()
    assert len(lines) > 400
    assert set(json.loads(lines[0])) == {"id", "image", "instruction", "answer"}
    assert (adapter / "alignment.safetensors").exists()


def test_what_is_wrong_with_the_data_is_listed(data: Path) -> None:
    good = f"nothing is wrong with {data}: 6 records (questions and answers), 6 pictures, their headers read"
    assert vli("finetune", "--data", data, "--check-data").text.startswith(good)
    with data.open("a") as file:
        file.write('{"image": "0.png"}\n{"image": "no.png", "question": "q", "answer": "a"}\n')
    result = vli("finetune", "--data", data, "--check-data")
    assert result.exit_code == 4
    assert [b"line 7" in line or b"line 8" in line for line in result.stdout.splitlines()] == [True, True]
    assert_is_error_line(result.lines[-1])


def test_many_equal_problems_are_one_line_and_json_lists_each(data: Path, tmp_path: Path) -> None:
    asked = ("finetune", "--data", data, "--image-root", tmp_path / "nowhere", "--check-data")
    with data.open("a") as file:
        file.write('{"image": "0.png", "question": "q", "answer": true}\n')
    result = vli(*asked)
    missing, other = result.stdout.decode().splitlines()
    assert missing.startswith("all 7 records: no such file (first: line 1, ")
    assert missing.endswith("0.png). Name their folder with --image-root")
    assert "line 7): field 'answer' is no text but true" in other
    assert result.lines == [f"error: 8 problems in {data}. They are listed on stdout."]
    whole, *problems = vli(*asked, "--json").records
    assert (whole["status"], whole["records"], len(problems)) == ("error", 7, 8)
    assert {problem["code"] for problem in problems} == {"image_missing", "bad_field"}


def test_a_check_reads_pictures_whole_only_when_asked(data: Path) -> None:
    (data.parent / "3.png").write_bytes((data.parent / "3.png").read_bytes()[:50])
    asked = ("finetune", "--data", data, "--check-data")
    assert "(--decode reads pictures whole)" in vli(*asked).text
    result = vli(*asked, "--decode")
    assert result.exit_code == 4
    assert "3.png): truncated image" in result.stdout.decode()
    assert "--check-data" in vli("finetune", "--data", data, "--decode").refusal(2)


@pytest.mark.parametrize("command", [("--check-data",), ("--dry-run",), ("--max-steps", "1")])
def test_what_is_validated_on_is_looked_at_first(command: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    validated = tmp_path / "eval" / "e.jsonl"
    validated.parent.mkdir()
    validated.write_text('{"image": "e.png", "question": "q", "answer": "a"}\n' * 9)
    asked = ("finetune", "--data", data, "-o", tmp_path / "a", "--eval-data", validated, *QUICK, *command)
    result = vli(*asked)
    assert result.exit_code == 4
    assert "e.png" in result.stdout.decode() + result.stderr
    assert not (tmp_path / "a").exists()
    Image.new("RGB", (9, 9)).save(tmp_path / "e.png")
    assert vli(*asked, "--eval-image-root", tmp_path).exit_code == 0
    Image.new("RGB", (9, 9)).save(validated.parent / "e.png")
    (tmp_path / "e.png").unlink()
    assert vli(*asked, "--image-root", data.parent, "--eval-image-root", validated.parent, "--overwrite").exit_code == 0
    if command == ("--check-data",):
        Image.new("RGB", (9, 9)).save(tmp_path / "e.png")
        assert vli(*asked, "--image-root", tmp_path).exit_code == 0, "one root for both, as long as no other is named"


def test_pictures_in_a_table_train_the_same_adapter(data: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in data.read_text().splitlines()]
    pictures = [{"bytes": (data.parent / record["image"]).read_bytes(), "path": None} for record in records]
    rows = [{**record, "image": picture} for record, picture in zip(records, pictures, strict=True)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet", row_group_size=2)
    for name, source in (("files", data), ("table", tmp_path / "d.parquet")):
        assert vli("finetune", "--data", source, "-o", tmp_path / name, *QUICK, "--max-steps", "3").exit_code == 0
    files, table = (tmp_path / name / "alignment.safetensors" for name in ("files", "table"))
    assert table.read_bytes() == files.read_bytes()


def test_missing_pictures_end_a_dry_run_with_their_count(data: Path, tmp_path: Path) -> None:
    line = vli("finetune", "--data", data, "--image-root", tmp_path / "nowhere", "--dry-run").refusal(4)
    assert "6 of 6 pictures cannot be read" in line
    assert line.endswith("Name their folder with --image-root")


def test_columns_and_text_only_records_are_read_from_the_shell(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"file": "0.png", "q": "what?", "a": 3}\n{"q": "hello", "a": "hi"}\n')
    asked = ("finetune", "--data", other, "--columns", "image=file,question=q,answer=a")
    assert "--skip-text-only" in vli(*asked, "--dry-run").refusal(4)
    result = vli(*asked, "--skip-text-only", "--dry-run", "--json")
    assert result.records[0]["num_samples"] == 1
    assert {line.partition(": ")[2] for line in result.lines} >= {
        f"1 of 2 records in {other}: no picture, left out",
        f"1 of 2 records in {other}: the answer is a number and is learned as its text, 3.0 as 3",
    }
    for columns in ("image", "image=", "picture=file", "image=a,image=b"):
        assert "--columns" in vli("finetune", "--data", other, "--columns", columns).refusal(2)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--learning-rate", "-1"), ("--learning-rate", "nan"), ("--num-train-epochs", "0"), ("--answers", "some")],
)
def test_settings_out_of_range_are_refused(option: str, value: str, data: Path) -> None:
    line = vli("finetune", "--data", data, option, value).refusal(2)
    assert option.strip("-") in line.replace("_", "-")


def command(data: Path, adapter: Path, backbone: Path) -> list[str]:
    asked = ["-m", "vlinstruct", "finetune", "--data", data, "-o", adapter, *QUICK, "--backbone", backbone, "--resume"]
    return [sys.executable, *map(str, asked), "--device", "cpu"]


def content(adapter: Path) -> list[bytes]:
    last = max((adapter / "checkpoints").glob("step-*"))
    files = [adapter / "alignment.safetensors", adapter / "log.jsonl", *sorted(last.glob("*.safetensors"))]
    return [path.read_bytes() for path in files]


@pytest.mark.slow
def test_killed_at_random_instants_it_ends_with_the_same_bits(
    data: Path, tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, killed = (command(data, tmp_path / name, tiny_folders["t5"]) for name in ("whole", "killed"))
    subprocess.run(whole, check=True, capture_output=True, env=environment)
    rng = random.Random(0)
    checkpoints = tmp_path / "killed" / "checkpoints"
    for _ in range(3):
        process = subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        begun = len(list(checkpoints.glob("step-*")))
        while process.poll() is None and len(list(checkpoints.glob("step-*"))) <= begun < 2:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.wait()
    subprocess.run(killed, check=True, capture_output=True, env=environment)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_go_on(data: Path, tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    asked = command(data, tmp_path / "a", tiny_folders["t5"])
    asked[asked.index("--num-train-epochs") + 1] = "100000"
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "a" / "log.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 143
    assert stdout == ""
    assert "--resume" in stderr.splitlines()[-1]
    (checkpoint, *_) = sorted((tmp_path / "a" / "checkpoints").glob("step-*"), reverse=True)
    lines = (tmp_path / "a" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == int(checkpoint.name.removeprefix("step-"))


def test_a_settings_file_is_read_and_options_override_it(data: Path, tmp_path: Path) -> None:
    settings = tmp_path / "mine.yaml"
    settings.write_text("learning_rate: 1e-3\nmax_steps: 2\nema: false\nper_device_train_batch_size: 2\n")
    asked = ("finetune", "--data", data, "-o", tmp_path / "a", "--config", settings, "--max-steps", "3")
    assert vli(*asked).exit_code == 0
    training = json.loads((tmp_path / "a" / "alignment_config.json").read_text())["training"]
    assert (training["learning_rate"], training["max_steps"], training["ema"]) == (1e-3, 3, False)
    again = ("finetune", "--data", data, "-o", tmp_path / "b", "--config", tmp_path / "a" / "settings.yaml")
    assert vli(*again).exit_code == 0
    assert (tmp_path / "b" / "log.jsonl").read_bytes() == (tmp_path / "a" / "log.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rte: 1\n", "unknown key learning_rte; did you mean learning_rate?"),
        ("learning_rate: -1\n", "learning_rate must be above 0 and finite, got -1"),
        ("per_device_train_batch_size: 0\n", "per_device_train_batch_size must be 1 to 1,000,000,000, got 0"),
        ("num_train_epochs: 1e9\n", "num_train_epochs must be an integer like 10"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(text: str, said: str, data: Path, tmp_path: Path) -> None:
    settings = tmp_path / "mine.yaml"
    settings.write_text(text)
    line = vli("finetune", "--data", data, "-o", tmp_path / "a", "--config", settings).refusal(4)
    assert said in line
    assert "mine.yaml" in line
    assert not (tmp_path / "a").exists()


def test_a_resume_with_other_settings_names_them(data: Path, tmp_path: Path) -> None:
    vli("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "--max-steps", "2")
    asked = ("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "--max-steps", "2", "--resume")
    line = vli(*asked, "--learning-rate", "0.5", "--seed", "4").refusal(4)
    assert "learning_rate was 0.01, is 0.5; seed was 3, is 4" in line


def test_an_adapter_knows_the_size_that_it_was_trained_at(
    data: Path, tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    own, larger = tmp_path / "own", tmp_path / "larger"
    run = ("finetune", "--data", data, "--backbone", tiny_folders["t5"], *QUICK, "--max-steps", "2")
    assert vli(*run, "-o", own).exit_code == 0
    assert vli(*run, "-o", larger, "--image-size", "56").exit_code == 0
    assert json.loads((larger / "alignment_config.json").read_text())["training"]["image_size"] == 56
    assert (own / "alignment.safetensors").read_bytes() != (larger / "alignment.safetensors").read_bytes()
    assert "image_size was 56, is 42" in vli(*run, "-o", larger, "--resume", "--image-size", "42").refusal(4)
    ask = ("ask", data.parent / "0.png", "what is 0?", "--backbone", tiny_folders["t5"], "--adapter")
    said = "the adapter was trained on pictures of 56 pixels, these are read at 28"
    assert said in vli(*ask, larger).stderr
    for fitting in ((own,), (own, "--image-size", "28"), (larger, "--image-size", "56")):
        assert "pixels" not in vli(*ask, *fitting).stderr
    assert "of 28 pixels, these are read at 42" in vli(*ask, own, "--image-size", "42").stderr


def test_validations_are_said_and_the_best_adapter_can_be_asked(data: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "a"
    asked = ("finetune", "--data", data, "-o", adapter, *QUICK, "--eval-data", data, "--eval-steps", "8")
    done = vli(*asked, "--json")
    (record,) = done.records
    validations = [json.loads(line) for line in (adapter / "log.jsonl").read_text().splitlines() if "eval" in line]
    best = min(validations, key=lambda one: one["eval_loss"])
    assert (record["best_step"], record["best_eval_loss"]) == (best["step"], best["eval_loss"])
    assert sum("validation after update" in line for line in done.lines) == 3
    assert sum("validation before the first update" in line for line in done.lines) == 1
    assert (record["first_eval_loss"], record["last_eval_loss"]) == tuple(validations[i]["eval_loss"] for i in (0, -1))
    assert vli("ask", data.parent / "0.png", "what is 0?", "--adapter", adapter / "best").exit_code == 0
    assert (adapter / "curve.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("more", [["--lora", "--lora-r", "2"], ["--ln-vision"], ["--learned-cmaa"]])
def test_what_learns_beside_the_projection_is_in_the_adapter(more: list[str], data: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "a"
    assert vli("finetune", "--data", data, "-o", adapter, *QUICK, "--learning-rate", "0.3", *more).exit_code == 0
    plain, tuned = (
        vli("score", data.parent / "0.png", "what is 0?", "--json", *adapters).records[0]["scores"][0]["ias"]
        for adapters in ((), ("--adapter", adapter))
    )
    assert plain != tuned


def test_only_the_adapter_is_pushed_and_only_when_asked(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, object]] = []

    class Hub:
        def whoami(self) -> None:
            calls.append(("whoami", None))

        def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
            calls.append(("create", (name, private)))
            return f"https://huggingface.co/{name}"

        def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str]) -> None:
            found = {path.relative_to(folder_path) for one in allow_patterns for path in folder_path.glob(one)}
            calls.append(("upload", sorted(map(str, found))))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    vli("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "--max-steps", "2")
    assert calls == []
    done = vli("finetune", "--data", data, "-o", tmp_path / "b", *QUICK, "--max-steps", "2", "--push-to-hub", "me/mine")
    assert done.exit_code == 0
    assert calls == [
        ("whoami", None),
        ("create", ("me/mine", True)),
        ("upload", ["README.md", "alignment.safetensors", "alignment_config.json", "curve.svg", "log.jsonl"]),
    ]
    assert "done: uploaded to https://huggingface.co/me/mine" in done.lines


def test_who_is_not_logged_in_is_told_before_anything_is_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hub:
        def whoami(self) -> None:
            raise ConnectionError("token hf_secret")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    asked = ("finetune", "--data", data, "-o", tmp_path / "a", *QUICK)
    line = vli(*asked, "--push-to-hub", "me/mine").refusal(9)
    assert "hf auth login" in line
    assert "hf_secret" not in line
    assert not (tmp_path / "a").exists()
    assert "contradict" in vli(*asked, "--push-to-hub", "me/mine", "--offline").refusal(2)


@pytest.mark.slow
def test_of_two_runs_in_one_folder_one_is_refused(data: Path, tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    asked = command(data, tmp_path / "a", tiny_folders["t5"])
    both = [subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes[0] == 0
    if codes[1] != 0:  # else the second one came when the first was through
        assert codes[1] == 8
        (refused,) = [text for text, process in zip(said, both, strict=True) if process.returncode == 8]
        assert "process " in refused


def test_ctrl_c_saves_and_says_how_to_go_on(data: Path, tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    asked = command(data, tmp_path / "a", tiny_folders["t5"])
    asked[asked.index("--num-train-epochs") + 1] = "100000"
    process = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "a" / "checkpoints").glob("step-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "--resume" in process.communicate(timeout=30)[1].splitlines()[-1]
    assert process.returncode == 130


def test_a_finished_run_says_so_and_exits_well(data: Path, tmp_path: Path) -> None:
    asked = ("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "--max-steps", "2")
    vli(*asked)
    done = vli(*asked, "--resume")
    assert done.exit_code == 0
    assert any("already complete" in line for line in done.lines)


def test_a_shape_suggests_a_recipe_and_says_so(data: Path, tmp_path: Path) -> None:
    shutil.copytree(mini_folder(), tmp_path / "copy")
    line = ("finetune", "--data", data, "-o", tmp_path / "a", "--device", "cpu", "--dry-run")
    copied, named = vli(*line, "--backbone", tmp_path / "copy"), vli(*line, "--backbone", "mini")
    assert any("has the shape of mini, whose recipe is used" in text for text in copied.lines)
    assert not any("shape" in text for text in named.lines)
    assert copied.text.partition("\n")[2] == named.text.partition("\n")[2]


MOMENTS = {
    "an update": "vlinstruct.training.loop.Loop.advance",
    "a save": "vlinstruct.training.state.sync",
    "a validation": "vlinstruct.training.examples.answer_nll",
    "the features": "vlinstruct.training.features.load_picture",
    "the end": "vlinstruct.training.adapter_folder.save_adapter",
}


@pytest.mark.parametrize(
    ("moment", "number"),
    [*((moment, "SIGTERM") for moment in MOMENTS), ("an update", "SIGINT"), ("an update", "SIGHUP")],
)
def test_a_signal_at_any_moment_costs_nothing_once_it_is_resumed(
    moment: str, number: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("finetune", "--data", data, *QUICK, "--max-steps", "4", "--eval-data", data, "--eval-steps", "2")
    where, _, name = MOMENTS[moment].rpartition(".")
    original, calls = getattr(pkgutil.resolve_name(where), name), []

    def interrupted(*given: Any, **more: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            signal.raise_signal(getattr(signal, number))
        return original(*given, **more)

    assert vli(*asked, "-o", tmp_path / "whole").exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr(MOMENTS[moment], interrupted)
        stopped = vli(*asked, "-o", tmp_path / "a")
    assert len(calls) >= 2
    if stopped.exit_code != 0:  # 0: it came when the last update was made
        assert stopped.exit_code == 128 + getattr(signal, number)
        assert stopped.stdout == b""
        assert "--resume" in stopped.lines[-1]
        assert vli(*asked, "-o", tmp_path / "a", "--resume").exit_code == 0
    assert content(tmp_path / "a") == content(tmp_path / "whole")


ASKED_TWICE = """
import sys, time
from vlinstruct.cli import main
from vlinstruct.training.loop import Loop
advance = Loop.advance
def slow(self, log):
    if self.step == 3:
        print("busy", file=sys.stderr, flush=True)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.01)
    advance(self, log)
Loop.advance = slow
main.main()
"""


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once_and_costs_what_is_not_saved_alone(
    data: Path, tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    asked = command(data, tmp_path / "a", tiny_folders["t5"])
    process = subprocess.Popen(
        [sys.executable, "-c", ASKED_TWICE, *asked[3:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as the tests' own: another number of threads gives other bits
    )
    assert process.stderr is not None
    while (line := process.stderr.readline()) != "busy\n":
        assert line
    while Path(f"/proc/{process.pid}").exists() and process.poll() is None:
        process.send_signal(signal.SIGINT)  # the first is noted and the update goes on
        time.sleep(0.2)
    assert process.communicate()[0] == ""
    assert process.returncode == -signal.SIGINT
    assert [path.name for path in (tmp_path / "a" / "checkpoints").iterdir()] == ["step-00000002"]
    for name in ("a", "whole"):
        again = command(data, tmp_path / name, tiny_folders["t5"])
        assert vli(*again[3:]).exit_code == 0
    assert content(tmp_path / "a") == content(tmp_path / "whole")


@pytest.mark.parametrize("moment", ["sets.read_conversations", "finetune.load_backend"])
def test_before_there_is_anything_to_save_a_signal_ends_at_once_and_leaves_nothing(
    moment: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object, **more: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(f"vlinstruct.training.{moment}", interrupted)
    arguments = ["vlinstruct", "finetune", "--data", str(data), "-o", str(tmp_path / "a" / "b"), *QUICK]
    monkeypatch.setattr(sys, "argv", arguments)
    assert exit_code_of_main() == 143
    assert not (tmp_path / "a").exists()


def test_a_reader_that_is_gone_costs_no_training(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("vlinstruct.cli.terminal.printed", gone)
    done = vli("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "--max-steps", "2", "--quiet")
    assert (done.exit_code, done.stderr) == (141, "")
    assert (tmp_path / "a" / "alignment.safetensors").exists()


def test_a_place_that_no_folder_can_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for place in ("file", "file/a/b", "loop"):
        line = vli("finetune", "--data", tmp_path / "none.jsonl", "-o", tmp_path / place).refusal(4)
        assert "is no folder" in line
    vli("finetune", "--data", tmp_path / "none.jsonl", "-o", tmp_path / ("x" * 5_000)).refusal(6)
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere: the system's answer is played
    line = vli("finetune", "--data", tmp_path / "none.jsonl", "-o", tmp_path / "a").refusal(6)
    assert str(tmp_path / "a") in line
    assert not (tmp_path / "a").exists()


def test_an_example_set_that_the_disk_does_not_take_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # Pillow's names no file

    monkeypatch.setattr("PIL.Image.Image.save", full)
    line = vli("finetune", "--backbone", "mini", "-o", tmp_path / "a").refusal(6)
    assert str(tmp_path / "a") in line
    assert "No space left" in line
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EDQUOT, errno.EIO])
def test_what_the_system_refuses_to_a_training_names_the_folder(
    number: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("vlinstruct.training.features._reserve", refuse)
    line = vli("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "-q").refusal(6)
    assert str(tmp_path / "a") in line
    assert os.strerror(number) in line


def test_weights_that_are_not_numbers_end_a_training_with_7_and_are_never_saved(
    data: Path, tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    shutil.copytree(tiny_folders["t5"], tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    tensors["language_projection.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    asked = ("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "--max-steps", "3", "-q")
    assert "loss of update 1 is not finite" in vli(*asked, "--backbone", tmp_path / "m").refusal(7)
    line = vli(*asked, "--backbone", tmp_path / "m", "--skip-nonfinite", "3").refusal(7)
    assert "all 3 updates were left out" in line
    assert not (tmp_path / "a" / "alignment.safetensors").exists()


def test_float16_is_refused_for_t5_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    asked = ("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "--dtype", "float16")
    assert "overflow in float16" in vli(*asked).refusal(4)
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_lora_says_nothing_of_the_libraries_that_it_finds(
    data: Path, tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    asked = [*command(data, tmp_path / "a", tiny_folders["t5"]), "--lora", "--max-steps", "1", "-q"]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / 'a'}\n", "")


@pytest.mark.parametrize(
    ("steps", "losses", "said"),
    [
        (50, {0: 0.1281, 25: 0.12, 50: 0.1267}, "validation 0.1281 -> 0.1267 after 50 updates, best at 25; try: "),
        (1, {0: 2.0, 1: 1.0}, "validation 2.0000 -> 1.0000 after 1 update; try: "),
        (2, {0: 1.0, 2: 2.0}, "validation 1.0000 -> 2.0000 after 2 updates, which was best before the first: try a "),
        (20, {}, "loss 2.0000 -> 1.0000 in 20 updates (--val-size 0.05 would validate); try: "),
    ],
)
def test_the_last_line_says_what_came_of_it_and_what_to_type(
    steps: int, losses: dict[int, float], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = min(losses, key=lambda step: losses[step]) if losses else None
    outcome = Finetuned(
        folder=Path("my adapter"),
        backbone="flant5-xl",
        step=steps,
        num_steps=steps,
        losses=(2.0,) * (steps - steps // 2) + (None,) + (1.0,) * (steps // 2),
        best_step=best,
        validations=losses,
    )
    line = result(outcome)
    assert line.startswith(said)
    where = "'my adapter/best'" if best == 25 else "'my adapter'"
    assert line.endswith(f"vlinstruct ask IMAGE QUESTION --backbone flant5-xl --adapter {where}")
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", "flant5-xl")
    assert "--backbone" not in result(outcome), "it is what is asked anyway"


def test_stopped_before_the_first_update_nothing_is_called_saved(data: Path, tmp_path: Path) -> None:
    asked = ("finetune", "--data", data, "-o", tmp_path / "a", *QUICK)

    def interrupted(*given: Any, **more: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        compute_features(*given, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vlinstruct.training.train.compute_features", interrupted)
        stopped = vli(*asked)
    assert stopped.exit_code == 130
    last = stopped.lines[-1]
    assert last.startswith("done: stopped before the first update; the pictures read so far are kept. To go on: ")
    again = vli(*last.partition("vlinstruct ")[2].split())
    assert again.exit_code == 0
    assert any("no update is saved in" in line and "begins with its first" in line for line in again.lines)


def test_a_check_looks_at_all_sets_of_an_experiment(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"file": "0.png", "question": "q", "answer": "a"}\n')
    experiment = tmp_path / "mine.yaml"
    experiment.write_text(f"data: [{other}, {{path: {other}, weight: 2}}]\ncolumns: image=file\neval_data: {other}\n")
    checked = vli("finetune", "--config", experiment, "--check-data").text
    assert checked.count("nothing is wrong with") == 3
    assert "--check-data needs --data" in vli("finetune", "--check-data").refusal(2)
    planned = vli("finetune", "--config", experiment, "--dry-run")
    assert "samples     2 (3 an epoch, by their weights), and 1 to validate on" in planned.text


@pytest.mark.parametrize("width", [40, 80, 140])
def test_a_bar_leaves_room_for_ctrl_c_and_is_gone_in_the_end(
    width: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folders: dict[str, Path]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    asked = ("finetune", "--data", data, "-o", tmp_path / "a", *QUICK, "--max-steps", "3")
    done = vli(*asked, "--backbone", tiny_folders["t5"], is_terminal=True, columns=width)
    assert done.exit_code == 0
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stderr)
    bars = [line.rstrip() for line in re.split(r"[\r\n]", drawn) if line.startswith(("pictures read", "update"))]
    assert max(map(len, bars)) <= width - 3
    assert {total for bar in bars for total in re.findall(r"\d+/(\d+)", bar)} == {"6", "3"}, "totals are known"
    *_, end = done.stderr.rpartition("\x1b[2K")  # the last bar's line is cleared, and no other is drawn
    assert "━" not in end
    assert "done: " in end
