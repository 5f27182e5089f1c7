"""Takes away what the six commands need, one thing at a time, and types them again when it is back.

Without it a command ends well, or with exit code 6 and one clear line (items that could not be read: 3 or 4). With it
again it goes on, and what it leaves is what it leaves undisturbed: the same content, no other file.

full disk          a write is done by half; all that needs room is refused from then on
failing rename     one of its renames is refused
no write at all    from an operation on nothing may be changed (EROFS)
few open files     RLIMIT_NOFILE, 0 to 12 more than are open
little memory      RLIMIT_AS, 2 to 128 MB more than is there; a library may end the process then, which is counted
clock              every look at it jumps by years, back and forth; and files are of the future when it goes on
terminal           a real one that vanishes at a random instant; every second time SIGHUP is ignored (nohup)
locale C, no HOME  a process of its own, without PYTHONUTF8, or without HOME and any cache of the hub
read-only folder   its output's, for a user who is not root
"""

from __future__ import annotations

import itertools
import os
import pty
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from vlinstruct.cli.main import run_command

from .crash_points import Ended, in_child, refusal_problems
from .survive_commands import Command, commands

YEAR_S = 365 * 24 * 3600.0
NOBODY = 65534
_PAGE_BYTES = resource.getpagesize()

Trials = Iterator[tuple[str, Ended]]
"""What was done, and how the command ended."""


def main(scratch: Path, only: str | None = None) -> bool:
    """Tries everything and prints a row for each resource; returns whether all held."""
    root = scratch / "resources"
    root.mkdir()
    scratch.chmod(0o755)  # somebody else than root has to get in
    tried = commands(root)
    is_good = True
    print("\n| without | trials | held | of these ended well | ended by a library | in |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, takes in PRESSURES.items():
        if only is not None and name != only:
            continue
        begun_s, tally = time.monotonic(), Counter[str]()
        for command in tried:
            for what, ended in trials(command, takes):
                problems = problems_of(command, ended)
                tally["trials"] += 1
                tally["ended well"] += ended.exit_code == 0 and not ended.is_killed
                tally["ended by a library"] += ended.exit_code == -signal.SIGABRT
                tally["held"] += not problems
                for problem in problems:
                    print(f"  {name}, {command.name}, {what}: {problem}", flush=True)
        is_good &= tally["held"] == tally["trials"]
        figures = f"{tally['trials']} | {tally['held']} | {tally['ended well']} | {tally['ended by a library']}"
        print(f"| {name} | {figures} | {time.monotonic() - begun_s:.0f} s |", flush=True)
    return is_good


def trials(command: Command, takes: Callable[[Command, random.Random], Trials]) -> Trials:
    """Yields a resource's trials of a command, each from an empty folder."""
    assert command.undisturbed.ended.exit_code == 0
    command.clear()
    for trial in takes(command, random.Random(command.name)):
        yield trial
        command.clear()


def problems_of(command: Command, ended: Ended) -> list[str]:
    """Returns what is wrong with how a command ended, and with what it ends with when it is typed again."""
    found = []
    is_batch = ended.exit_code in (3, 4) and len(ended.lines) == 1 and "items failed" in ended.lines[0]
    is_library = ended.exit_code == -signal.SIGABRT  # Rust's, where memory ends: tokenizers, safetensors
    if not ended.is_killed and ended.exit_code != 0 and not is_batch and not is_library:
        found += refusal_problems(ended, "")
    return found + command.differences(in_child(command.line, command.folder), in_any_order=ended.exit_code in (3, 4))


def _faults(kind: str, shares: tuple[float, ...]) -> Callable[[Command, random.Random], Trials]:
    def takes(command: Command, rng: random.Random) -> Trials:
        for share in shares:
            if fault := command.undisturbed.fault(kind, share):
                yield f"operation {fault.at}", in_child(command.line, command.folder, fault)

    return takes


def _few_files(command: Command, rng: random.Random) -> Trials:
    for more in (0, 1, 2, 4, 8, 12):

        def limit(more: int = more) -> None:
            used = {int(name) for name in os.listdir("/proc/self/fd")}
            free = (number for number in itertools.count() if number not in used)
            resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, more, None)), 4096))

        yield f"{more} more files", in_child(command.line, command.folder, pressure=limit)


def _little_memory(command: Command, rng: random.Random) -> Trials:
    for more in (2, 8, 32, 64, 128):

        def limit(more: int = more) -> None:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (used + more * 2**20, resource.RLIM_INFINITY))

        yield f"{more} MB more", in_child(command.line, command.folder, pressure=limit)


def _clock(command: Command, rng: random.Random) -> Trials:
    real = time.time

    def jump() -> None:
        time.time = lambda: real() + rng.uniform(-30 * YEAR_S, 30 * YEAR_S)
        time.time_ns = lambda: int(time.time() * 1e9)

    yield "a clock that jumps", in_child(command.line, command.folder, pressure=jump)
    command.clear()
    in_child(command.line, command.folder, kill_after_s=rng.uniform(0.3, 0.9) * command.undisturbed.seconds)
    for path in [*command.folder.rglob("*"), command.folder]:
        os.utime(path, (real() + 50 * YEAR_S,) * 2)
    yield "files of the future", in_child(command.line, command.folder, pressure=jump)


def _terminal(command: Command, rng: random.Random) -> Trials:
    for is_ignored in (False, True):
        pid, terminal = pty.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
                os._exit(run_command([str(word) for word in command.line]))
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0.1, 0.9) * command.undisturbed.seconds)
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGHUP and not is_ignored:
            yield "SIGHUP", Ended(is_killed=True)
        elif code in (0, 6):  # 6: what it prints is its result, and nobody takes it
            yield "nohup" if is_ignored else "SIGHUP", Ended()
        else:
            yield "nohup" if is_ignored else "SIGHUP", Ended(exit_code=code, lines=["(nobody hears it)"])


def _cold(remove: tuple[str, ...], add: Mapping[str, str]) -> Callable[[Command, random.Random], Trials]:
    def takes(command: Command, rng: random.Random) -> Trials:
        environment = {name: value for name, value in os.environ.items() if name not in remove} | add
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        line = [sys.executable, "-m", "vlinstruct", *map(str, command.line)]
        done = subprocess.run(line, env=environment, capture_output=True, stdin=subprocess.DEVNULL)
        said = done.stderr.decode(errors="replace").splitlines()
        lines = [line for line in said if not line.startswith(("progress: ", "notice: ", "done: "))]
        if done.returncode == 0 and lines:
            yield "it said", Ended(exit_code=1, lines=lines)
        else:
            yield "", Ended(exit_code=done.returncode, lines=lines, stdout=done.stdout.decode())

    return takes


def _read_only(command: Command, rng: random.Random) -> Trials:
    def become_nobody() -> None:
        if os.geteuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    command.folder.chmod(0o555)
    yield "an empty folder", in_child(command.line, command.folder, pressure=become_nobody)
    command.folder.chmod(0o755)
    command.clear()
    if fault := command.undisturbed.fault("kill", 0.5):
        in_child(command.line, command.folder, fault)
        for path in [*command.folder.rglob("*"), command.folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield "a run killed in the middle", in_child(command.line, command.folder, pressure=become_nobody)
        for path in [command.folder, *command.folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


PRESSURES: Mapping[str, Callable[[Command, random.Random], Trials]] = {
    "room on the disk": _faults("ENOSPC", (0.0, 0.3, 0.6, 0.99)),
    "a rename": _faults("rename", (0.0, 0.5, 0.99)),
    "writing": _faults("EROFS", (0.0, 0.3, 0.6, 0.99)),
    "open files": _few_files,
    "memory": _little_memory,
    "a steady clock": _clock,
    "a terminal": _terminal,
    "a locale": _cold(("LANG", "LC_CTYPE"), {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "HOME": _cold(("HOME", "HF_HOME", "XDG_CACHE_HOME"), {}),
    "permission to write": _read_only,
}
