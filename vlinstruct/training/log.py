"""The training's log: one JSON line per update, without clocks: a resumed run's equals an uninterrupted one's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vlinstruct.errors import ResourceError
from vlinstruct.files import written_atomically


class Log:
    """Appends lines; use it as a context manager.

    Args:
        path: the file; None writes nothing, on processes that are not the main one.
        last_step: what the file says of later updates, and half a line, is dropped.
        last_validation: and of validations after later updates than this.
    """

    def __init__(self, path: Path | None, *, last_step: int, last_validation: int) -> None:
        self.path = path
        if path is not None and path.exists():
            _cut(path, last_step, last_validation)
        self.file = open(os.devnull if path is None else path, "ab")  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.file.close()

    def write(self, record: dict[str, Any]) -> None:
        """Appends a line.

        Raises:
            ResourceError: the disk is full.
        """
        try:
            self.file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            self.file.flush()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise ResourceError.at("cannot write", str(self.path), why, "Free some space, then --resume") from error

    def sync(self) -> None:
        """Brings it to the disk, before the checkpoint that counts on it."""
        os.fsync(self.file.fileno())


def read_losses(path: Path) -> tuple[float | None, ...]:
    """Returns the loss of every update in a log, None of one that was left out; nothing where there is no log."""
    if not path.exists():
        return ()
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return tuple(record["loss"] for record in records if "loss" in record)


def _cut(path: Path, last_step: int, last_validation: int) -> None:
    kept = b"".join(
        line
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n") and _counts(json.loads(line), last_step, last_validation)
    )
    if kept != path.read_bytes():
        with written_atomically(path) as temporary:
            temporary.write_bytes(kept)


def _counts(record: dict[str, Any], last_step: int, last_validation: int) -> bool:
    return bool(record["step"] <= (last_validation if "eval_loss" in record else last_step))
