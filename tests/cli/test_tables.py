"""What is drawn on a terminal: columns that fit, words that stay whole, a stranger's text that changes nothing."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable

import pytest
from command_line import vli

from vlinstruct.cli.options import RunOptions
from vlinstruct.cli.run import shown_batch
from vlinstruct.cli.tables import Grid, Line, Look, StreamedTable, console_on, draw, facts
from vlinstruct.errors import VlinstructError
from vlinstruct.operations import BadItem

from .conftest import Pictures

HUB_ID = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
GRID = Grid(
    title="models that are known by name, their size and source",
    heads=("name", "all weights", "source"),
    lines=[
        Line(cells=("smolvlm2-500m", "0.51 B", HUB_ID)),
        Line(cells=("mini", "0.005 B", "what is in this package, for everybody")),
    ],
    numbers=(1,),
)
HOSTILE = ("[bold]x[/] :smile:", "a\x1b[2Jb", "\u202egnp.exe", "one\ntwo", "<script>", "x" * 10_000, "画像の中に" * 30)
Drawn = Callable[..., str]


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Draws parts on a terminal of so many columns, without styles unless it is told to."""

    def on(*parts: Grid | str, columns: int = 80, encoding: str = "utf-8", styles: bool = False) -> str:
        terminal = Terminal(encoding)
        monkeypatch.setattr("sys.stdout", terminal)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("NO_COLOR", "" if styles else "1")
        draw(*parts)
        return terminal.text()

    return on


def words_of(text: str) -> set[str]:
    return set(re.split(r"[\s─-]+|(?<=/)", text)) - {""}


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 140])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(drawn: Drawn, columns: int) -> None:
    text = drawn(GRID, columns=columns)
    assert max(map(len, text.splitlines())) <= columns
    whole = " ".join([GRID.title, *GRID.heads, *(cell for line in GRID.lines for cell in line.cells)])
    assert words_of(text) == words_of(whole)


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_a_stranger_wrote_stays_text_in_its_column(drawn: Drawn, text: str, columns: int) -> None:
    shown = drawn(
        Grid(heads=("answer", "ias"), lines=[Line(cells=(text, "0.50"))]), facts(("why", text)), columns=columns
    )
    assert shown.replace("\n", "").isprintable()
    letters = re.sub(r"\s", "", text.encode("unicode_escape").decode() if not text.isprintable() else text)
    assert letters[:20] in re.sub(r"\s", "", shown)
    from rich.cells import cell_len

    assert max(map(cell_len, shown.splitlines())) <= columns


def test_the_chosen_line_is_bold_and_the_others_are_dim_where_styles_are_wanted(drawn: Drawn) -> None:
    grid = Grid(lines=[Line(cells=("one",), style="bold"), Line(cells=("two",), style="dim")])
    assert re.findall(r"\x1b\[(\d)m(\w+)", drawn(grid, styles=True)) == [("1", "one"), ("2", "two")]
    assert "\x1b" not in drawn(grid)


def test_a_dumb_terminal_is_as_wide_as_it_is_and_gets_no_styles(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    for name, value in {"TERM": "dumb", "COLUMNS": "50"}.items():
        monkeypatch.setenv(name, value)
    draw(GRID)
    assert "\x1b" not in terminal.text()
    assert 40 < max(map(len, terminal.text().splitlines())) <= 50


def test_a_terminal_that_knows_ascii_only_gets_nothing_else(drawn: Drawn) -> None:
    text = drawn(Grid(heads=("a", "b"), lines=[Line(cells=("café", "où?"))]), encoding="ascii")
    assert text.splitlines()[0].split() == ["a", "b"]
    assert text.splitlines()[-1].split() == ["caf\\xe9", "o\\xf9?"]


def look(*cells: str) -> Look:
    return Look(
        plain=str, drawn=lambda record: (), heads=lambda record: ("answer",), lines=lambda record: [Line(cells=cells)]
    )


def streamed(monkeypatch: pytest.MonkeyPatch, columns: int, *records: dict[str, str]) -> list[str]:
    terminal = Terminal()
    for name, value in {"COLUMNS": str(columns), "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    names = [f"a/folder/{place}.png" for place in range(len(records))]
    table = StreamedTable(look("a red star"), names, console_on(terminal))
    for name, record in zip(names, records, strict=True):
        table.show(name, record)
    return terminal.text().splitlines()


OK, BAD = {"status": "ok"}, {"status": "error", "message": "cannot read image (0.png): empty file"}


def test_a_batch_has_its_heads_once_and_a_line_for_each_item(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = streamed(monkeypatch, 80, BAD, OK, OK)
    assert [line.split() for line in lines if "─" not in line] == [
        ["0.png", "error:", *BAD["message"].split()],
        ["picture", "answer"],
        ["1.png", "a", "red", "star"],
        ["2.png", "a", "red", "star"],
    ]


def test_where_there_is_no_room_each_item_is_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    assert streamed(monkeypatch, 40, OK, OK) == [
        *("picture  0.png", "answer   a red star", ""),
        *("picture  1.png", "answer   a red star", ""),
    ]


@pytest.mark.parametrize("command", ["ask", "optimize"])
def test_no_bar_stands_between_records_on_a_terminal(command: str, pictures: Pictures) -> None:
    words = "what is it?"
    typed = (*pictures(2), words) if command == "ask" else (words, *pictures(2))
    shown = vli(command, *typed, "--json", is_terminal=True)
    assert len(shown.records) == 2
    assert not {"━", "\x1b", "\r"} & {*shown.stderr}


def test_no_bar_is_drawn_where_a_program_reads_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may write to the same terminal."""
    reader, writer = os.pipe()
    look = Look(plain=str, drawn=lambda record: (), heads=lambda record: (), lines=lambda record: ())
    items = [BadItem(id=name, error=VlinstructError("no picture")) for name in "ab"]
    said = []
    with open(reader, "rb"), open(writer, "w") as pipe:
        for stdout in (pipe, io.TextIOWrapper(io.BytesIO())):
            error = Terminal()
            monkeypatch.setattr("sys.stdout", stdout)
            monkeypatch.setattr("sys.stderr", error)
            with shown_batch(items, look, RunOptions()) as shown:
                shown.advance()
            said.append("━" in error.text())
    assert said == [False, True], "a file is nobody's terminal"
