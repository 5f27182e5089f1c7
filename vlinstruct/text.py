"""What a person wrote: checked before a model reads it, escaped before a terminal shows it.

Text goes to the model byte for byte as it came; only its printed form is escaped.
"""

from __future__ import annotations

import re
import unicodedata

from vlinstruct.errors import TextError

MAX_INSTRUCTION_CHARACTERS = 20_000
"""More than any prompt of this family of models can hold (their text windows end at 512 to 2,048 tokens)."""

MAX_MESSAGE_CHARACTERS = 290
"""A message stays within 300 characters with the command line's `error: ` before it."""

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1 controls: ANSI escapes start with one of them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    "\u2028\u2029\ufff9-\ufffb"  # line and paragraph separators, interlinear annotation
    "\ud800-\udfff]"  # lone surrogates: bytes of a file name that are no UTF-8
)
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


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


def error_line(what: str, place: object, why: str, advice: str) -> str:
    """Builds the one line of an error message, `<what> (<place>): <why>. <advice>`.

    Args:
        what: what cannot be done.
        place: the file or option; escaped, and shortened in the middle where the line would pass its limit.
        why: the reason, in our own words: a library's text may hold addresses or paths.
        advice: what to do.

    >>> error_line("cannot read image", "a.jpg", "empty file", "Check the download")
    'cannot read image (a.jpg): empty file. Check the download'
    """
    room = MAX_MESSAGE_CHARACTERS - len(f"{what} (): {why}. {advice}")
    return f"{what} ({shortened(str(place), max(room, 20))}): {why}. {advice}"


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


def is_blank(text: str) -> bool:
    """Says whether a text shows nothing: only spaces, controls, zero-width or invisible characters.

    >>> is_blank(" \\u200b\\n"), is_blank("?")
    (True, False)
    """
    return all(c.isspace() or c in _BLANK_LETTERS or unicodedata.category(c) in ("Cc", "Cf") for c in text)


def check_instruction(text: str, *, what: str = "instruction", max_characters: int = MAX_INSTRUCTION_CHARACTERS) -> str:
    """Returns the text unchanged if a model can be asked it.

    Args:
        text: an instruction or question as typed.
        what: what to call it in the message.
        max_characters: most characters, a cheap bound before any tokenizer runs.

    Raises:
        TextError: it is not valid Unicode (`text_not_unicode`), too long (`text_too_long`) or blank (`text_empty`).
    """
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        advice = "Pass UTF-8 text; check the terminal's locale or the file's encoding"
        raise TextError(error_line("cannot use text", what, "not valid Unicode", advice), code="text_not_unicode")
    if len(text) > max_characters:
        why = f"{len(text):,} characters, at most {max_characters:,} can be used"
        raise TextError(error_line("cannot use text", what, why, "Shorten it"), code="text_too_long")
    if is_blank(text):
        why = "it is empty or blank"
        raise TextError(error_line("cannot use text", what, why, "Type some words"), code="text_empty")
    return text


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
