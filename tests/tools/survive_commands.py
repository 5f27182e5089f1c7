"""The six commands that `survive` kills and starves, on tiny models, and what they leave where nothing happens."""

from __future__ import annotations

import importlib
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import lavis_files
import tiny_models
from picture_fixtures import make_picture
from training.training_set import write_data

from . import crash_points
from .crash_points import Ended, Fault, in_child

NUM_PICTURES = 4
TRAINING = ["--learning-rate", "0.01", "--max-steps", 3, "--per-device-train-batch-size", 1, "--save-steps", 1]
TRAINING += ["--lora", "--lora-r", 2, "--lora-dropout", "0.3", "--learned-cmaa", "--resume", "--device", "cpu"]
# Of an evaluation: in its results, in its page, and at the end of a line of a table in Markdown. What was killed before
# it was noted is null or `-`.
_TIMES = re.compile(
    rb'"seconds_per_item": (?:null|[0-9.e-]+)|(?<=class="number time">)[^<]*|(?<= \| )[0-9.-]+(?= \|$)', re.M
)
_NOT_COMPARED = "times.jsonl"  # by evaluate: how long every chunk took
_LATE_IMPORTS = ("peft", "matplotlib.figure", "matplotlib.backends.backend_agg", "vlinstruct.batch")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line that is run again and again.

    Args:
        name: what it is called.
        line: what is typed after `vlinstruct`; typed again, it goes on.
        folder: where its output lies, in every run: records name it.
    """

    name: str
    line: Sequence[object]
    folder: Path

    @cached_property
    def undisturbed(self) -> Undisturbed:
        """Runs it once and keeps what it leaves."""
        self.clear()
        begun_s = time.monotonic()
        ended = in_child(self.line, self.folder)
        assert ended.exit_code == 0, ended.lines
        seconds = time.monotonic() - begun_s
        return Undisturbed(seconds=seconds, ended=ended, content=self.content(), records=self.records())

    def clear(self) -> None:
        """Makes the folder empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def content(self) -> Mapping[str, bytes]:
        """Returns everything that has to come out the same, and which files there are."""
        if self.name == "finetune":
            return crash_points.content(self.folder / "out")
        paths = sorted(self.folder.rglob("*"))
        content = {"names of all files": "\n".join(str(path.relative_to(self.folder)) for path in paths).encode()}
        for path in paths:
            if path.is_file() and path.name != _NOT_COMPARED:
                content[str(path.relative_to(self.folder))] = _TIMES.sub(b"", path.read_bytes())
        return content

    def records(self) -> Sequence[bytes]:
        """Returns the whole lines of the records that it has written until now."""
        files = [*self.folder.glob("out.jsonl"), *self.folder.glob("out/records.jsonl")]
        return [line for file in files for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    def differences(self, ended: Ended, *, in_any_order: bool = False) -> list[str]:
        """Returns what is not as it would be if nothing had happened, after a run that should have gone to the end."""
        if ended.is_killed or ended.exit_code != 0:
            return [f"it ended with {ended.exit_code}: {' / '.join(ended.lines)}"]
        expected, found = self.undisturbed.content, self.content()
        if in_any_order:  # items that failed are tried again, and stand last then
            expected, found = (
                {n: b"".join(sorted(c.splitlines(True))) for n, c in x.items()} for x in (expected, found)
            )
        differing = [f"{name} differs" for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
        if not self.undisturbed.records and ended.stdout != self.undisturbed.ended.stdout:
            differing.append("what it printed differs")
        return differing


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """What a command leaves that nothing happens to.

    Args:
        seconds: how long it takes.
        ended: how it ends.
        content: what it leaves.
        records: the lines of its records.
    """

    seconds: float
    ended: Ended
    content: Mapping[str, bytes]
    records: Sequence[bytes]

    def fault(self, kind: str, where: float) -> Fault | None:
        """Returns a fault at a share (0 to 1) of all operations that it can befall; None if it can befall none."""
        needed = {"ENOSPC": crash_points.NEED_ROOM, "half": ("write",), "rename": ("rename", "replace")}.get(kind)
        numbers = [
            number
            for number, operation in enumerate(self.ended.operations)
            if needed is None or operation.partition(" ")[0] in needed
        ]
        if not numbers:
            return None
        return Fault(kind="EIO" if kind == "rename" else kind, at=numbers[int(where * len(numbers))])


def commands(root: Path) -> list[Command]:
    """Writes what the commands read, and returns them; what is imported late is imported here, for all forks."""
    for module in _LATE_IMPORTS:
        importlib.import_module(module)
    backbone = root / "backbone"
    tiny_models.write_folder("t5", backbone)
    pictures = root / "pictures"
    pictures.mkdir()
    for number in range(NUM_PICTURES):
        make_picture(20, 20, number).save(pictures / f"{number}.png")
    made = lavis_files.write("t5", root / "lavis")
    model = ["--backbone", backbone, "--device", "cpu"]
    data = write_data(root / "data")
    output = root / "output"
    words = "what is it?"
    lines: Mapping[str, Sequence[object]] = {
        "ask": ["ask", pictures, words, "-o", output / "out.jsonl", *model, "--max-new-tokens", 4, "--batch-size", 1],
        "optimize": ["optimize", words, pictures, "-o", output / "out.jsonl", *model, "--batch-size", 1],
        "optimize --shared": ["optimize", words, pictures, "--shared", "--json", *model],
        "evaluate": ["evaluate", "mini/vsr", "--limit", 2, "-o", output / "out", *model],
        "finetune": ["finetune", "--data", data, "--backbone", backbone, "-o", output / "out", *TRAINING],
        "convert": ["convert", *made.arguments, "-o", output / "out", "--force"],
    }
    return [Command(name=name, line=line, folder=output) for name, line in lines.items()]
