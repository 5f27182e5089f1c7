"""YAML as far as a file of settings or texts needs it: mappings, lists and scalars, nothing that builds or multiplies.

Events are looked at before nodes are composed, and nothing is constructed: tags would build objects, aliases multiply.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

import yaml

from vlinstruct.errors import DataError, shortened


def compose_plain(source: str, *, max_depth: int) -> yaml.Node | None:
    """Returns the root of a YAML text that has no tags, anchors or aliases; nothing is constructed.

    Args:
        source: one YAML document, or nothing.
        max_depth: how many lists and mappings may lie in each other.

    Returns:
        The root; None where the text holds nothing.

    Raises:
        DataError: anything else; says the line.
    """
    try:
        _check_events(yaml.SafeLoader(source), max_depth)
        return yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise DataError(_yaml_problem(error, source), code="settings_not_yaml") from error


def line_of(node: yaml.Node) -> int:
    """Returns the line on which a node begins, from 1."""
    return node.start_mark.line + 1


def nearest(key: str, names: Collection[str]) -> str:
    """Returns a guess at what was meant, or nothing.

    >>> nearest("learning_rte", ["learning_rate"]), nearest("x", ["learning_rate"])
    ('; did you mean learning_rate?', '')
    """
    near = get_close_matches(key, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _check_events(loader: Any, max_depth: int) -> None:
    """Refuses what a settings file never needs, on the flat event stream: depth costs no stack here."""
    depth = 0
    try:
        while loader.check_event():
            event = loader.get_event()
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if why := _event_problem(event, depth, max_depth):
                raise DataError(f"{why} (line {event.start_mark.line + 1})", code="settings_not_allowed")
    except (ValueError, OverflowError) as error:
        # PyYAML 6.0.3 lets Python's own errors pass: of the escape \U00110000, of a %YAML version of 5,000 digits.
        why = f"it is not valid YAML (line {loader.line + 1}): a number is out of range"
        raise DataError(why, code="settings_not_yaml") from error


def _event_problem(event: yaml.Event, depth: int, max_depth: int) -> str | None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        return "YAML anchors and aliases (& and *) are not allowed"
    if getattr(event, "tag", None) is not None:
        return "YAML tags (!) are not allowed"
    return f"lists and mappings are nested more than {max_depth} deep" if depth > max_depth else None


def _yaml_problem(error: yaml.YAMLError, source: str) -> str:
    """Returns YAML's complaint with its line: a mark, or the position of a character it does not allow."""
    mark = getattr(error, "problem_mark", None)
    before = source[: getattr(error, "position", 0)]
    line = mark.line + 1 if mark else len(f"{before}.".splitlines())
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
    return f"it is not valid YAML (line {line}): {shortened(problem, 100)}"
