"""Reads a file of settings: YAML lines `name: value`, with the names and types of a dataclass's fields.

YAML alone is too generous for settings: to it `1e-4` is a text, `on` is true, `010` is 8, `12:30` is 750, the first of
two equal keys is lost, a tag builds objects and aliases multiply. So nothing is constructed: events and nodes are
looked at, and the declared type of a field reads its value from the text as it stands in the file.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from vlinstruct.errors import DataError, joined, shortened
from vlinstruct.files import PathLike, read_regular
from vlinstruct.plain_yaml import compose_plain, line_of, nearest

MAX_FILE_BYTES = 32 * 1024
"""Room for some 400 lines; the slowest file of this size takes PyYAML half a second."""

MAX_DEPTH = 2
"""The mapping of the settings, and a list as the value of one."""

_MAX_WHY_CHARACTERS = 210
_MAX_GUESSES = 8  # a message has room for three, a hostile file holds thousands of unknown keys

_KINDS = {yaml.ScalarNode: "a text", yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_NULLS = ("null", "~")
# Refused as a text without quotes: whoever writes it means no value.
_LIKE_NULL = (*_NULLS, "none")


def read_settings(path: PathLike, kind: type) -> dict[str, Any]:
    """Reads the settings that a file gives; what it leaves out is not in the result.

    Args:
        path: a YAML file of at most 32 KiB, a mapping.
        kind: the dataclass whose fields may be given, of type bool, int, float, str, a Literal of texts or
            tuple[str, ...], each also `| None`. Its ranges are its own to check.

    Returns:
        Each given field's value, of the declared type, in the file's order.

    Raises:
        DataError: the file cannot be read, is no such mapping, or has unknown, doubled or wrongly typed settings; names
            the file and the line of every problem there is room for.
    """
    content = read_regular(path, kind="data", max_bytes=MAX_FILE_BYTES)
    try:
        return parse_settings(_decoded(content), kind)
    except DataError as error:
        raise DataError.at("cannot use settings", path, error.message, "Correct the file", code=error.code) from error


def parse_settings(source: str, kind: type) -> dict[str, Any]:
    r"""Returns the settings of a text, as `read_settings` does of a file.

    >>> from dataclasses import make_dataclass
    >>> Config = make_dataclass("Config", [("learning_rate", float), ("max_steps", int | None)])
    >>> parse_settings("learning_rate: 1e-4\nmax_steps: null", Config)
    {'learning_rate': 0.0001, 'max_steps': None}
    """
    types = _field_types(kind)
    root = _mapping(source)
    settings = {}
    problems = _key_problems(root, types)
    for key, value in root.value:
        if (name := key.value) in types:
            try:
                settings[name] = _typed(value, types[name])
            except DataError as error:
                problems.append((line_of(value), f"{name} {error.message}"))
    if problems:
        in_order = [text for _, text in sorted(problems)]
        raise DataError(joined(in_order, max_characters=_MAX_WHY_CHARACTERS), code="settings_wrong")
    return settings


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = len((error.object[: error.start] + b".").splitlines())
        raise DataError(f"it is not UTF-8 (line {line})", code="settings_not_utf8") from error


def _mapping(source: str) -> yaml.MappingNode:
    """Returns the file's one mapping, whose keys are scalars."""
    root = compose_plain(source, max_depth=MAX_DEPTH)
    if not isinstance(root, yaml.MappingNode):
        got = f"{_KINDS[type(root)]} (line {line_of(root)})" if root else "nothing"
        raise DataError(f"it must be a mapping, lines of name: value, got {got}", code="settings_no_mapping")
    for key, _ in root.value:
        if not isinstance(key, yaml.ScalarNode):
            raise DataError(f"a key must be a name, got {_shown(key)} (line {line_of(key)})", code="settings_wrong")
    return root


def _field_types(kind: type) -> dict[str, Any]:
    """Returns the type of every field that can be given."""
    hints = get_type_hints(kind)
    types = {field.name: hints[field.name] for field in fields(kind) if field.init}
    for hint in types.values():
        _expected(hint)
    return types


_EXPECTED = {
    bool: "true or false",
    int: "an integer like 10 (up to 19 digits)",
    float: "a finite number like 1e-4",
    str: "a text",
}


def _expected(hint: Any) -> str:
    """Returns what a value of this type must be, in a user's words.

    Raises:
        TypeError: no settings file can hold such a value.

    >>> _expected(Literal["last", "all"] | None)
    'last or all or null'
    """
    inner = _without_none(hint)
    if inner != hint:
        return f"{_expected(inner)} or null"
    if hint == tuple[str, ...]:
        return "a list of texts"
    choices = _choices(hint)
    if hint not in _EXPECTED and not choices:
        raise TypeError(f"a settings file holds no values of type {hint}")
    return _EXPECTED.get(hint) or shortened(" or ".join(choices), 100)


def _without_none(hint: Any) -> Any:
    """Returns X for `X | None`, every other type as it is."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    others = [one for one in get_args(hint) if one is not NoneType]
    return others[0] if len(others) == 1 else hint


def _choices(hint: Any) -> tuple[str, ...]:
    """Returns the texts of a Literal; nothing for other types and for a Literal of anything else."""
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return choices if all(isinstance(choice, str) for choice in choices) else ()


def _key_problems(root: yaml.MappingNode, names: Collection[str]) -> list[tuple[int, str]]:
    """Returns the keys that are unknown or there twice, with their lines."""
    lines = defaultdict(list)
    for key, _ in root.value:
        lines[key.value].append(line_of(key))
    problems = [
        (at[1], f"duplicate key {_word(key)} (lines {at[0]} and {at[1]})") for key, at in lines.items() if len(at) > 1
    ]
    unknown = [key for key in lines if key not in names]
    for number, key in enumerate(unknown):
        guess = nearest(key, names) if number < _MAX_GUESSES else ""
        problems.append((lines[key][0], f"unknown key {_word(key)}{guess} (line {lines[key][0]})"))
    return problems


def _typed(node: yaml.Node, hint: Any) -> Any:
    """Returns a node's value as the type reads it.

    Raises:
        DataError: it is not plainly of this type; what is said follows the key.
    """
    inner = _without_none(hint)
    if _is_plain(node) and not node.value:
        raise DataError(f"has no value (line {line_of(node)})")
    if inner != hint and _is_plain(node) and node.value in _NULLS:
        return None
    if inner == tuple[str, ...] and isinstance(node, yaml.SequenceNode):
        return tuple(_typed(item, str) for item in node.value)
    value = _scalar(node, inner) if isinstance(node, yaml.ScalarNode) else None
    if value is None:
        raise DataError(f"must be {_expected(hint)}, got {_shown(node)} (line {line_of(node)})")
    return value


def _scalar(node: yaml.ScalarNode, hint: Any) -> bool | int | float | str | None:
    """Returns the value of a scalar; None where it is not of this type."""
    text = node.value
    if choices := _choices(hint):
        return text if text in choices else None
    if hint is str:
        return _text(node)
    convert = _CONVERTERS.get(hint)
    return convert(text) if convert and _is_plain(node) else None


def _text(node: yaml.ScalarNode) -> str | None:
    if _UNUSABLE.search(node.value):
        raise DataError(f"holds a NUL or half a character (line {line_of(node)})")
    return None if _is_plain(node) and node.value.lower() in _LIKE_NULL else node.value


def _boolean(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text)


def _integer(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) else None


def _number(text: str) -> float | None:
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


_CONVERTERS: Mapping[type, Callable[[str], bool | int | float | None]] = {
    bool: _boolean,
    int: _integer,
    float: _number,
}


def _is_plain(node: yaml.Node) -> bool:
    """Says whether it is a scalar without quotes."""
    return isinstance(node, yaml.ScalarNode) and node.style is None


def _shown(node: yaml.Node) -> str:
    """Returns what stands in the file, as a message names it."""
    if not isinstance(node, yaml.ScalarNode):
        return _KINDS[type(node)]
    return _word(node.value) if _is_plain(node) else _quoted(node.value)


def _word(text: str) -> str:
    return shortened(text, 40) if text.strip() else _quoted(text)


def _quoted(text: str) -> str:
    return f'"{shortened(text, 40)}"'
