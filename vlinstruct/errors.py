"""Every error a user can meet, each with its exit code.

A message is one line: what is wrong (with the file or option), why, and what to do. Only `cli/main.py` turns an error
into a line on stderr and an exit code; a batch turns it into a record with `code` and `message`. What a message quotes
is made printable here, since a file's name may hold what moves the cursor of a terminal.
"""

from __future__ import annotations

import errno
import re
from typing import ClassVar, Self

MAX_MESSAGE_CHARACTERS = 290
"""A message stays within 300 characters with the command line's `error: ` before it."""

NON_FINITE_LOGITS = "non_finite_logits"
"""The code of a row over which the model computed NaN or infinity."""

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1 controls: ANSI escapes start with one of them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    "\u2028\u2029\ufff9-\ufffb"  # line and paragraph separators, interlinear annotation
    "\ud800-\udfff]"  # lone surrogates: bytes of a file name that are no UTF-8
)
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class VlinstructError(Exception):
    """The root of all our errors.

    Args:
        problem: what is wrong, got against expected, without line breaks.
        advice: what to do about it; empty where nothing helps.
        code: a stable word for machines, e.g. `image_truncated`; the class has a default.

    >>> VlinstructError("a.json is damaged", advice="Download it again.").message
    'a.json is damaged. Download it again.'
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "internal"

    def __init__(self, problem: str, *, advice: str = "", code: str | None = None) -> None:
        self.problem = problem
        self.advice = advice
        self.message = f"{problem}. {advice}" if advice else problem
        self.code = code or self.default_code
        super().__init__(self.message)

    @classmethod
    def at(cls, what: str, place: object, why: str, advice: str, *, code: str | None = None) -> Self:
        """Builds the error of one place, with the message `<what> (<place>): <why>. <advice>`.

        Args:
            what: what cannot be done.
            place: the file or option; escaped, and shortened in the middle where the line would pass its limit.
            why: the reason, in our own words: a library's text may hold addresses or paths.
            advice: what to do.
            code: as of the class.

        >>> InputError.at("cannot read image", "a.jpg", "empty file", "Check the download").message
        'cannot read image (a.jpg): empty file. Check the download'
        """
        room = MAX_MESSAGE_CHARACTERS - len(f"{what} (): {why}. {advice}")
        return cls(f"{what} ({shortened(str(place), max(room, 20))}): {why}", advice=advice, code=code)


class UsageError(VlinstructError):
    """The command line contradicts itself."""

    exit_code = 2
    default_code = "usage"


class BatchError(VlinstructError):
    """A batch came to its end, but some of its items failed."""

    exit_code = 3
    default_code = "items_failed"


class InputError(VlinstructError):
    """Something the user gave cannot be used."""

    exit_code = 4
    default_code = "bad_input"


class ImageError(InputError):
    """A picture cannot be read."""

    default_code = "bad_image"


class ClipError(InputError):
    """A clip cannot be read."""

    default_code = "bad_clip"


class SoundError(InputError):
    """A sound cannot be read."""

    default_code = "bad_sound"


class TextError(InputError):
    """An instruction or question cannot be used."""

    default_code = "bad_text"


class DataError(InputError):
    """A data file or one of its records cannot be used."""

    default_code = "bad_data"


class ScoreError(InputError):
    """The model gave no finite score for this item."""

    default_code = "non_finite_score"


class CheckpointError(VlinstructError):
    """A model, adapter or checkpoint was refused."""

    exit_code = 5
    default_code = "checkpoint_refused"


class ResourceError(VlinstructError):
    """Memory, disk space or a permission is missing."""

    exit_code = 6
    default_code = "resources"


class DivergedError(VlinstructError):
    """Training met a loss that is not finite."""

    exit_code = 7
    default_code = "diverged"


class OutputInUseError(VlinstructError):
    """Another process writes the same output."""

    exit_code = 8
    default_code = "output_in_use"


class NetworkError(VlinstructError):
    """Something had to be downloaded and could not be."""

    exit_code = 9
    default_code = "network"


def not_installed(what: str, package: str, extra: str) -> ResourceError:
    """Returns the error of a package that one feature needs.

    >>> not_installed("--ocr", "rapidocr", "ocr").message
    "--ocr needs rapidocr, which is not installed: pip install 'vlinstruct[ocr]'."
    """
    needs = "need" if what.endswith("s") else "needs"
    return ResourceError(f"{what} {needs} {package}, which is not installed: pip install 'vlinstruct[{extra}]'.")


_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "alloc_failed",
    "not enough memory",
    "failed to map segment",
    "cannot allocate memory",
)
_ONEDNN_OUT_OF_MEMORY = "could not create a primitive"  # it says no more; what it does not support is a "descriptor"


def cause_of(error: Exception, max_characters: int) -> str:
    """Returns what a library's error says, without its further lines: its first one, or its type where it is mute.

    >>> cause_of(ValueError("Validation error for field 'a':\\n    expected int.\\n    more"), 80)
    "Validation error for field 'a': expected int"
    """
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    text = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return shortened(text.rstrip(".:"), max_characters)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory ended.

    PyTorch has a class of its own for CUDA's, and plain RuntimeErrors for the rest; where a library does not even fit
    into the address space (`ulimit -v`), Python raises ImportError.

    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    True
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError)
        and (text == _ONEDNN_OUT_OF_MEMORY or any(words in text for words in _OUT_OF_MEMORY))
    )


def is_out_of_files(error: BaseException) -> bool:
    """Returns whether an error says that no further file can be opened, in Python's words or in PyTorch's.

    >>> is_out_of_files(RuntimeError("unable to open file <a> in read-only mode: Too many open files (24)"))
    True
    """
    if isinstance(error, OSError):
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return isinstance(error, RuntimeError) and "too many open files" in str(error).lower()


def printable(text: str, *, keep: str = "") -> str:
    r"""Escapes what would move the cursor, reorder the line or break the stream of a terminal.

    Args:
        text: anything, also with lone surrogates.
        keep: characters left as they are, e.g. newline and tab in an answer.

    Returns:
        The text with every control, bidi control and lone surrogate written as an escape.

    >>> print(printable("a\x1b[2Jb\n"))
    a\x1b[2Jb\n
    """
    return _UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return _SHORT_ESCAPES.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def shortened(text: str, max_characters: int) -> str:
    """Returns the printable text, its middle left out where it is longer than `max_characters` (at least 20).

    >>> shortened("a" * 30 + "end.jpg", 20)
    'aaaaa...aaaaaend.jpg'
    """
    shown = printable(text)
    if len(shown) <= max_characters:
        return shown
    head = (max_characters - 3) // 3
    return f"{shown[:head]}...{shown[head + 3 - max_characters :]}"


def counted(count: int, noun: str) -> str:
    """Returns a number of things with their noun.

    >>> counted(1, "problem"), counted(1200, "process"), counted(0, "query")
    ('1 problem', '1,200 processes', '0 queries')
    """
    return f"1 {noun}" if count == 1 else f"{count:,} {plural(noun)}"


def plural(noun: str) -> str:
    """Returns a noun as of several things.

    >>> plural("star"), plural("Box"), plural("berry"), plural("day")
    ('stars', 'Boxes', 'berries', 'days')
    """
    if noun.lower().endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.lower().endswith("y") and noun.lower()[-2:-1] not in "aeou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def joined(problems: list[str], *, max_characters: int) -> str:
    """Joins problems to one line: the first, those that fit behind it, and the number of the others.

    >>> joined(["abcd", "efgh", "ijkl"], max_characters=16), joined(["abcd", "efgh"], max_characters=16)
    ('abcd; and 2 more', 'abcd; efgh')
    """
    line = problems[0]
    for number, problem in enumerate(problems[1:], start=2):
        rest = len(problems) - number
        if len(f"{line}; {problem}" + _and_more(rest)) > max_characters:
            return line + _and_more(rest + 1)
        line = f"{line}; {problem}"
    return line


def _and_more(num_problems: int) -> str:
    return f"; and {num_problems} more" if num_problems else ""


def require(*checks: tuple[bool, str]) -> None:
    """Raises one error that names every check that does not hold.

    Args:
        *checks: whether it holds, and what to say where it does not.

    Raises:
        UsageError: one of them does not hold.

    >>> require((True, "width must be above 0, got 8"))
    """
    if problems := [problem for holds, problem in checks if not holds]:
        raise UsageError("; ".join(problems))
