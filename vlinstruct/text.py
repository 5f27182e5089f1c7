"""What a person wrote, checked before a model reads it. The text goes to the model byte for byte as it came."""

from __future__ import annotations

import unicodedata

from vlinstruct.errors import TextError

MAX_INSTRUCTION_CHARACTERS = 20_000
"""More than any prompt of this family of models can hold (their text windows end at 512 to 2,048 tokens)."""

_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


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
        raise TextError.at("cannot use text", what, "not valid Unicode", advice, code="text_not_unicode")
    if len(text) > max_characters:
        why = f"{len(text):,} characters, at most {max_characters:,} can be used"
        raise TextError.at("cannot use text", what, why, "Shorten it", code="text_too_long")
    if is_blank(text):
        why = "it is empty or blank"
        raise TextError.at("cannot use text", what, why, "Type some words", code="text_empty")
    return text
