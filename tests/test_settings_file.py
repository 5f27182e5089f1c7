"""A settings file gives plain values of the declared types, or one line that says where it does not."""

from __future__ import annotations

import doctest
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Optional

import pytest

from vlinstruct import settings_file
from vlinstruct.errors import DataError, VlinstructError
from vlinstruct.settings_file import MAX_FILE_BYTES, read_settings
from vlinstruct.training.settings import TrainingSettings

INTEGER = "an integer like 10 (up to 19 digits)"
NUMBER = "a finite number like 1e-4"


@dataclass(frozen=True, kw_only=True)
class Config:
    """One field of each type that a settings file can hold."""

    ema: bool = True
    learning_rate: float = 1e-5
    warmup_steps: int = 1000
    max_steps: int | None = None
    max_norm: Optional[float] = None  # noqa: UP045 (both spellings are read)
    answers: Literal["last", "all"] = "last"
    name: str = ""
    note: str | None = None
    parts: tuple[str, ...] = ()
    more_parts: tuple[str, ...] | None = None
    version: int = field(default=1, init=False)


Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(content: str | bytes) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


@pytest.fixture
def read(write: Write) -> Callable[..., dict[str, Any]]:
    return lambda content, kind=Config: read_settings(write(content), kind)


@pytest.fixture
def why(write: Write, refused: Callable[..., VlinstructError]) -> Callable[..., str]:
    """Reads a file that must be refused, and returns what is said between the file's name and the advice."""

    def refuse(content: str | bytes, code: str = "settings_wrong") -> str:
        path = write(content)
        message = refused(DataError, code, read_settings, path, Config).message
        head, text = message.split("mine.yaml): ")
        assert head.startswith("cannot use settings (")
        assert text.endswith(". Correct the file")
        return text.removesuffix(". Correct the file")

    return refuse


def written(value: object) -> str:
    """Writes a field's value as a user would."""
    return "null" if value is None else json.dumps(value) if isinstance(value, bool | str | tuple) else repr(value)


def test_doctests_hold():
    result = doctest.testmod(settings_file)
    assert result.attempted > 0
    assert result.failed == 0


def test_only_the_given_keys_are_returned_with_values_of_their_types(read):
    content = """
    # a comment
    warmup_steps: 20
    ema: false
    max_steps: -3
    answers: "all"
    """
    settings = read(content)
    assert settings == {"warmup_steps": 20, "ema": False, "max_steps": -3, "answers": "all"}
    assert list(settings) == ["warmup_steps", "ema", "max_steps", "answers"]
    assert [type(value) for value in settings.values()] == [int, bool, int, str]


def test_every_setting_of_a_training_is_read_back_as_it_was_written(read):
    config = TrainingSettings()
    values = {one.name: getattr(config, one.name) for one in fields(config) if one.init}
    settings = read("".join(f"{name}: {written(value)}\n" for name, value in values.items()), TrainingSettings)
    assert settings == values
    assert [type(value) for value in settings.values()] == [type(value) for value in values.values()]


def test_a_file_as_windows_writes_it_is_read(read):
    assert read(b"\xef\xbb\xbfema: false\r\nwarmup_steps: 2\r\n") == {"ema": False, "warmup_steps": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E+2", 100.0), ("-1.5e3", -1500.0), ("3", 3.0), (".5", 0.5), ("2.", 2.0), ("0", 0.0)],
)
def test_a_number_is_read_as_people_write_it(read, text, value):
    for name in ("learning_rate", "max_norm"):
        settings = read(f"{name}: {text}")
        assert settings == {name: value}
        assert isinstance(settings[name], float)


def test_a_number_in_quotes_is_a_text(why):
    assert why('learning_rate: "1e-4"') == f'learning_rate must be {NUMBER}, got "1e-4" (line 1)'


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("learning_rte", "unknown key learning_rte; did you mean learning_rate? (line 2)"),
        ("zzz", "unknown key zzz (line 2)"),
        ("<<", "unknown key << (line 2)"),
        ("''", 'unknown key "" (line 2)'),
        ('"\\e[2J"', "unknown key \\x1b[2J (line 2)"),
        ("version", "unknown key version (line 2)"),  # a field that nobody may give
    ],
)
def test_an_unknown_key_is_named_with_the_one_that_was_meant(why, key, problem):
    assert why(f"ema: true\n{key}: 1") == problem


def test_a_key_that_is_no_word_is_refused(why):
    assert why("? [ema]\n: true") == "a key must be a name, got a list (line 1)"
    assert why("? {ema: 1}\n: true") == "a key must be a name, got a mapping (line 1)"


def test_a_duplicate_key_is_refused_with_both_lines(why):
    assert why("ema: true\nmax_steps: 3\nema: true\n") == "duplicate key ema (lines 1 and 3)"


@pytest.mark.parametrize(
    "value",
    [
        '!!python/object/apply:os.system ["touch {canary}"]',
        '!!python/object/new:os.system ["touch {canary}"]',
        "!!python/object/apply:subprocess.check_call [[touch, {canary}]]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch {canary}']",
        "!!float 1e-4",
        "! 1",
    ],
)
@pytest.mark.parametrize("place", ["{value}", "name: {value}", "? {value}\n: 1", "parts: [{value}]"])
def test_tags_are_refused_and_build_nothing(why, tmp_path, place, value):
    canary = tmp_path / "canary"
    content = place.replace("{value}", value.replace("{canary}", str(canary)))
    assert why(content, "settings_not_allowed") == "YAML tags (!) are not allowed (line 1)"
    assert not canary.exists()


ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + below] * 9)}]\n" for below, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (ALIAS_BOMB, "YAML anchors and aliases (& and *) are not allowed (line 1)"),
        ("ema: true\nname: *a", "YAML anchors and aliases (& and *) are not allowed (line 2)"),
        ("name: &a x", "YAML anchors and aliases (& and *) are not allowed (line 1)"),
        ("&a {name: x}", "YAML anchors and aliases (& and *) are not allowed (line 1)"),
        ("[" * 500, "lists and mappings are nested more than 3 deep (line 1)"),
        ("[" * MAX_FILE_BYTES, "lists and mappings are nested more than 3 deep (line 1)"),
        ("parts:\n" + "- " * 500, "lists and mappings are nested more than 3 deep (line 2)"),
        ("parts: [{a: [b]}]", "lists and mappings are nested more than 3 deep (line 1)"),
        ("{a: " * 500, "lists and mappings are nested more than 3 deep (line 1)"),
    ],
)
def test_what_multiplies_or_nests_is_refused_at_once(why, content, problem):
    start = time.process_time()
    assert why(content, "settings_not_allowed") == problem
    assert time.process_time() - start < 5


def test_a_large_file_is_refused_before_it_is_read(write, refused):
    path = write(b"ema: true\n")
    with open(path, "r+b") as file:
        file.truncate(10_000_000)
    message = refused(DataError, "data_file_too_large", read_settings, path, Config).message
    assert "mine.yaml): 10,000,000 bytes, at most 32,768 are read" in message


def test_a_file_of_the_largest_size_is_read(read):
    content = "ema: false\n#"
    assert read(content + "x" * (MAX_FILE_BYTES - len(content))) == {"ema": False}


@pytest.mark.parametrize("number", [".nan", ".NaN", "nan", ".inf", "-.inf", "+.INF", "inf", "-Infinity", "1e999"])
@pytest.mark.parametrize(("name", "end"), [("learning_rate", ""), ("max_norm", " or null")])
def test_numbers_that_are_not_finite_are_refused_by_name(why, name, end, number):
    assert why(f"ema: true\n{name}: {number}") == f"{name} must be {NUMBER}{end}, got {number} (line 2)"


@pytest.mark.parametrize(
    "line", ["learning_rate: -1e-4", "per_device_train_batch_size: 0", "num_train_epochs: 10000000000"]
)
def test_the_range_of_a_number_is_the_settings_own_to_check(read, line):
    with pytest.raises(VlinstructError, match=line.partition(":")[0]):
        TrainingSettings(**read(line, TrainingSettings))


TYPE_TRAPS = [
    *(
        ("ema", text, "true or false")
        for text in ("on", "off", "yes", "no", "y", "True", "FALSE", "1", "null", '"true"')
    ),
    *(("ema", text, "true or false") for text in ("[true]", "{true: 1}")),
    *(("warmup_steps", text, INTEGER) for text in ("010", "0o10", "12:30", "1_000", "1e3", "10.0", "+5", "true")),
    *(("warmup_steps", text, INTEGER) for text in ("٣", "0b1", "--1", "1 0", "'10'", "null", "10000000000000000000")),
    *(("max_steps", text, f"{INTEGER} or null") for text in ("010", "None", "Null", "'null'", "''")),
    *(("learning_rate", text, NUMBER) for text in ("010", "0.1.2", "1:30.5", "1_0.0", "1e", "e5", ".", "~", "1,5")),
    *(("answers", text, "last or all") for text in ("first", "on", "null", "Last", "[last]")),
    *(("name", text, "a text") for text in ("null", "~", "NULL", "None", "[a]", "{a: b}")),
    *(("note", text, "a text or null") for text in ("Null", "none")),
    *(("parts", text, "a list of texts") for text in ("a", "null", "{a: b}")),
    *(("more_parts", text, "a list of texts or null") for text in ("a", "None")),
]
IN_WORDS = {"[": "a list", "{": "a mapping"}


@pytest.mark.parametrize(("name", "text", "expected"), TYPE_TRAPS)
def test_a_value_that_is_not_plainly_of_its_type_is_refused(why, name, text, expected):
    shown = IN_WORDS.get(text[0], text).replace("'", '"')
    assert why(f"# mine\n{name}: {text}") == f"{name} must be {expected}, got {shown} (line 2)"


def test_hexadecimal_is_no_integer(write):
    with pytest.raises(DataError, match=r"warmup_steps must be an integer .*, got 0x10 \(line 1\)"):
        read_settings(write("warmup_steps: 0x10"), Config)


@pytest.mark.parametrize("text", ["on", "010", "12:30", "2024-01-01", "1e-4", "true", "=", "é 猫"])
def test_a_text_is_what_stands_in_the_file(read, text):
    assert read(f"name: {text}\nparts: [{text}, '{text}']") == {"name": text, "parts": (text, text)}


@pytest.mark.parametrize("text", ["null", "~", "", " None "])
def test_a_text_in_quotes_is_never_null(read, text):
    assert read(f"name: '{text}'\nnote: \"{text}\"") == {"name": text, "note": text}


def test_null_is_no_value_where_the_type_has_none(read):
    names = ("max_steps", "max_norm", "note", "more_parts")
    for null in ("null", "~"):
        assert read("".join(f"{name}: {null}\n" for name in names)) == dict.fromkeys(names)


def test_a_list_keeps_its_order_and_may_be_empty(read):
    settings = read("parts:\n- b\n- a\n- b\nmore_parts: []\n")
    assert settings == {"parts": ("b", "a", "b"), "more_parts": ()}


def test_a_wrong_entry_of_a_list_is_found_by_its_line(why):
    assert why("parts:\n- a\n- null\n") == "parts must be a text, got null (line 3)"
    assert why("parts:\n- a\n-\n") == "parts has no value (line 3)"


def test_integers_are_read_up_to_their_limit(read, why):
    assert read("warmup_steps: 9999999999999999999\nmax_steps: -0") == {"warmup_steps": 10**19 - 1, "max_steps": 0}
    assert "got 999999999999...9999999999999999999999999 (line 1)" in why("warmup_steps: " + "9" * 5000)


@pytest.mark.parametrize("name", [one.name for one in fields(Config) if one.init])
def test_a_key_without_a_value_is_refused(why, name):
    assert why(f"\n{name}:\n") == f"{name} has no value (line 2)"


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ("", "nothing"),
        ("\n# ema: true\n", "nothing"),
        ("---\n...\n", "a text (line 2)"),
        ("- 1", "a list (line 1)"),
        ("\nema true", "a text (line 2)"),
        ("null", "a text (line 1)"),
    ],
)
def test_a_file_must_be_a_mapping(why, content, got):
    expected = f"it must be a mapping, lines of name: value, got {got}"
    assert why(content, "settings_no_mapping") == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("ema: true\nname: a\0b", "(line 2): special characters are not allowed"),
        ("ema: true\r\nname: \x1b", "(line 2): special characters are not allowed"),
        ("\tema: true", "(line 1): found character '\\t' that cannot start any token"),
        ("ema:\ttrue", "(line 1): found character '\\t' that cannot start any token"),
        ("ema: true\n  name: a", "(line 2): mapping values are not allowed here"),
        ("ema: true\n---\nema: true", "(line 2): but found another document"),
        ("ema: true\nname: 'a", "(line 2): found unexpected end of stream"),
        ('ema: true\nname: "\\U00110000"', "(line 2): a number is out of range"),
        ('name: "\\Uffffffff"', "(line 1): a number is out of range"),
        (f"%YAML 1.{'1' * 5000}\n---\nema: true", "(line 1): a number is out of range"),
    ],
)
def test_a_file_that_is_no_yaml_is_refused_with_the_line(why, content, problem):
    assert why(content, "settings_not_yaml") == f"it is not valid YAML {problem}"


def test_a_file_that_is_no_utf8_is_refused_with_the_line(why):
    assert why(b"ema: true\nname: \xff", "settings_not_utf8") == "it is not UTF-8 (line 2)"
    assert why("ema: true".encode("utf-16"), "settings_not_utf8") == "it is not UTF-8 (line 1)"


@pytest.mark.parametrize("escape", ["\\0", "\\ud800", "\\udfff"])
def test_a_text_that_nothing_can_use_is_refused(why, escape):
    assert why(f'name: "a{escape}"') == "name holds a NUL or half a character (line 1)"
    assert why(f'parts:\n- "{escape}"') == "parts holds a NUL or half a character (line 2)"


@pytest.mark.parametrize(("name", "code"), [("no.yaml", "data_missing"), (".", "data_is_directory")])
def test_a_path_that_cannot_be_read_is_refused(tmp_path, refused, name, code):
    assert "cannot read file (" in refused(DataError, code, read_settings, tmp_path / name, Config).message


def test_all_problems_of_a_file_are_shown_together_in_its_order(why):
    shown = why("answers: x\nema: on\nema: true\nlearning_rte: 1\n")
    assert shown == (
        "answers must be last or all, got x (line 1); ema must be true or false, got on (line 2); "
        "duplicate key ema (lines 2 and 3); unknown key learning_rte; did you mean learning_rate? (line 4)"
    )


def test_problems_that_do_not_fit_are_counted(why):
    start = time.process_time()
    shown = why("".join(f"per_{number}_steps: 1\n" for number in range(1500)))
    assert time.process_time() - start < 5
    names = shown.count("unknown key")
    assert shown.startswith("unknown key per_0_steps; did you mean")
    assert names > 1
    assert shown.endswith(f"; and {1500 - names} more")


def test_the_longest_problem_still_fits_the_line(why):
    assert "got xxx" in why(f"more_parts: {'x' * 5000}")
    assert "unknown key xxx" in why(f"{'x' * 100}: 1")


@pytest.mark.parametrize("hint", [int | str, tuple[int, ...], Literal[1], Path, list[str], dict, type(None)])
def test_a_field_that_no_settings_file_can_hold_is_a_mistake_of_ours(write, hint):
    @dataclass
    class Odd:
        odd: object

    Odd.__annotations__["odd"] = hint
    with pytest.raises(TypeError, match="a settings file holds no values of type"):
        read_settings(write("odd: 1"), Odd)
