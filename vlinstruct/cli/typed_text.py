"""A text that is typed, or stands in a file: `@best.txt` is what the file holds, `@@home` the text `@home`."""

from __future__ import annotations

from vlinstruct.errors import DataError, shortened
from vlinstruct.files import read_regular
from vlinstruct.text import MAX_INSTRUCTION_CHARACTERS

_MAX_BYTES = 4 * MAX_INSTRUCTION_CHARACTERS  # of UTF-8


def typed_text(text: str) -> str:
    """Returns what is meant by a text on the command line.

    Args:
        text: as typed; `@FILE` names a file, a text that begins with @ itself is written with two.

    Raises:
        DataError: the file cannot be read, or is no UTF-8.

    >>> typed_text("how many?"), typed_text("@@home?")
    ('how many?', '@home?')
    """
    if not text.startswith("@"):
        return text
    if text.startswith("@@"):
        return text[1:]
    return text_of_file(text[1:])


def typed_texts(text: str) -> list[str]:
    """Returns the texts of a file, a line each, or the one that was typed.

    Raises:
        DataError: the file cannot be read, or is no UTF-8.
    """
    if text.startswith("@") and not text.startswith("@@"):
        return [line for line in text_of_file(text[1:]).splitlines() if line.strip()]
    return [typed_text(text)]


def text_of_file(path: str) -> str:
    """Returns a file's text without the end of its last line.

    Raises:
        DataError: it cannot be read, or is no UTF-8.
    """
    try:
        content = read_regular(path, kind="data", max_bytes=_MAX_BYTES).decode("utf-8-sig")
    except DataError as error:
        advice = "Check the path; a text that begins with @ is written @@"
        why = error.problem.rpartition("): ")[2]
        raise DataError.at("cannot read text", f"@{shortened(path, 120)}", why, advice, code=error.code) from error
    except UnicodeDecodeError as error:
        raise DataError.at("cannot read text", f"@{path}", "it is not UTF-8", "Save the file as UTF-8") from error
    return content.removesuffix("\n").removesuffix("\r")
