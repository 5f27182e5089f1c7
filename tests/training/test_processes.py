"""Several processes train as one: the same losses, the same bits after a resume, and none waits for a dead one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .training_set import write_data

TESTS = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]


def launched(num_processes: int, *arguments: str) -> list[str]:
    return [*TORCHRUN, str(num_processes), "--standalone", *arguments]  # a meeting place of its own, never a closed one


def finished(num_processes: int, *arguments: str) -> str:
    """Runs processes to their end and returns what they print."""
    done = subprocess.run(launched(num_processes, *arguments), capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def asked(backbone: Path, data: Path, output: Path, *more: str) -> list[str]:
    options = ["--learning-rate", "0.01", "--warmup-steps", "2", "--max-steps", "6", "--num-train-epochs", "100"]
    places = ["--backbone", str(backbone), "--data", str(data), "--eval-data", str(data), "-o", str(output)]
    return ["-m", "vlinstruct", "finetune", *places, *options, "--device", "cpu", *more]


def log(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_two_processes_have_the_losses_of_one(kind: str, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    one, two = tmp_path / "one", tmp_path / "two"
    split = ["--per-device-train-batch-size", "2", "--gradient-accumulation-steps"]
    command = [sys.executable, *asked(tiny_folders[kind], data, one, *split, "2")]
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    finished(2, *asked(tiny_folders[kind], data, two, *split, "1"))
    assert len(log(one)) == len(log(two)) == 8
    for ours, theirs in zip(log(one), log(two), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ("loss", "eval_loss", "samples", "target_tokens"):
            assert ours.get(name, 0) == pytest.approx(theirs.get(name, 0), abs=1e-5, rel=0)
        assert ours.get("grad_norm", 0) == pytest.approx(theirs.get("grad_norm", 0), rel=1e-5)


@pytest.mark.slow
def test_two_processes_resumed_after_every_update_end_with_the_same_bits(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    said = finished(2, "-m", "tools.resumed", str(tiny_folders["t5"]), str(tmp_path))
    assert said.count("the same 7 files") == 11


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_a_sharded_language_model_has_the_gradients_of_a_whole_one(kind: str, tiny_folders: dict[str, Path]) -> None:
    assert finished(2, "-m", "tools.sharded", str(tiny_folders[kind])).count("of the weights") == 2


@pytest.mark.slow
def test_when_one_process_dies_all_end_and_the_run_can_go_on(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    data, output = write_data(tmp_path / "data"), tmp_path / "a"
    many = asked(tiny_folders["t5"], data, output, "--max-steps", "100000", "--save-steps", "1", "--resume")
    process = subprocess.Popen(
        launched(2, *many), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    while process.poll() is None and not list(output.glob("checkpoints/step-*")):
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    checkpoint = max(output.glob("checkpoints/step-*"))
    done = int(checkpoint.name.removeprefix("step-"))
    last = asked(tiny_folders["t5"], data, output, "--max-steps", "100000", "--save-steps", "1", "--resume")
    process = subprocess.Popen(
        launched(2, *last), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    while process.poll() is None and (output / f"checkpoints/{checkpoint.name}").exists():
        time.sleep(0.01)
    process.terminate()
    process.wait(timeout=60)
    steps = [record["step"] for record in log(output) if "loss" in record]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > done


@pytest.mark.slow
def test_processes_that_read_other_data_are_stopped_before_they_learn(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    for rank in range(2):
        write_data(tmp_path / f"data{rank}")
    other = tmp_path / "data1" / "data.jsonl"
    other.write_text(other.read_text().replace('"aa"', '"ab"'))
    command = asked(tiny_folders["t5"], tmp_path / "data$RANK" / "data.jsonl", tmp_path / "a")
    line = " ".join([sys.executable, *command])
    done = subprocess.run(
        launched(2, "--no-python", "bash", "-c", line), capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode != 0
    assert "error: the processes do not train the same: data differ." in done.stderr
    assert not (tmp_path / "a" / "log.jsonl").exists()
