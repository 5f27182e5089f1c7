"""The `vlinstruct` command: its subcommands, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from vlinstruct.cli.ask import ask
from vlinstruct.cli.backbones import backbones
from vlinstruct.cli.optimize import optimize
from vlinstruct.cli.score import score
from vlinstruct.cli.terminal import PipeClosed, say
from vlinstruct.errors import ResourceError, VlinstructError

app = typer.Typer(
    name="vlinstruct",
    help="Multi-modal language models answer better, without better prompts from you.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: importing rich would double its time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (ask, optimize, score, backbones):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from vlinstruct import __version__

        print(f"vlinstruct {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


class _Stopped(BaseException):
    """A signal asked us to stop; no `except Exception` on the way may swallow it."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(128 + number)


def main() -> None:
    """Runs the command line and exits: 0 ok, 1 our bug, 2 usage, 3 some items failed, 4 input, 5 model, 6 resources,
    8 output in use, 9 network, 130 Ctrl-C, 143 SIGTERM."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except _Stopped as stopped:
        return stopped.exit_code
    except (PipeClosed, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in stdout's buffer goes nowhere
        return 141
    except Exception as error:
        return _report(error)


def _report(error: Exception) -> int:
    if "--debug" in sys.argv or os.environ.get("VLINSTRUCT_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, VlinstructError):
        say("error", error.message)
        return error.exit_code
    if hasattr(error, "format_message"):  # Typer's usage errors; their classes are vendored and private
        return _report_usage(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        say("error", "out of memory. Use a smaller --backbone or --batch-size.")
        return ResourceError.exit_code
    if isinstance(error, OSError):
        say("error", f"cannot write output: {os.strerror(error.errno or 0)}. Free some space or check the terminal.")
        return ResourceError.exit_code
    say("error", f"this is a bug of ours: {type(error).__name__}: {error}. Run again with --debug and report it.")
    return 1


def _report_usage(error: Exception) -> int:
    message = str(error.format_message())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if context is not None:
        print(context.get_usage(), file=sys.stderr)
    if message.startswith("No such option"):
        message += " Text that begins with '-' goes after '--'."
    say("error", message)
    return int(getattr(error, "exit_code", 2))
