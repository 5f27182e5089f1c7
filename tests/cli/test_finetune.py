"""`vlinstruct finetune` from the shell: plan, train, stop, kill, go on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import assert_is_error_line, vli
from PIL import Image

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
    assert not (tmp_path / "a").exists()


def test_a_dry_run_on_minis_examples_writes_nothing_either(tmp_path: Path) -> None:
    text = vli("finetune", "--backbone", "mini", "-o", tmp_path / "a", "--dry-run", "--device", "cpu").text
    assert "updates     50 of 16 samples" in text
    assert not (tmp_path / "a").exists()


def test_without_data_only_mini_has_something_to_learn(tmp_path: Path) -> None:
    line = vli("finetune", "-o", tmp_path / "a").refusal(2)
    assert "LLaVA-Instruct-150K" in line
    assert "licence" in line


def test_mini_draws_its_own_examples(tmp_path: Path) -> None:
    adapter = tmp_path / "a"
    vli("finetune", "--backbone", "mini", "-o", adapter, "--max-steps", "2", "--device", "cpu")
    lines = (adapter / "example-data" / "train.jsonl").read_text().splitlines()
    assert len(lines) > 400
    assert set(json.loads(lines[0])) == {"id", "image", "instruction", "answer"}
    assert (adapter / "alignment.safetensors").exists()


def test_what_is_wrong_with_the_data_is_listed(data: Path) -> None:
    assert vli("finetune", "--data", data, "--check-data").text == f"nothing is wrong with {data}\n"
    with data.open("a") as file:
        file.write('{"image": "0.png"}\n{"image": "no.png", "question": "q", "answer": "a"}\n')
    result = vli("finetune", "--data", data, "--check-data")
    assert result.exit_code == 4
    assert [b"line 7" in line or b"line 8" in line for line in result.stdout.splitlines()] == [True, True]
    assert_is_error_line(result.lines[-1])


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
