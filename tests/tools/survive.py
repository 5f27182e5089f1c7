"""Damages what we read, kills what we run and takes away what we need; counts how often we survive it.

PYTHONPATH=tests python -m tools.survive [pictures|folders|data|adapters|checkpoints|kills|points|resources ...]
    [--mutants N] [--kills N] [--every N] [--seed S] [--seconds MAX] [--failing FOLDER] [--only SUBJECT:K|RESOURCE]

pictures, folders, data, adapters, checkpoints
    A damaged file is read in a fork of this process. It holds if that succeeds or ends in one of our errors (of a
    picture: `ImageError`), within 5 s of the processor and 60 s of waiting, in less than 300 MB more than before,
    without a word on stderr. N mutants of each kind are spread evenly over its subjects (`survivors`).
kills
    SIGKILL at random instants and operations of six commands, which then go on (`survive_kills`).
points
    Every file operation of a training's saving is the last one, or fails (`crash_points`).
resources
    The six commands without room, memory, files, a clock, a terminal, HOME or permission (`survive_resources`).

What does not hold is written to the folder of `--failing`, with the command that replays it. What came out is in
README.md.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import shlex
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

from vlinstruct.errors import ImageError, VlinstructError

from . import crash_points, survive_kills, survive_resources
from .survivors import KINDS, Subject

FULL = {"pictures": 100_000, "folders": 13_000, "data": 105_000, "adapters": 10_000, "checkpoints": 22_000}
NUM_PROCESSES = 2
CHUNK = 200
MAX_CPU_S, MAX_WAIT_S = 5.0, 60.0
MAX_MORE_BYTES = 300 * 2**20
ADDRESS_SPACE_BYTES = 4 * 2**30  # more than is here, so that a mutant that asks for terabytes hurts nobody
_STATE = struct.Struct("<qqddd")
_DEATHS = {signal.SIGPROF: f"more than {MAX_CPU_S:.0f} s", signal.SIGALRM: f"waited more than {MAX_WAIT_S:.0f} s"}


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Mutants that one child tries.

    Args:
        kind: of `KINDS`.
        subject: what is damaged.
        numbers: which mutants, from a number to before another.
    """

    kind: str
    subject: Subject
    numbers: range


@dataclass(kw_only=True)
class Tally:
    """What came out for a kind.

    Args:
        tried: how many.
        held: how many of them ended as they should.
        slowest_s: the processor's time of the slowest one.
        peak_mb: the most memory of a child.
        grown_mb: the most that a child grew between its 50th mutant and its last.
    """

    tried: int = 0
    held: int = 0
    slowest_s: float = 0.0
    peak_mb: float = 0.0
    grown_mb: float = 0.0


class Shared:
    """Where a child stands, in memory that outlives it."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, _STATE.size)

    def write(self, number: int, held: int, slowest_s: float, early_mb: float, late_mb: float) -> None:
        """Is told before every mutant, and after the last."""
        _STATE.pack_into(self.map, 0, number, held, slowest_s, early_mb, late_mb)

    def read(self) -> tuple[int, int, float, float, float]:
        """Returns what was told last."""
        return _STATE.unpack_from(self.map)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How mutants are made and where failing ones are written.

    Args:
        seed: of all of them.
        failing: the folder.
        scratch: where children work.
    """

    seed: int
    failing: Path
    scratch: Path

    def mutant(self, subject: Subject, number: int) -> bytes:
        """Returns a mutant: always the same one."""
        rng = random.Random(f"{self.seed}/{subject.name}/{number}")
        return subject.mutate(rng, (subject.folder / subject.file).read_bytes())

    def note(self, chunk: Chunk, number: int, why: str) -> None:
        """Writes a failing mutant down."""
        self.failing.mkdir(parents=True, exist_ok=True)
        name = f"{chunk.subject.name}:{number}"
        file = self.failing / f"{chunk.kind}-{name.replace('/', '_').replace(' ', '_')}-{Path(chunk.subject.file).name}"
        file.write_bytes(self.mutant(chunk.subject, number))
        replay = f"python -m tools.survive {chunk.kind} --seed {self.seed} --only {shlex.quote(name)}"
        with (self.failing / "failing.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"why": why, "replay": replay, "file": file.name}) + "\n")
        print(f"{why} | {replay}", file=sys.stdout, flush=True)

    def start(self, chunk: Chunk, shared: Shared) -> int:
        """Forks a child that tries a chunk; returns its process id."""
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _try_and_leave(self, chunk, shared)
        return pid


def _try_and_leave(trial: Trial, chunk: Chunk, shared: Shared) -> NoReturn:
    """Tries a chunk's mutants in this process, and ends it."""
    try:
        for name in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(name, signal.SIG_DFL)  # ends the process also where a library's loop never comes back
        used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE_BYTES, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _try(trial, chunk, shared)
    except BaseException:
        traceback.print_exc(file=sys.__stdout__)
        os._exit(1)
    os._exit(0)


def _try(trial: Trial, chunk: Chunk, shared: Shared) -> None:
    folder = Path(tempfile.mkdtemp(dir=trial.scratch)) / "folder"
    words = os.open(folder.parent / "stderr", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(words, 2)
    shutil.copytree(chunk.subject.folder, folder)
    expected = ImageError if chunk.kind == "pictures" else VlinstructError
    held, slowest_s, early_mb, said = 0, 0.0, 0.0, 0
    for number in chunk.numbers:
        if number - chunk.numbers.start == 50:
            early_mb = _resident_mb()
        shared.write(number, held, slowest_s, early_mb, 0.0)
        (folder / chunk.subject.file).write_bytes(trial.mutant(chunk.subject, number))
        begun_s, peak = time.process_time(), _peak_bytes()
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)
        signal.setitimer(signal.ITIMER_REAL, MAX_WAIT_S)
        why = why_not(chunk.subject, folder, expected)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        slowest_s = max(slowest_s, time.process_time() - begun_s)
        if why is None and _peak_bytes() - peak > MAX_MORE_BYTES:
            why = f"{(_peak_bytes() - peak) >> 20} MB more memory"
        size = os.fstat(words).st_size
        if why is None and size > said:
            why = f"on stderr: {os.pread(words, 200, said).decode(errors='replace').strip()!r}"
        said = size
        if why is None:
            held += 1
        else:
            trial.note(chunk, number, why)
    shared.write(chunk.numbers.stop, held, slowest_s, early_mb or _resident_mb(), _resident_mb())
    shutil.rmtree(folder.parent)


def why_not(subject: Subject, folder: Path, expected: type[BaseException]) -> str | None:
    """Reads the folder; returns what went wrong."""
    try:
        subject.read(folder)
    except expected:
        return None
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/vlinstruct/" in frame.filename]
        place = (ours or frames)[-1]
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:160]!r}"
    return None


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE / 1e6


def chunks(kind: str, subjects: Sequence[Subject], mutants: int) -> Iterator[Chunk]:
    """Spreads mutants evenly over subjects; the n-th chunks of all of them come before any subject's next."""
    each = [range(mutants * n // len(subjects), mutants * (n + 1) // len(subjects)) for n in range(len(subjects))]
    for begin in range(0, max(map(len, each)), CHUNK):
        for subject, numbers in zip(subjects, each, strict=True):
            if begin < len(numbers):
                yield Chunk(kind=kind, subject=subject, numbers=range(begin, min(begin + CHUNK, len(numbers))))


def try_all(trial: Trial, waiting: deque[Chunk], until_s: float) -> Tally:
    """Tries chunks, two at a time, until none is left or time is up; what kills a child costs its mutant."""
    tally = Tally()
    running: dict[int, tuple[Chunk, Shared]] = {}
    while running or (waiting and time.monotonic() < until_s):
        while waiting and len(running) < NUM_PROCESSES and time.monotonic() < until_s:
            chunk, shared = waiting.popleft(), Shared()
            shared.write(chunk.numbers.start, 0, 0.0, 0.0, 0.0)
            running[trial.start(chunk, shared)] = chunk, shared
        pid, status, usage = os.wait4(-1, 0)
        if pid not in running:
            continue
        chunk, shared = running.pop(pid)
        number, held, slowest_s, early_mb, late_mb = shared.read()
        tally.held += held
        tally.slowest_s = max(tally.slowest_s, slowest_s)
        tally.peak_mb = max(tally.peak_mb, usage.ru_maxrss / 1e3)
        tally.grown_mb = max(tally.grown_mb, late_mb - early_mb)
        if status == 0:
            tally.tried += len(chunk.numbers)
            continue
        tally.tried += number + 1 - chunk.numbers.start
        code = os.waitstatus_to_exitcode(status)
        trial.note(chunk, number, _DEATHS.get(signal.Signals(-code), f"signal {-code}") if code < 0 else f"exit {code}")
        if rest := range(number + 1, chunk.numbers.stop):
            waiting.appendleft(Chunk(kind=chunk.kind, subject=chunk.subject, numbers=rest))
    return tally


def mutants_of(kind: str, trial: Trial, mutants: int, *, until_s: float, only: str | None = None) -> Tally:
    """Tries a kind's mutants."""
    root = trial.scratch / f"sound-{kind}"
    root.mkdir(parents=True)
    subjects = list(KINDS[kind](root))
    for subject in subjects:  # undamaged, everything can be read; what is imported late is imported here, once
        copy = trial.scratch / "sound-copy"
        shutil.copytree(subject.folder, copy)
        subject.read(copy)
        shutil.rmtree(copy)
    if only is not None:
        name, _, number = only.rpartition(":")
        (subject,) = (one for one in subjects if one.name == name)
        return try_all(
            trial, deque([Chunk(kind=kind, subject=subject, numbers=range(int(number), int(number) + 1))]), until_s
        )
    return try_all(trial, deque(chunks(kind, subjects, mutants)), until_s)


def main() -> int:
    """Tries what is asked for; returns 1 if anything does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*KINDS, "kills", "points", "resources"]
    parser.add_argument("kinds", nargs="*", metavar="|".join(names), default=[])
    parser.add_argument("--mutants", type=int, help="of each kind; all 250,000 in the shares of FULL if left out")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--every", type=int, default=1, help="of points: try every so manieth only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of each kind")
    parser.add_argument("--failing", type=Path, default=Path("failing"))
    parser.add_argument("--only", metavar="SUBJECT:K", help="one mutant, or one of the resources")
    asked = parser.parse_args()
    if unknown := set(asked.kinds) - set(names):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    is_good = True
    with tempfile.TemporaryDirectory() as scratch:
        trial = Trial(seed=asked.seed, failing=asked.failing, scratch=Path(scratch))
        for kind in asked.kinds or names:
            until_s = time.monotonic() + asked.seconds
            if kind == "resources":
                is_good &= survive_resources.main(Path(scratch), asked.only)
                continue
            if kind == "points":
                is_good &= crash_points.main(Path(scratch), asked.every)
                continue
            if kind == "kills":
                is_good &= survive_kills.main(Path(scratch), asked.kills, asked.seed, until_s)
                continue
            begun_s = time.monotonic()
            tally = mutants_of(kind, trial, asked.mutants or FULL[kind], until_s=until_s, only=asked.only)
            is_good &= tally.held == tally.tried
            figures = f"{tally.tried:,} | {tally.held:,} | {tally.slowest_s:.2f} s"
            memory = f"{tally.peak_mb:.0f} MB | {tally.grown_mb:+.0f} MB"
            print("\n| kind | tried | held | slowest | peak memory | grown in a child | in |")
            print("|---|---|---|---|---|---|---|")
            print(f"| {kind} | {figures} | {memory} | {time.monotonic() - begun_s:.0f} s |", flush=True)
    return int(not is_good)


if __name__ == "__main__":
    sys.exit(main())
