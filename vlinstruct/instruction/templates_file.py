"""Reads a file of named texts: YAML lines `name: text` and nothing else.

YAML alone is too generous for a file that strangers may send: its tags build objects, its aliases multiply, its plain
scalars turn into numbers and dates, and a key may occur twice. Events and nodes are looked at; nothing is constructed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from vlinstruct.errors import DataError, joined, shortened

if TYPE_CHECKING:
    import yaml

MAX_FILE_BYTES = 64 * 1024
MAX_WHY_CHARACTERS = 210
_STRING = "tag:yaml.org,2002:str"


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

    from vlinstruct.plain_yaml import compose_plain

    root = compose_plain(source, max_depth=1)
    if not isinstance(root, yaml.MappingNode):
        raise DataError(f"it must be a mapping with the keys {', '.join(names)}")
    problems = _key_problems(root, names) or _type_problems(root)
    if problems:
        raise DataError(joined(problems, max_characters=MAX_WHY_CHARACTERS))
    return {key.value: text.value.strip() for key, text in root.value}


def _key_problems(root: yaml.MappingNode, names: Collection[str]) -> list[str]:
    """Returns the keys that are missing, unknown or there twice."""
    from vlinstruct.plain_yaml import line_of, nearest

    lines = defaultdict(list)
    for key, _ in root.value:
        lines[key.value].append(line_of(key))
    missing = [key for key in names if key not in lines]
    return [
        *(f"key {_shown(key)} occurs twice (lines {at[0]} and {at[1]})" for key, at in lines.items() if len(at) > 1),
        *(f"unknown key {_shown(key)}{nearest(key, names)}" for key in lines if key not in names),
        *([f"missing: {', '.join(missing)}"] if missing else []),
    ]


def _shown(text: str) -> str:
    return repr(shortened(text, 40))


def _type_problems(root: yaml.MappingNode) -> list[str]:
    """Returns the values that YAML takes for something else than a text."""
    return [
        f"{key.value!r} must be a text, got {_shown(text.value)} (line {text.start_mark.line + 1}): put it in quotes"
        for key, text in root.value
        if text.tag != _STRING
    ]
