"""The `vlinstruct` command: its subcommands, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from types import FrameType
from typing import Annotated, TextIO

import typer

from vlinstruct.cli.ask import ask
from vlinstruct.cli.backbones import backbones
from vlinstruct.cli.bench import bench
from vlinstruct.cli.chat import chat
from vlinstruct.cli.command import Command
from vlinstruct.cli.convert import convert
from vlinstruct.cli.doctor import doctor
from vlinstruct.cli.evaluate import evaluate
from vlinstruct.cli.finetune import finetune
from vlinstruct.cli.lmms_tasks import lmms_tasks
from vlinstruct.cli.optimize import optimize
from vlinstruct.cli.score import score
from vlinstruct.cli.serve import serve
from vlinstruct.cli.terminal import Stopped, say, say_farewell
from vlinstruct.cli.tune import tune
from vlinstruct.errors import ResourceError, VlinstructError, is_out_of_files, is_out_of_memory

app = typer.Typer(
    name="vlinstruct",
    help="Ask vision-language models, and let them improve your words where these make them unsure of the answer.",
    rich_markup_mode=None,  # plain help: importing rich would double its time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


COMMANDS = (ask, optimize, finetune, score, chat, tune, evaluate, serve, backbones, convert, doctor, bench, lmms_tasks)

for command in COMMANDS:
    app.command(cls=Command)(command)


_FIRST_STEPS = {
    'vlinstruct ask picture.png "what is written?"': "a question about a picture",
    # tests/tools/README.md#the-first-example: of mini, on pictures of its own.
    'vlinstruct ask -O picture.png "is the star rigth of teh ring ?"': "mini is right 73 times in 100, without -O 43",
    'vlinstruct optimize "describe this" picture.png': "what becomes of the words, and why",
    'vlinstruct ask pictures/ "what is it?" -o answers.csv': "many pictures, resumed where it stopped",
}
_MOST_COLUMNS = 80  # of help
# What other tools call it, where the letters are too far from ours for a guess by likeness.
_MEANT = {
    **dict.fromkeys(("model", "model-name", "checkpoint"), "--backbone"),
    **dict.fromkeys(("gpu", "cuda", "cpu"), "--device"),
    **dict.fromkeys(("out", "format", "csv", "save"), "-o answers.csv"),
    "api-key": "$VLINSTRUCT_API_KEY",
    "train": "finetune",
    "help": "--help",
    "version": "--version",
    "predict": "ask",
}
_UNKNOWN = re.compile(r"(No such (?:option|command):? '?([\w-]+)'?)")


def _first_steps(columns: int) -> str:
    """Returns the examples with what they do behind them, or below where the terminal is too narrow for that."""
    width = max(map(len, _FIRST_STEPS)) + 2
    if width + max(map(len, _FIRST_STEPS.values())) <= columns:
        return "".join(f"{command:{width}}{meaning}\n" for command, meaning in _FIRST_STEPS.items())
    rows = []
    for command, meaning in _FIRST_STEPS.items():
        rows += textwrap.wrap(command, columns, subsequent_indent="  ", break_on_hyphens=False)
        rows += textwrap.wrap(meaning, columns, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(rows) + "\n"


def _print_version(is_requested: bool) -> None:
    if is_requested:
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


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends us at once
    if sys.platform != "win32":
        # Some imports of C modules swallow every exception: if we still run in a second, ours was lost.
        signal.signal(signal.SIGALRM, lambda *_: _leave(128 + number))
        signal.alarm(1)
    raise Stopped(128 + number)


def _leave(exit_code: int) -> None:
    say_farewell()
    os._exit(exit_code)


def main() -> None:
    """Runs the command line of this process and exits with its code."""
    gc.disable()  # until a model is loaded: walking what imports make takes 0.2 s of 1.5 s, and all of it stays
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a library's warning to programmers is not for users
    # Nor is what transformers logs while a model runs, of kernels that are not installed for one; read at its import.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Where the package `kernels` is installed, transformers would fetch kernels and run them, unasked.
    os.environ.setdefault("USE_HUB_KERNELS", "NO")
    if sys.stderr is None:  # closed; print would take stdout in its place
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    exit_code = run_command(sys.argv[1:])
    _let_go(sys.stdout)
    _let_go(sys.stderr)
    sys.exit(exit_code)


def run_command(arguments: Sequence[str]) -> int:
    """Runs one command line.

    Args:
        arguments: what was typed after `vlinstruct`.

    Returns:
        The exit code: 0 ok, 1 our bug, 2 usage, 3 some items failed, 4 input, 5 model, 6 resources, 7 training
        diverged, 8 output in use, 9 network, 130 Ctrl-C, 141 nobody reads our stdout, 143 SIGTERM.
    """
    if not arguments and "_VLINSTRUCT_COMPLETE" not in os.environ:  # by which a shell asks for a word's completion
        # On stderr and with 2, as click has it: a script whose command came out empty must not go on with our help.
        with redirect_stdout(sys.stderr):
            run_command(["--help"])
        return 2
    try:
        if sys.stdout is None:
            raise ResourceError(
                "cannot write output (stdout): it is closed", advice="Open it, or send it to /dev/null."
            )
        _require_working_folder()
        columns = shutil.get_terminal_size().columns
        if [*arguments] in (["--help"], ["-h"]):
            print(_first_steps(columns))
        width = min(columns, _MOST_COLUMNS) - 2  # by itself help is 50 columns wide at least
        code = app(args=list(arguments), prog_name="vlinstruct", standalone_mode=False, terminal_width=width)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Stopped as stopped:
        if sys.platform != "win32":
            signal.alarm(0)
        say_farewell()
        return stopped.exit_code
    except BrokenPipeError:  # `| head` has seen enough
        return 141
    except SystemExit as error:  # Typer's own way out when nobody reads, and when the shell completes a word
        return 141 if isinstance(error.__context__, BrokenPipeError) else int(error.code or 0)
    except Exception as error:
        if "--debug" in arguments:  # the word itself: the error may come before options are parsed
            traceback.print_exception(error)
        return _report(error)


def _require_working_folder() -> None:
    """Refuses to run in a folder that was deleted: torch's libraries would end the process without a word."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise ResourceError(
            "the current folder was deleted", advice="Change to another one (cd) and try again."
        ) from error


def _let_go(stream: TextIO | None) -> None:
    """Drops what a stream could not take: Python would try again at exit, and end with a traceback or with 120."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _report(error: Exception) -> int:
    """Says an error in one line and returns its exit code."""
    if isinstance(error, VlinstructError):
        say("error", error.message)
        return error.exit_code
    if hasattr(error, "format_message"):  # Typer's usage errors; their classes are vendored and private
        return _report_usage(error)
    if is_out_of_memory(error):
        # No option is named: chat has no batches, and convert no device.
        say("error", "out of memory. Use a smaller model or smaller batches, or another device.")
        return ResourceError.exit_code
    if is_out_of_files(error):
        say("error", "too many files are open. Raise the limit (ulimit -n).")
        return ResourceError.exit_code
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename is not None else ""
        say("error", f"the system refused{place}: {os.strerror(error.errno or 0)}. Check the disk and the permissions.")
        return ResourceError.exit_code
    # Only the error's name and line: its own text may hold addresses, or what a user typed.
    *_, frame = traceback.extract_tb(error.__traceback__)
    place = f"{type(error).__name__} at {os.path.basename(frame.filename)}:{frame.lineno}"
    say("error", f"this is a bug in vlinstruct: {place}. Run again with --debug and report it.")
    return 1


def _report_usage(error: Exception) -> int:
    """Says Typer's usage error as one line in our form: what is wrong, what to do, the usage line."""
    message = str(error.format_message()).rstrip(".").replace("Value error, ", "")  # type: ignore[attr-defined]
    hint = " Text that begins with '-' goes after '--'." if message.startswith("No such option") else ""
    context = getattr(error, "ctx", None)
    unknown = _UNKNOWN.match(message)
    if unknown is not None and (meant := _MEANT.get(unknown[2].lstrip("-"))) is not None:
        message, hint = f"{unknown[1]}. Did you mean {meant}?", ""
    usage = f" {' '.join(context.get_usage().split())}; see --help." if context is not None else ""
    end = "" if message.endswith("?") else "."  # Typer asks: did you mean ...?
    say("error", f"{message}{end}{hint}{usage}")
    return int(getattr(error, "exit_code", 2))
