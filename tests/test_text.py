"""What may be asked, and how it is shown."""

import pytest

from vlinstruct.errors import DataError, TextError, printable, shortened
from vlinstruct.text import MAX_INSTRUCTION_CHARACTERS, check_instruction


@pytest.mark.parametrize("text", ["", " ", "\n\t\r", "\u200b\u200d", "\ufeff", "\u3000\u2800\u3164", "\0", "\u202e"])
def test_blank_text_is_refused(text, refused):
    assert "empty or blank" in refused(TextError, "text_empty", check_instruction, text).message


def test_long_text_is_refused_with_count_and_limit(refused):
    error = refused(TextError, "text_too_long", check_instruction, "a" * 100_000, what="question")
    assert "(question): 100,000 characters, at most 20,000" in error.message
    longest = "a" * MAX_INSTRUCTION_CHARACTERS
    assert check_instruction(longest) == longest


@pytest.mark.parametrize("text", ["what\udcff", "\ud800", "\ud83d \ude00"])
def test_lone_surrogates_are_refused(text, refused):
    assert "not valid Unicode" in refused(TextError, "text_not_unicode", check_instruction, text).message


@pytest.mark.parametrize(
    "text",
    [
        "a\0b",
        "\u202eabc\u2066",
        "👩‍👩‍👧 e" + "\u0301" * 500,
        "{objects} {0} { {{x}} %s $x {{ jinja }} {x!r:>9999999999}",
        "<image> </s> <pad> [SEP] <extra_id_0>",
        "a\x1b[2Jb",
        " a\r\nb\rc\td ",
        "-h",
        "было ли это? 这是什么",
    ],
)
def test_text_reaches_the_model_unchanged(text):
    assert check_instruction(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("\u202egnp.exe\u2069", r"\u202egnp.exe\u2069"),
        ("a\udcff.png", r"a\udcff.png"),
        ("a\r\n\tb\0", r"a\r\n\tb\x00"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("<script> é 猫 👩‍👩‍👧", "<script> é 猫 👩‍👩‍👧"),
    ],
)
def test_terminals_get_escapes(text, shown):
    assert printable(text) == shown


def test_an_answer_may_keep_its_newlines():
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


def test_a_long_place_is_shortened_in_the_middle():
    line = DataError.at("cannot read image", "/very" * 200 + "/end.jpg", "empty file", "Check it").message
    assert len(line) == 290
    assert "/end.jpg): empty file. Check it" in line
    assert shortened("short", 20) == "short"
