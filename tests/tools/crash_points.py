"""Every file operation of a training's saving fails once, or is the last thing that its process does.

PYTHONPATH=tests python -m tools.survive points [--every 10]

Each trial copies a folder, forks this warm process, runs `vlinstruct finetune --resume` in the child with one fault,
and resumes in another child without: the result has to have the bits of a training that nothing happened to.

kill    SIGKILL before the n-th operation
half    SIGKILL when half of what the n-th operation writes is written
ENOSPC  half of the n-th write is written; it and all that needs room is refused from then on
EROFS   from the n-th operation on, nothing may be changed
EIO     the n-th operation is refused

safetensors writes in Rust, where nothing can be counted: in its place stands what it does, with its own error (see
`Disk.save_file`; `test_crash_points` holds its error against that of the real one).
"""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import json
import os
import secrets
import select
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import tiny_models
import torch
from command_line import assert_is_error_line, vli
from training.training_set import result, write_data

from vlinstruct.training.state import newest_state

NUM_STEPS = 5
SETTINGS = ["--learning-rate", "0.01", "--warmup-steps", "2", "--num-train-epochs", "4", "--max-steps", NUM_STEPS]
SETTINGS += ["--per-device-train-batch-size", "1", "--gradient-accumulation-steps", "2", "--save-steps", "1"]
SETTINGS += ["--eval-steps", "3", "--lora", "--lora-r", "2", "--lora-dropout", "0.3", "--learned-cmaa"]
SETTINGS += ["--device", "cpu", "--resume"]
KILLS, REFUSALS = ("kill", "half"), ("ENOSPC", "EROFS", "EIO")
OPERATIONS = ("fsync", "rename", "replace", "chmod", "unlink", "rmdir", "mkdir")
NEED_ROOM = ("open", "write", "mkdir")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens.

    Args:
        kind: see above.
        at: to which operation, from 0.
    """

    kind: str
    at: int


class Disk:
    """Stands between Python and a folder: counts the operations that change something, and makes one fail.

    Args:
        folder: which.
        fault: what happens; None only counts.
    """

    def __init__(self, folder: Path, fault: Fault | None) -> None:
        self.folder, self.fault = str(folder), fault
        self.done: list[str] = []
        self.descriptors: set[int] = set()
        self.os_open, self.os_write, self.open = os.open, os.write, builtins.open

    def install(self) -> None:
        """Replaces the operations in this process, for as long as it lives."""
        import safetensors.torch

        for name in OPERATIONS:
            setattr(os, name, self._watched(name, getattr(os, name)))
        os.open, os.write = self._os_open, self._os_write  # type: ignore[assignment]
        builtins.open = io.open = self._open  # type: ignore[assignment]
        safetensors.torch.save_file = self.save_file  # type: ignore[assignment]

    def comes(self, name: str, where: object, *, length: int = 0) -> int:
        """Is told of an operation before it is done.

        Returns:
            How many bytes of `length` the system takes.
        """
        number = len(self.done)
        self.done.append(f"{name} {where.removeprefix(self.folder + os.sep)}" if isinstance(where, str) else name)
        if self.fault is None or number < self.fault.at:
            return length
        if self.fault.kind in KILLS:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._refuses(name, where, number == self.fault.at, length)

    def _refuses(self, name: str, where: object, is_first: bool, length: int) -> int:
        assert self.fault is not None
        is_full = self.fault.kind == "ENOSPC"
        if is_full and is_first and length > 1:
            return length // 2
        if is_first or (is_full and name in NEED_ROOM) or (self.fault.kind == "EROFS" and name != "fsync"):
            number = getattr(errno, self.fault.kind)
            raise OSError(number, os.strerror(number), where if isinstance(where, str) else None)
        return length

    def write(self, where: str, data: bytes, write: Callable[[bytes], int]) -> int:
        """Writes what the system takes of some bytes; where they are the last ones, ends the process."""
        is_last = self.fault is not None and self.fault.at == len(self.done) and self.fault.kind in KILLS
        if is_last and self.fault is not None and self.fault.kind == "half":
            write(data[: len(data) // 2])
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(data[: self.comes("write", where, length=len(data))])

    def save_file(
        self, values: dict[str, torch.Tensor], filename: str | Path, metadata: dict[str, str] | None = None
    ) -> None:
        """Does what safetensors 0.8 does: a temporary neighbour of mode 0600, one write, a rename; no fsync."""
        from safetensors import SafetensorError
        from safetensors.torch import save

        data = save(values, metadata)
        temporary = Path(filename).with_name(f".tmp{secrets.token_hex(3)}")
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
                os.rename(temporary, filename)
            finally:
                os.close(descriptor)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            what = f"Error while serializing: I/O error: {error.strerror} (os error {error.errno})"
            raise SafetensorError(what) from None

    def _concerns(self, where: object, dir_fd: int | None = None) -> bool:
        if dir_fd is not None or isinstance(where, int):
            return (where if dir_fd is None else dir_fd) in self.descriptors
        return os.fspath(where).startswith(self.folder)  # type: ignore[call-overload,no-any-return]

    def _watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def operation(where: Any, *rest: Any, **more: Any) -> Any:
            if self._concerns(where, more.get("dir_fd")):
                self.comes(name, where if isinstance(where, int) else os.fspath(where))
            return original(where, *rest, **more)

        return operation

    def _os_open(self, where: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        is_ours = self._concerns(where, dir_fd)
        if is_ours and flags & (os.O_WRONLY | os.O_RDWR):
            self.comes("open", os.fspath(where))
        descriptor = self.os_open(where, flags, mode, dir_fd=dir_fd)
        (self.descriptors.add if is_ours else self.descriptors.discard)(descriptor)
        return descriptor

    def _os_write(self, descriptor: int, data: bytes) -> int:
        if descriptor not in self.descriptors:
            return self.os_write(descriptor, data)
        return self.write(f"{self.folder}/a file of safetensors", data, lambda part: self.os_write(descriptor, part))

    def _open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        **rest: Any,
    ) -> IO[Any]:
        if isinstance(file, int) or not self._concerns(file) or not set(mode) & set("wax+"):
            return self.open(file, mode, buffering, encoding, errors, newline, **rest)
        self.comes("open", os.fspath(file))
        raw = WatchedFile(os.fspath(file), mode.replace("b", "").replace("t", ""), self)
        self.descriptors.add(raw.fileno())
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


class WatchedFile(io.FileIO):
    """A file whose writes, as they come out of Python's buffers, are counted."""

    def __init__(self, path: str, mode: str, disk: Disk) -> None:
        super().__init__(path, mode)
        self.path, self.disk = path, disk

    def write(self, data: Any) -> int:
        """Writes what the system takes."""
        return self.disk.write(self.path, bytes(data), super().write)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child ended.

    Args:
        is_killed: by the fault.
        exit_code: the command's.
        lines: what it said on stderr but for progress and notices.
        notices: its notices.
        operations: what it did to the folder.
        stdout: what it printed.
    """

    is_killed: bool = False
    exit_code: int = 0
    stdout: str = ""
    lines: Sequence[str] = ()
    notices: Sequence[str] = ()
    operations: Sequence[str] = ()


def in_child(
    command: Sequence[object],
    folder: Path,
    fault: Fault | None = None,
    *,
    kill_after_s: float | None = None,
    pressure: Callable[[], object] = lambda: None,
) -> Ended:
    """Runs a command in a fork of this process.

    Args:
        command: what is typed after `vlinstruct`.
        folder: whose operations are counted, and where the fault happens.
        fault: what happens there.
        kill_after_s: when it gets a SIGKILL, if it has not ended before.
        pressure: is called in the child first; it takes something away.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _run_and_leave(command, Disk(folder, fault), writing, pressure)
    os.close(writing)
    with open(reading, "rb") as stream:
        if kill_after_s is not None and not select.select([stream], [], [], kill_after_s)[0]:
            os.kill(pid, signal.SIGKILL)
        told = stream.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return Ended(is_killed=True)
    if not told:  # a library ended the process
        return Ended(exit_code=os.waitstatus_to_exitcode(status), lines=["it left without a word"])
    return Ended(**json.loads(told))


def _run_and_leave(command: Sequence[object], disk: Disk, writing: int, pressure: Callable[[], object]) -> NoReturn:
    try:
        disk.install()
        pressure()
        ended = vli(*command)
        lines = [line for line in ended.lines if not line.startswith(("progress: ", "notice: "))]
        notices = [line for line in ended.lines if line.startswith("notice: ")]
        told = {"exit_code": ended.exit_code, "lines": lines, "notices": notices, "operations": disk.done}
        told |= {"stdout": ended.stdout.decode()}
        with disk.open(writing, "wb") as stream:
            stream.write(json.dumps(told).encode())
    finally:
        os._exit(0)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Operations that are tried one after the other.

    Args:
        name: what happens there.
        begin: the folder as it was before.
        operations: all that follow from there to the end.
        length: how many of them are tried.
    """

    name: str
    begin: Path
    operations: Sequence[str]
    length: int

    def faults(self, kinds: Sequence[str], every: int) -> list[Fault]:
        """Returns every so manieth of all faults of some kinds."""
        tried = list(enumerate(self.operations[: self.length]))
        befalls: Mapping[str, Callable[[str], bool]] = {
            "kill": lambda operation: True,
            "half": lambda operation: operation == "write",
            "ENOSPC": lambda operation: operation in NEED_ROOM,
            "EROFS": lambda operation: operation != "fsync",
            "EIO": lambda operation: True,
        }
        every_one = [
            Fault(kind=kind, at=at)
            for kind in kinds
            for at, operation in tried
            if befalls[kind](operation.partition(" ")[0])
        ]
        return every_one[every // 2 :: every]


class Trials:
    """The trials of a backbone.

    Args:
        root: where everything lies.
        backbone: its folder.
    """

    def __init__(self, root: Path, backbone: Path) -> None:
        self.root = root
        data = write_data(root / "data")
        lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
        (root / "data" / "eval.jsonl").write_text("".join(lines[:3]), encoding="utf-8")
        self.folder = root / "adapter"  # of all trials: the card names it
        files = ["--data", data, "--eval-data", root / "data" / "eval.jsonl", "-o", self.folder]
        self.command = ["finetune", *files, "--backbone", backbone, *SETTINGS]
        self._warm()
        self.operations = self._run_whole()

    def _warm(self) -> None:
        for module in ("peft", "matplotlib.figure", "matplotlib.backends.backend_agg"):
            importlib.import_module(module)
        assert vli(*self.command, "--dry-run").exit_code == 0

    def _run_whole(self) -> Sequence[str]:
        ended = in_child(self.command, self.folder)
        assert ended.exit_code == 0, ended.lines
        self.whole = content(self.folder)
        return ended.operations

    def windows(self) -> list[Window]:
        """Returns what is tried: the first save, the last one with all that ends a training, and a cut log."""
        first_log, *_, last_log = (n for n, one in enumerate(self.operations) if one == "write log.jsonl")
        second_log = self.operations.index("write log.jsonl", first_log + 1)
        begin = self.root / "empty"
        begin.mkdir()
        pruning = [n for n, one in enumerate(self.operations) if one.startswith("rename checkpoints/step-")][-2]
        before_last = self._killed_at(begin, pruning + 1, "before-last")
        final = max(n for n, one in enumerate(self.operations) if one.startswith("rename checkpoints/.tmp-step-"))
        assert final > last_log
        unsaved = self._killed_at(begin, final, "unsaved")
        last = self._operations_from(before_last)
        cut = self._operations_from(unsaved)
        return [
            Window(name="the first save", begin=begin, operations=self.operations, length=second_log),
            Window(name="the last save and the end", begin=before_last, operations=last, length=len(last)),
            Window(name="a log that is ahead", begin=unsaved, operations=cut, length=cut.index("write log.jsonl")),
        ]

    def _killed_at(self, begin: Path, at: int, name: str) -> Path:
        self._copy(begin, self.folder)
        assert in_child(self.command, self.folder, Fault(kind="kill", at=at)).is_killed
        self._copy(self.folder, self.root / name)
        return self.root / name

    def _operations_from(self, begin: Path) -> Sequence[str]:
        self._copy(begin, self.folder)
        ended = in_child(self.command, self.folder)
        assert ended.exit_code == 0, ended.lines
        return ended.operations

    def problems(self, window: Window, fault: Fault) -> list[str]:
        """Returns what is not as it should be after a fault, and after a resume."""
        self._copy(window.begin, self.folder)
        before = saved_step(self.folder)
        ended = in_child(self.command, self.folder, fault)
        found = [] if fault.kind in KILLS else refusal_problems(ended, window.operations[fault.at])
        if fault.kind in KILLS and not ended.is_killed:
            found.append("it was not killed")
        if saved_step(self.folder) < before:
            found.append("the newest checkpoint is lost")
        resumed = in_child(self.command, self.folder)
        if resumed.exit_code != 0:
            return [*found, f"it does not resume: {resumed.lines}"]
        found += [notice for notice in resumed.notices if "damaged" in notice]
        now = content(self.folder)
        return [*found, *(f"{name} differs" for name in {*self.whole, *now} if self.whole.get(name) != now.get(name))]

    def _copy(self, source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)


def refusal_problems(ended: Ended, operation: str) -> list[str]:
    """Returns what is wrong with how a command took a refusal: exit code 6 and one clear line."""
    if ended.exit_code == 0 and operation.startswith("mkdir "):  # of a folder that is there
        return []
    if ended.exit_code != 6 or len(ended.lines) != 1:
        return [f"exit code {ended.exit_code}: {' / '.join(ended.lines)}"]
    try:
        assert_is_error_line(ended.lines[0])
    except AssertionError:
        return [f"not a clear line: {ended.lines[0]}"]
    return []


def saved_step(folder: Path) -> int:
    """Returns which update the newest checkpoint that is whole was saved after; 0 for none."""
    state, _ = newest_state(folder / "checkpoints")
    return 0 if state is None else state.step


def content(folder: Path) -> dict[str, bytes]:
    """Returns what must be the same: the bits, and that nothing else lies in the folder but older checkpoints.

    One more of these is left where a process dies in the last save of all, before it removes the oldest.
    """
    older = sorted((folder / "checkpoints").glob("step-*"))[:-1]
    paths = [path for path in folder.rglob("*") if not any(path.is_relative_to(one) for one in older)]
    names = sorted(str(path.relative_to(folder)) for path in paths)
    return {**result(folder), "names of all files": "\n".join(names).encode()}


def try_window(trials: Trials, window: Window, faults: Sequence[Fault]) -> int:
    """Tries faults and prints a line for each kind, and for each problem; returns how many there were."""
    points: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for fault in faults:
        points[fault.kind] += 1
        problems = trials.problems(window, fault)
        wrong[fault.kind] += bool(problems)
        for problem in problems:
            print(f"  {fault.kind} at {fault.at}, {window.operations[fault.at]}: {problem}", flush=True)
    for kind in points:
        print(f"| {window.name} | {kind} | {points[kind]} | {points[kind] - wrong[kind]} |", flush=True)
    return wrong.total()


def main(scratch: Path, every: int) -> bool:
    """Tries every so manieth fault and prints a row for each kind; returns whether all is as it should be."""
    root = scratch / "points"
    root.mkdir()
    backbone = root / "t5"
    tiny_models.write_folder("t5", backbone)
    trials = Trials(root, backbone)
    print("\n| operations of | fault | tried | the same bits |\n|---|---|---|---|", flush=True)
    kinds = [*KILLS, *REFUSALS]
    return sum(try_window(trials, window, window.faults(kinds, every)) for window in trials.windows()) == 0
