"""Tables for eyes, drawn on a terminal; into a pipe each command writes plain lines of the same facts.

A cell is never broken within a word that fits its column: columns give way down to their longest word, and where the
terminal is narrower than that, each line becomes a block of `head  value`. rich, which measures and styles, is imported
where something is drawn: that takes about as long as everything that `--help` imports.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TextIO

from vlinstruct.cli.terminal import printed, shows_styles
from vlinstruct.errors import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

Style = Literal["", "bold", "dim", "red", "yellow"]
Fields = dict[str, Any]

_GAP = 2
_MIN_STREAMED = 60  # columns; in a narrower terminal a line of a batch is a block
_LINE_MAY_END = re.compile(r"(?<=\w/)|(?<=\w-)(?=\w)")  # within a word: of a path or a hub id, and of a compound
_LONGEST_WORD = 44  # columns that a word may claim; a longer one, which is no word, is broken


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a table: a text per column, and how it looks."""

    cells: tuple[str, ...]
    style: Style = ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table to draw.

    Args:
        lines: as many cells each.
        heads: what stands above the columns; empty for none.
        title: a line above it; empty for none.
        numbers: places of the columns that are set to the right.
    """

    lines: Sequence[Line]
    heads: tuple[str, ...] = ()
    title: str = ""
    numbers: Collection[int] = ()


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the records of a command are shown to people.

    Args:
        plain: one record for a pipe.
        drawn: one record on a terminal; nothing where it is the plain text there, too.
        heads: of a batch's columns, by its first record.
        lines: a record's lines in a batch, the picture's name left out, which is the first column.
    """

    plain: Callable[[Fields], str]
    drawn: Callable[[Fields], Sequence[Grid | str]]
    heads: Callable[[Fields], tuple[str, ...]]
    lines: Callable[[Fields], Sequence[Line]]


def facts(*pairs: tuple[str, str]) -> Grid:
    """Returns a grid without heads: what is said, and what of it."""
    return Grid(lines=[Line(cells=pair) for pair in pairs])


def draw(*parts: Grid | str) -> None:
    """Draws grids and paragraphs on stdout, which is a terminal.

    Raises:
        ResourceError, BrokenPipeError: as `terminal.show`.
    """
    console = console_on(sys.stdout)
    with console.capture() as capture:
        for place, part in enumerate(parts):
            if place and not (isinstance(part, str) and isinstance(parts[place - 1], str)):
                console.print()
            _print(console, part)
    printed(capture.get())


def console_on(stream: TextIO) -> Console:
    """Returns what draws on a terminal, without styles where nobody wants them."""
    from rich.console import Console

    # A dumb terminal is as wide as it is, though rich takes it for 80 columns.
    size = None if shows_styles() else shutil.get_terminal_size()
    return Console(
        file=stream,
        width=size and size.columns,
        height=size and size.lines,
        color_system="auto" if shows_styles() else None,
        markup=False,
        highlight=False,
        emoji=False,
    )


class StreamedTable:
    """The lines of a batch on a terminal, drawn one by one as the results come.

    Args:
        look: what a line says.
        names: of all the items, by which the first column is as wide as it must be; a folder that all share is left
            out.
        console: draws; it keeps a bar below the lines.
    """

    def __init__(self, look: Look, names: Sequence[str], console: Console) -> None:
        self._look, self._console = look, console
        shared = os.path.commonprefix(names) if len(names) > 1 else ""  # noqa: RUF071 - up to its last slash
        self._folder = shared.rfind("/") + 1  # characters that all names begin with
        self._name_width = max((_width(_shown(name[self._folder :], console)) for name in names), default=0)
        self._heads: tuple[str, ...] = ()

    def show(self, name: str, record: Fields) -> None:
        """Draws what became of an item."""
        name = name[self._folder :]
        if record["status"] != "ok":
            lines = [Line(cells=(f"error: {record['message']}",), style="red")]
        else:
            lines = list(self._look.lines(record))
        is_first = not self._heads and record["status"] == "ok"
        if is_first:
            self._heads = ("picture", *self._look.heads(record))
        heads = self._heads or ("picture", "")
        if self._console.width < _MIN_STREAMED:
            for line in lines:
                self._console.print(_block(heads, replace(line, cells=(name, *line.cells)), self._console))
                self._console.print()
            return
        widths = self._widths(len(heads))
        if is_first:
            self._console.print(_table([], heads=heads, widths=widths, console=self._console))
        for place, line in enumerate(lines):
            cells = ("" if place else name, *line.cells)
            fitting = widths if len(cells) == len(widths) else (widths[0], sum(widths[1:]) + _GAP * (len(widths) - 2))
            self._console.print(_table([replace(line, cells=cells)], heads=(), widths=fitting, console=self._console))

    def _widths(self, num_columns: int) -> tuple[int, ...]:
        """Gives each column a fixed share: what comes later is not known yet."""
        room = self._console.width - _GAP * (num_columns - 1)
        name = max(len("picture"), min(self._name_width, room // 3))
        figures = min(14, room // 5)
        return (name, room - name - figures * (num_columns - 2), *[figures] * (num_columns - 2))


def _print(console: Console, part: Grid | str) -> None:
    if isinstance(part, str):
        console.print(_text("\n".join(_wrapped(_shown(part, console), console.width)), ""))
        return
    if part.title:
        console.print(_text("\n".join(_wrapped(_shown(part.title, console), console.width)), "bold"))
    shown = [replace(line, cells=tuple(_shown(cell, console) for cell in line.cells)) for line in part.lines]
    rows = [part.heads, *(line.cells for line in shown)] if part.heads else [line.cells for line in shown]
    widths = _fitted([*zip(*rows, strict=True)], console.width)
    if widths is None:
        for place, line in enumerate(shown):
            if place and part.heads:
                console.print()
            console.print(_block(part.heads, line, console))
        return
    console.print(_table(shown, heads=part.heads, widths=widths, console=console, numbers=part.numbers))


def _table(
    lines: Sequence[Line],
    *,
    heads: tuple[str, ...],
    widths: Sequence[int],
    console: Console,
    numbers: Collection[int] = (),
) -> Table:
    from rich.box import SIMPLE_HEAD, Box
    from rich.table import Table

    # rich's own box for such terminals has bars between the columns and around them.
    in_ascii = Box(str(SIMPLE_HEAD).replace("─", "-"), ascii=True)
    table = Table(
        box=in_ascii if console.options.ascii_only else SIMPLE_HEAD,
        show_header=bool(heads),
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
        header_style="bold",
    )
    for place, width in enumerate(widths):
        head = "\n".join(_wrapped(heads[place], width)) if heads else ""
        table.add_column(head, width=width, no_wrap=True, justify="right" if place in numbers else "left")
    for line in lines:
        cells = [_wrapped(_shown(cell, console), width) for cell, width in zip(line.cells, widths, strict=True)]
        table.add_row(*(_text("\n".join(rows), line.style) for rows in cells))
    return table


def _block(heads: tuple[str, ...], line: Line, console: Console) -> RenderableType:
    """Returns a line as rows of `head  cell`, for a terminal in which columns find no room."""
    names = heads if len(heads) == len(line.cells) else ("",) * len(line.cells)
    room = max(map(_width, names)) + _GAP if any(names) else 0
    rows = []
    for name, cell in zip(names, line.cells, strict=True):
        first, *others = _wrapped(_shown(cell, console), max(console.width - room, 1))
        rows += [f"{name:{room}}{first}", *(" " * room + row for row in others)] if cell else []
    return _text("\n".join(rows), line.style)


def _text(text: str, style: str) -> RenderableType:
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="crop")


def _shown(text: str, console: Console) -> str:
    """Returns what can be shown of a text: no cursor moves, and nothing that the terminal has no letters for."""
    encoding = console.encoding
    return printable(text).encode(encoding, "backslashreplace").decode(encoding)


def _fitted(columns: Sequence[Sequence[str]], width: int) -> tuple[int, ...] | None:
    """Returns a width for every column, the widest of which give way; None where their words do not fit."""
    room = width - _GAP * (len(columns) - 1)
    widths = [min(max(map(_width, cells)), max(room, 1)) for cells in columns]
    least = [min(max(_width(word) for cell in cells for word in _words(cell)), _LONGEST_WORD) for cells in columns]
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max((place for place in range(len(widths)) if widths[place] > least[place]), key=widths.__getitem__)
        widths[widest] -= 1
    return tuple(widths)


def _words(text: str) -> list[str]:
    """Divides a text where a line may end."""
    return [part for word in text.split() for part in _LINE_MAY_END.split(word)] or [""]


def _wrapped(text: str, width: int) -> list[str]:
    """Divides a text into rows; a word that is wider than a row is broken."""
    from rich.cells import chop_cells

    rows = [""]
    for word in text.split(" "):
        gap = " " if rows[-1] else ""
        if _width(rows[-1] + gap + word) <= width:
            rows[-1] += gap + word
            continue
        for place, part in enumerate(_LINE_MAY_END.split(word)):
            gap = " " if rows[-1] and not place else ""
            if _width(rows[-1] + gap + part) <= width:
                rows[-1] += gap + part
                continue
            pieces = chop_cells(part, width)
            rows[-1:] = [rows[-1], *pieces] if rows[-1] else pieces
    return rows


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
