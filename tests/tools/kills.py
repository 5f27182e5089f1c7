"""Kills trainings with SIGKILL at random instants, goes on with them and compares what they end with, bit by bit.

PYTHONPATH=tests python -m tools.kills --kills 100 [--backbone llama] [--processes 2] [--seed 0]

One kill in ten falls between the start and the lock on the folder, the others at a uniformly random instant after it.
With two processes, every third kill takes one of them alone: the other has to end by itself, in 60 s and with an error.
Nothing but Linux' /proc tells who holds the lock and which processes torchrun started. What came out is in KILLS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tiny_models
from PIL import Image

from .crash_points import content

NUM_STEPS, EVAL_STEPS = 24, 3
SETTINGS = ["--learning-rate", "0.01", "--warmup-steps", "2", "--num-train-epochs", "10", "--max-steps", NUM_STEPS]
SETTINGS += ["--per-device-train-batch-size", "1", "--gradient-accumulation-steps", "2", "--save-steps", "1"]
SETTINGS += ["--eval-steps", EVAL_STEPS, "--lora", "--lora-r", "2", "--lora-dropout", "0.3", "--learned-cmaa"]
PICTURE_SIZE = (1600, 1200)  # large, for frozen features to take a while
FOLLOWS_WITHIN_S = 60.0
SHARE_STARTING = 0.1
WINDOW = 0.7  # of what a whole training takes: several kills per run


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is run.

    Args:
        root: where everything lies.
        backbone: t5 or llama.
        num_processes: 1 or 2.
    """

    root: Path
    backbone: str
    num_processes: int = 1

    def command(self, name: str) -> list[str]:
        """Returns what is typed after `python -m`."""
        files = ["--data", self.root / "data.jsonl", "--eval-data", self.root / "eval.jsonl", "-o", self.root / name]
        asked = ["vlinstruct", "finetune", *files, "--backbone", self.root / self.backbone, *SETTINGS]
        return [*map(str, asked), "--device", "cpu", "--resume"]

    def start(self, name: str, *, by_hand: bool = False) -> Processes:
        """Starts it: alone, through torchrun, or as two processes that nobody watches over."""
        if self.num_processes == 1:
            return Processes([started(["-m", *self.command(name)])])
        if not by_hand:
            launched = ["-m", "torch.distributed.run", "--nproc-per-node", str(self.num_processes)]
            return Processes([started([*launched, "--master-port", str(free_port()), "-m", *self.command(name)])])
        group = {"WORLD_SIZE": str(self.num_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        ranks = [
            {**group, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(self.num_processes)}
            for rank in range(self.num_processes)
        ]
        return Processes([started(["-m", *self.command(name)], **rank) for rank in ranks])


@dataclass(frozen=True)
class Processes:
    """What was started, each the head of a group of its own."""

    heads: Sequence[subprocess.Popen[bytes]]

    def wait(self, timeout_s: float | None = None) -> list[int]:
        """Returns the exit codes."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        return [head.wait(None if end is None else max(0.0, end - time.monotonic())) for head in self.heads]

    def kill(self) -> None:
        """Kills them with all that they started."""
        everybody = [pid for head in self.heads for pid in (head.pid, *descendants(head.pid))]
        for pid in everybody:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.wait()


@dataclass(frozen=True, kw_only=True)
class Lasts:
    """How long a training takes that nobody kills.

    Args:
        start_s: until it locks its folder.
        rest_s: from there to its end.
    """

    start_s: float
    rest_s: float


@dataclass
class Tally:
    """What has happened.

    Args:
        runs: trainings that were killed at least once and ended.
        phases: what a training was doing when it was killed.
        alone: kills of one process of several, by its rank.
        follows_s: the longest time that the others took to end by themselves.
        problems: runs that did not end with the same bits, or otherwise than they should.
    """

    runs: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    alone: Counter[int] = field(default_factory=Counter)
    follows_s: float = 0.0
    problems: list[str] = field(default_factory=list)


def started(arguments: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
    """Starts python in a session of its own, with one thread."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def descendants(pid: int) -> list[int]:
    """Returns the processes that a process started, and theirs: torchrun's are in sessions of their own."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    children = [int(word) for word in text.split()]
    return [*children, *(below for child in children for below in descendants(child))]


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def is_locked(folder: Path) -> bool:
    """Returns whether a training has locked its folder: it has started then, and begins to read and to write."""
    try:
        inode = str((folder / ".lock").stat().st_ino)
    except OSError:
        return False
    fields = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    return any(field[1] == "FLOCK" and field[5].rpartition(":")[2] == inode for field in fields)


def wait_until_locked(folder: Path, processes: Processes) -> None:
    """Returns when a training has started, or has ended before."""
    while all(head.poll() is None for head in processes.heads) and not is_locked(folder):
        time.sleep(0.005)


def write_inputs(training: Training) -> None:
    """Writes the backbone, 24 samples to learn and six to validate on."""
    tiny_models.write_folder(training.backbone, training.root / training.backbone)
    for name, numbers in (("data", range(24)), ("eval", range(24, 30))):
        for number in numbers:
            picture = Image.new("RGB", PICTURE_SIZE, (8 * number, 90, 200 - 6 * number))
            picture.save(training.root / f"{number}.png")
        records = [
            {"id": f"s{number}", "image": f"{number}.png", "instruction": f"what is {number}?", "answer": "a" * length}
            for number, length in ((number, 1 + number % 7) for number in numbers)
        ]
        text = "".join(json.dumps(record) + "\n" for record in records)
        (training.root / f"{name}.jsonl").write_text(text, encoding="utf-8")


def phase(folder: Path, begun_s: float) -> str:
    """Returns what a training was doing when it was killed, as its files tell.

    Args:
        folder: the training's.
        begun_s: when this process of it was started; what is older says nothing.
    """
    fresh = [path for path in folder.rglob("*") if path.stat().st_mtime >= begun_s]
    names = {str(path.relative_to(folder)) for path in fresh}
    if not names - {".lock"}:
        return "reading what is there" if (folder / "log.jsonl").exists() else "starting"
    temporary = {name.rpartition("/")[0] for name in names if "/.tmp" in f"/{name}"}
    if any(name.startswith("checkpoints") for name in temporary):
        return "saving a checkpoint" if not any(".tmp-old" in name for name in names) else "removing an old checkpoint"
    if any(name.startswith("best") for name in temporary):
        return "writing the best adapter"
    if "curve.png" in names or "README.md" in names or "" in temporary or "lora" in temporary:
        return "finishing" if "alignment_config.json" not in names else "leaving after the end"
    if "log.jsonl" not in names:
        return "computing features" if any(name.startswith("features") for name in names) else "reading the log"
    return training_phase(folder / "log.jsonl")


def training_phase(log: Path) -> str:
    """Returns what a training was doing between two writings of files."""
    lines = log.read_bytes().splitlines(keepends=True)
    if not lines or not lines[-1].endswith(b"\n"):
        return "updating" if not lines else "writing the log"
    last = json.loads(lines[-1])
    if "eval_loss" not in last and last["step"] % EVAL_STEPS == 0:
        return "validating"
    return "updating" if last["step"] < NUM_STEPS else "finishing"


def killed_once(training: Training, name: str, lasts: Lasts, rng: random.Random, tally: Tally) -> bool:
    """Runs a training and kills it at a random instant; returns whether it had ended before."""
    kills = tally.phases.total()
    is_alone = training.num_processes > 1 and kills % 3 == 2
    begun_s = time.time()
    processes = training.start(name, by_hand=is_alone)
    is_starting = rng.random() < SHARE_STARTING
    if not is_starting:
        wait_until_locked(training.root / name, processes)
    try:
        codes = processes.wait(rng.uniform(0, lasts.start_s if is_starting else WINDOW * lasts.rest_s))
    except subprocess.TimeoutExpired:
        if is_alone:
            kill_one(processes, rng.randrange(training.num_processes), training.root / name, tally)
        else:
            processes.kill()
        tally.phases["starting" if is_starting else phase(training.root / name, begun_s)] += 1
        return False
    if any(codes):
        tally.problems.append(f"{name}: ended by itself with {codes}")
    return True


def kill_one(processes: Processes, rank: int, folder: Path, tally: Tally) -> None:
    """Kills one process; the others have to notice."""
    processes.heads[rank].kill()
    tally.alone[rank] += 1
    killed_s = time.monotonic()
    try:
        codes = processes.wait(FOLLOWS_WITHIN_S)
    except subprocess.TimeoutExpired:
        tally.problems.append(f"{folder.name}: the others still ran {FOLLOWS_WITHIN_S} s after rank {rank} was killed")
        processes.kill()
        return
    tally.follows_s = max(tally.follows_s, time.monotonic() - killed_s)
    if 0 in codes and not (folder / "alignment_config.json").exists():  # there, all that was left was to leave
        tally.problems.append(f"{folder.name}: rank {rank} was killed, the processes ended with {codes}")


def killed_until_done(training: Training, name: str, lasts: Lasts, kills: int, tally: Tally) -> None:
    """Kills a training again and again until it is done, or there were kills enough."""
    rng = random.Random(name)
    while tally.phases.total() < kills and not killed_once(training, name, lasts, rng, tally):
        print(f"{tally.phases.total()} kills", *tally.problems[-1:], sep="; ", flush=True)
    codes = training.start(name).wait()
    tally.runs += 1
    if any(codes):
        tally.problems.append(f"{name}: resumed, it ended with {codes}")
        return
    whole, resumed = content(training.root / "whole"), content(training.root / name)
    differing = [one for one in sorted({*whole, *resumed}) if whole.get(one) != resumed.get(one)]
    tally.problems += [f"{name}: {one} differs" for one in differing]


def whole_run(training: Training) -> Lasts:
    """Trains without a kill."""
    begun_s = time.monotonic()
    processes = training.start("whole")
    wait_until_locked(training.root / "whole", processes)
    locked_s = time.monotonic()
    codes = processes.wait()
    assert not any(codes), codes
    return Lasts(start_s=locked_s - begun_s, rest_s=time.monotonic() - locked_s)


def print_tally(training: Training, tally: Tally, lasts: Lasts) -> None:
    """Prints what has happened as a table."""
    print(f"\n{training.backbone}, {training.num_processes} process(es), {lasts.start_s:.1f} s to start, then killed")
    print(f"within {WINDOW * lasts.rest_s:.1f} s: {tally.phases.total()} kills in {tally.runs} runs\n")
    print("| killed while | kills |\n|---|---|")
    for name, count in tally.phases.most_common():
        print(f"| {name} | {count} |")
    if tally.alone:
        ranks = ", ".join(f"rank {rank} {count} times" for rank, count in sorted(tally.alone.items()))
        print(f"\none process alone: {ranks}; the other ended by itself within {tally.follows_s:.1f} s")
    print("\nall ended with the same bits" if not tally.problems else "\n" + "\n".join(tally.problems))


def main() -> int:
    """Kills as often as asked; returns 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--backbone", choices=["t5", "llama"], default="t5")
    parser.add_argument("--processes", type=int, choices=[1, 2], default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory() as root:
        training = Training(root=Path(root), backbone=asked.backbone, num_processes=asked.processes)
        write_inputs(training)
        lasts = whole_run(training)
        while tally.phases.total() < asked.kills:
            name = f"killed-{asked.seed}-{tally.runs}"
            killed_until_done(training, name, lasts, asked.kills, tally)
    print_tally(training, tally, lasts)
    return int(bool(tally.problems))


if __name__ == "__main__":
    sys.exit(main())
