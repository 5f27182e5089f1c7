"""Runs `vlinstruct` in this process: a process of its own would cost an import of torch each."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from vlinstruct.cli.main import main, run_command


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command left."""

    exit_code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """What a successful command printed."""
        assert self.exit_code == 0, self.stderr
        return self.stdout.decode()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON lines of stdout; also those of a batch with failed items."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def lines(self) -> list[str]:
        """What was said on stderr."""
        return self.stderr.splitlines()

    def refusal(self, exit_code: int, *, stdout: bytes = b"") -> str:
        """Checks the contract of a command that failed, and returns its line."""
        assert self.exit_code == exit_code, self.stderr
        assert self.stdout == stdout
        (line,) = [line for line in self.lines if not line.startswith("notice: ")]
        assert_is_error_line(line)
        return line


MEMORY_ADDRESS = re.compile(r"\b0x[0-9a-f]{4,}")


def assert_is_error_line(line: str) -> None:
    """The contract of every error: one short printable line, no traceback, no address."""
    assert line.startswith("error: ")
    assert len(line) <= 300
    assert line.isprintable()
    assert not MEMORY_ADDRESS.search(line)
    assert "Traceback" not in line


class _Stream(io.TextIOWrapper):
    def __init__(self, content: bytes = b"", *, is_terminal: bool = False, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(content), encoding=encoding, newline="\n", write_through=True)
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def content(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[attr-defined]


@contextmanager
def _replaced(**streams: _Stream) -> Iterator[None]:
    before = {name: getattr(sys, name) for name in streams}
    try:
        for name, stream in streams.items():
            setattr(sys, name, stream)
        yield
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)


def vli(
    *arguments: object, stdin: bytes = b"", is_terminal: bool = False, columns: int = 1000, encoding: str = "utf-8"
) -> Result:
    """Runs a command line.

    Args:
        *arguments: what is typed after `vlinstruct`.
        stdin: what is piped in.
        is_terminal: whether stdout and stderr are a terminal.
        columns: how wide it is.
        encoding: of stdout and stderr.
    """
    stdout, stderr = (_Stream(is_terminal=is_terminal, encoding=encoding) for _ in range(2))
    with _replaced(stdin=_Stream(stdin), stdout=stdout, stderr=stderr), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        exit_code = run_command([str(argument) for argument in arguments])
    return Result(exit_code=exit_code, stdout=stdout.content(), stderr=stderr.content().decode(encoding))


def exit_code_of_main() -> object:
    """Runs the whole program on `sys.argv`, its handlers of signals included, and puts back those that were there."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    try:
        main()
    except SystemExit as ended:
        return ended.code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return None
