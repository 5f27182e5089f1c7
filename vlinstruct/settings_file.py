"""Reads a file of settings or texts: YAML lines `name: value`, with the names and types of a dataclass's fields.

YAML alone is too generous for what strangers may send: to it `1e-4` is a text, `on` is true, `010` is 8, `12:30` is
750, the first of two equal keys is lost, a tag builds objects and aliases multiply. So nothing is constructed: events
are looked at before nodes are composed, and the declared type of a field reads its value from the text as it stands in
the file.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from vlinstruct.errors import DataError, joined, shortened
from vlinstruct.files import PathLike, read_regular

MAX_FILE_BYTES = 32 * 1024
"""Room for some 400 lines; the slowest file of this size takes PyYAML half a second."""

MAX_DEPTH = 3
"""The mapping of the settings, a list as the value of one, and a mapping in it."""

_MAX_WHY_CHARACTERS = 210  # leaves room for the file's name and an advice in the same line
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
        kind: the dataclass whose fields may be given, of type bool, int, float, str, a Literal of texts,
            tuple[str, ...] or a tuple of another such dataclass, each also `| None`. Its ranges are its own to check.
            Where a list of dataclasses is wanted, a text alone stands for one of them, by its first field.

    Returns:
        Each given field's value, of the declared type, in the file's order.

    Raises:
        DataError: the file cannot be read, is no such mapping, or has unknown, doubled, missing or wrongly typed
            settings; names the file and the line of every problem there is room for.
    """
    content = read_regular(path, kind="data", max_bytes=MAX_FILE_BYTES)
    try:
        return parse_settings(content, kind)
    except DataError as error:
        raise DataError.at("cannot use settings", path, error.message, "Correct the file", code=error.code) from error


def parse_settings(source: str | bytes, kind: type) -> dict[str, Any]:
    r"""Reads the settings that a YAML text gives.

    Args:
        source: the text, or its UTF-8 bytes.
        kind: the dataclass whose fields may be given; those without a default must be.

    Returns:
        Each given field's value, of the declared type, in the text's order.

    Raises:
        DataError: it is no mapping of such settings; names the line of every problem there is room for, and no file.

    >>> from dataclasses import make_dataclass
    >>> Config = make_dataclass("Config", [("learning_rate", float), ("max_steps", int | None)])
    >>> parse_settings("learning_rate: 1e-4\nmax_steps: null", Config)
    {'learning_rate': 0.0001, 'max_steps': None}
    """
    root = _mapping(_decoded(source) if isinstance(source, bytes) else source)
    settings, problems = _values(root, kind)
    if problems:
        raise DataError(joined(problems, max_characters=_MAX_WHY_CHARACTERS), code="settings_wrong")
    return settings


def _values(root: yaml.MappingNode, kind: type) -> tuple[dict[str, Any], list[str]]:
    """Returns the fields that a mapping gives, and what is wrong with it, in the order of its lines."""
    types = _field_types(kind)
    settings = {}
    problems = _key_problems(root, types)
    for key, value in root.value:
        if (name := key.value) in types:
            try:
                settings[name] = _typed(value, types[name])
            except DataError as error:
                problems.append((_line_of(value), f"{name} {error.message}"))
    return settings, [text for _, text in sorted(problems)] + _missing(root, kind)


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = len((error.object[: error.start] + b".").splitlines())
        raise DataError(f"it is not UTF-8 (line {line})", code="settings_not_utf8") from error


def _mapping(source: str) -> yaml.MappingNode:
    """Returns the file's one mapping, whose keys are scalars."""
    root = _compose(source)
    if not isinstance(root, yaml.MappingNode):
        got = f"{_KINDS[type(root)]} (line {_line_of(root)})" if root else "nothing"
        raise DataError(f"it must be a mapping, lines of name: value, got {got}", code="settings_no_mapping")
    _require_names(root)
    return root


def _require_names(mapping: yaml.MappingNode) -> None:
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            raise DataError(f"a key must be a name, got {_shown(key)} (line {_line_of(key)})", code="settings_wrong")


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
    if (part := _part(hint)) is not None:
        return f"a text, or a list of mappings of {', '.join(_field_types(part))}"
    choices = _choices(hint)
    if hint not in _EXPECTED and not choices:
        raise TypeError(f"a settings file holds no values of type {hint}")
    return _EXPECTED.get(hint) or shortened(" or ".join(choices), 100)


def _without_none(hint: Any) -> Any:
    """Returns X for `X | None`, every other type as it is."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    others = [inner for inner in get_args(hint) if inner is not NoneType]
    return others[0] if len(others) == 1 else hint


def _part(hint: Any) -> type | None:
    """Returns the dataclass D of `tuple[D, ...]`; None of other types."""
    inner = get_args(hint)
    is_list = get_origin(hint) is tuple and len(inner) == 2 and inner[1] is Ellipsis
    return inner[0] if is_list and isinstance(inner[0], type) and is_dataclass(inner[0]) else None


def _choices(hint: Any) -> tuple[str, ...]:
    """Returns the texts of a Literal; nothing for other types and for a Literal of anything else."""
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return choices if all(isinstance(choice, str) for choice in choices) else ()


def _key_problems(root: yaml.MappingNode, names: Collection[str]) -> list[tuple[int, str]]:
    """Returns the keys that are unknown or there twice, with their lines."""
    lines = defaultdict(list)
    for key, _ in root.value:
        lines[key.value].append(_line_of(key))
    problems = [
        (at[1], f"duplicate key {_word(key)} (lines {at[0]} and {at[1]})") for key, at in lines.items() if len(at) > 1
    ]
    unknown = [key for key in lines if key not in names]
    for number, key in enumerate(unknown):
        guess = _nearest(key, names) if number < _MAX_GUESSES else ""
        problems.append((lines[key][0], f"unknown key {_word(key)}{guess} (line {lines[key][0]})"))
    return problems


def _missing(root: yaml.MappingNode, kind: type) -> list[str]:
    """Returns one problem that names every field which must be given and is not."""
    keys = {key.value for key, _ in root.value}
    missing = [field.name for field in fields(kind) if _is_required(field) and field.name not in keys]
    return [f"missing: {', '.join(missing)}"] if missing else []


def _is_required(field: Field[Any]) -> bool:
    return field.init and field.default is MISSING and field.default_factory is MISSING


def _typed(node: yaml.Node, hint: Any) -> Any:
    """Returns a node's value as the type reads it.

    Raises:
        DataError: it is not plainly of this type; what is said follows the key.
    """
    inner = _without_none(hint)
    if _is_plain(node) and not node.value:
        raise DataError(f"has no value (line {_line_of(node)})")
    if inner != hint and _is_plain(node) and node.value in _NULLS:
        return None
    if inner == tuple[str, ...] and isinstance(node, yaml.SequenceNode):
        return tuple(_typed(item, str) for item in node.value)
    if (part := _part(inner)) is not None:
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        return tuple(_made(item, part, inner) for item in items)
    value = _scalar(node, inner) if isinstance(node, yaml.ScalarNode) else None
    if value is None:
        raise DataError(f"must be {_expected(hint)}, got {_shown(node)} (line {_line_of(node)})")
    return value


def _made(node: yaml.Node, part: type, hint: Any) -> Any:
    """Returns a dataclass from a mapping of its fields, or from a text, which is its first field's."""
    if isinstance(node, yaml.MappingNode):
        _require_names(node)
        values, problems = _values(node, part)
        if problems:
            raise DataError(joined(problems, max_characters=_MAX_WHY_CHARACTERS))
        return part(**values)
    text = _scalar(node, str) if isinstance(node, yaml.ScalarNode) else None
    if text is None:
        raise DataError(f"must be {_expected(hint)}, got {_shown(node)} (line {_line_of(node)})")
    return part(**{fields(part)[0].name: text})


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
        raise DataError(f"holds a NUL or half a character (line {_line_of(node)})")
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


def _compose(source: str) -> yaml.Node | None:
    """Returns the root of a YAML text that has no tags, anchors or aliases; nothing is constructed.

    Args:
        source: one YAML document, or nothing.

    Returns:
        The root; None where the text holds nothing.

    Raises:
        DataError: anything else; says the line.
    """
    try:
        _check_events(yaml.SafeLoader(source))
        return yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise DataError(_yaml_problem(error, source), code="settings_not_yaml") from error


def _line_of(node: yaml.Node) -> int:
    """Returns the line on which a node begins, from 1."""
    return node.start_mark.line + 1


def _nearest(key: str, names: Collection[str]) -> str:
    """Returns a guess at what was meant, or nothing.

    >>> _nearest("learning_rte", ["learning_rate"]), _nearest("x", ["learning_rate"])
    ('; did you mean learning_rate?', '')
    """
    near = get_close_matches(key, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _check_events(loader: Any) -> None:
    """Refuses what a settings file never needs, on the flat event stream: depth costs no stack here."""
    depth = 0
    try:
        while loader.check_event():
            event = loader.get_event()
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if why := _event_problem(event, depth):
                raise DataError(f"{why} (line {event.start_mark.line + 1})", code="settings_not_allowed")
    except (ValueError, OverflowError) as error:
        # PyYAML 6.0.3 lets Python's own errors pass: of the escape \U00110000, of a %YAML version of 5,000 digits.
        why = f"it is not valid YAML (line {loader.line + 1}): a number is out of range"
        raise DataError(why, code="settings_not_yaml") from error


def _event_problem(event: yaml.Event, depth: int) -> str | None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        return "YAML anchors and aliases (& and *) are not allowed"
    if getattr(event, "tag", None) is not None:
        return "YAML tags (!) are not allowed"
    return f"lists and mappings are nested more than {MAX_DEPTH} deep" if depth > MAX_DEPTH else None


def _yaml_problem(error: yaml.YAMLError, source: str) -> str:
    """Returns YAML's complaint with its line: a mark, or the position of a character it does not allow."""
    mark = getattr(error, "problem_mark", None)
    text_before = source[: getattr(error, "position", 0)]
    line = mark.line + 1 if mark else len(f"{text_before}.".splitlines())
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
    return f"it is not valid YAML (line {line}): {shortened(problem, 100)}"
