"""Reads a file of named texts: YAML lines `name: text` and nothing else.

YAML alone is too generous for a file that strangers may send: its tags build objects, its aliases multiply, its plain
scalars turn into numbers and dates, and a key may occur twice. Events and nodes are looked at; nothing is constructed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from vlinstruct.data.text import shortened
from vlinstruct.errors import DataError

if TYPE_CHECKING:
    import yaml

MAX_FILE_BYTES = 64 * 1024
_STRING = "tag:yaml.org,2002:str"


def one_line(problems: list[str]) -> str:
    """Joins problems to one line, the first two by name: a message has room for no more.

    >>> one_line(["a", "b"]), one_line(["a", "b", "c"])
    ('a; b', 'a; b; and 1 more')
    """
    shown, hidden = problems[:2], len(problems) - 2
    return "; ".join([*shown, f"and {hidden} more"] if hidden > 0 else shown)


def read_text(path: str | Path) -> str:
    """Returns the file's text.

    Raises:
        DataError: no such file, no permission, more than 64 KiB, or not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"it cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"it is larger than {MAX_FILE_BYTES // 1024} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8 (byte {error.start})") from error


def parse_texts(source: str, *, names: Collection[str]) -> dict[str, str]:
    """Returns the texts by name, without the white space around them.

    Args:
        source: YAML, a mapping of `names` to texts.
        names: the keys that must be there, each once, and no others.

    Raises:
        DataError: anything but that; the problems of the keys are named together.

    >>> parse_texts("score: |\\n  as typed: {x}\\n", names=["score"])
    {'score': 'as typed: {x}'}
    """
    import yaml

    try:
        _refuse_nesting(source)
        root = yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise DataError(_yaml_problem(error)) from error
    if not isinstance(root, yaml.MappingNode):
        raise DataError(f"it must be a mapping with the keys {', '.join(names)}")
    problems = _key_problems(root, names) or _type_problems(root)
    if problems:
        raise DataError(one_line(problems))
    return {key.value: text.value.strip() for key, text in root.value}


def _refuse_nesting(source: str) -> None:
    """Refuses aliases and anything below the top level, on the flat event stream: depth costs no stack here."""
    import yaml

    depth = 0
    for event in yaml.parse(source, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise DataError(f"{_line(event)}: YAML aliases (*) are not allowed, write the text out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > 1:
            raise DataError(f"{_line(event)}: a text is expected here, not a list or mapping")


def _line(event: yaml.Event) -> str:
    """Returns where the event is; yaml's types allow a missing place, its reader does not."""
    return f"line {event.start_mark.line + 1}" if event.start_mark else "the file"


def _key_problems(root: yaml.MappingNode, names: Collection[str]) -> list[str]:
    """Returns the keys that are missing, unknown or there twice."""
    lines = defaultdict(list)
    for key, _ in root.value:
        lines[key.value].append(key.start_mark.line + 1)
    missing = [key for key in names if key not in lines]
    return [
        *(f"key {_shown(key)} occurs twice (lines {at[0]} and {at[1]})" for key, at in lines.items() if len(at) > 1),
        *(f"unknown key {_shown(key)}{_nearest(key, names)}" for key in lines if key not in names),
        *([f"missing: {', '.join(missing)}"] if missing else []),
    ]


def _shown(text: str) -> str:
    return repr(shortened(text, 40))


def _nearest(key: str, names: Collection[str]) -> str:
    """Returns a guess at what was meant, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(key, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _type_problems(root: yaml.MappingNode) -> list[str]:
    """Returns the values that YAML takes for something else than a text."""
    return [
        f"{key.value!r} must be a text, got {_shown(text.value)} (line {text.start_mark.line + 1}): put it in quotes"
        for key, text in root.value
        if text.tag != _STRING
    ]


def _yaml_problem(error: yaml.YAMLError) -> str:
    """Returns YAML's complaint as one line with its place."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
    return f"it is not valid YAML{f' (line {mark.line + 1})' if mark else ''}: {problem}"
