"""`vlinstruct chat`: piped questions are data, typed ones a talk; commands, Ctrl-C, exit codes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from clip_fixtures import write_clip, write_sound
from command_line import Result, exit_code_of_main, vli

import vlinstruct
from vlinstruct.backend import Row, Written
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.chat import Chat, ChatSettings
from vlinstruct.cli.chat_input import unquoted_path
from vlinstruct.cli.chat_prompt import COMMANDS, candidates
from vlinstruct.settings import GenerationSettings

from .conftest import Pictures

TALK = b"what?\nwhy is it?\n"
BRIEF = ("--max-new-tokens", 6)
HINT = "notice: type a question, or /help."


@pytest.fixture(scope="module")
def model(tiny_folders: dict[str, Path]) -> vlinstruct.Model:
    return vlinstruct.load(str(tiny_folders["t5"]), device="cpu")


@pytest.fixture
def types(picture: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a chat at a terminal, which does not echo here, so that stdout has prompts and answers."""

    def run(*lines: str, options: tuple[object, ...] = (), stdout_is_terminal: bool = True) -> Result:
        def isatty(stream: object) -> bool:
            return stdout_is_terminal or stream is not sys.stdout

        monkeypatch.setattr("command_line._Stream.isatty", isatty)
        typed = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
        return vli("chat", picture, *options, stdin=typed)

    return run


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the model write pieces whatever it is asked; a signal among them arrives when its turn comes."""

    def set_pieces(*pieces: str | signal.Signals) -> None:
        def stream(self: InstructBlipBackend, *rest: object) -> Iterator[str]:
            for piece in pieces:
                if isinstance(piece, signal.Signals):
                    signal.raise_signal(piece)
                else:
                    yield piece

        monkeypatch.setattr(InstructBlipBackend, "stream", stream)

    return set_pieces


def answers(model: vlinstruct.Model, picture: Path, *questions: str, **settings: object) -> list[str]:
    chat = Chat(model, picture, settings=ChatSettings(**settings))  # type: ignore[arg-type]
    return [chat.ask(question).text for question in questions]


# Piped


def test_piped_questions_are_answered_a_line_each(
    picture: Path, model: vlinstruct.Model, num_seen: list[int], prompts: list[str]
) -> None:
    result = vli("chat", picture, stdin=TALK)
    assert num_seen == [1]
    assert prompts[1].startswith("Question: what? Answer: ")
    assert result.text.splitlines() == answers(model, picture, "what?", "why is it?")
    assert result.stderr == ""


def test_a_line_ends_as_on_any_system_and_is_verbatim_otherwise(picture: Path) -> None:
    records = vli("chat", picture, "--json", stdin=b" a  b? \r\n\tc\n{0} </s> <image>").records
    assert [record["question"] for record in records] == [" a  b? ", "\tc", "{0} </s> <image>"]


def test_a_record_has_the_fields_of_the_readme(
    picture: Path, model: vlinstruct.Model, tiny_folders: dict[str, Path]
) -> None:
    first, second = vli("chat", picture, "--json", stdin=TALK).records
    assert second == {
        "schema": "vlinstruct.chat/1",
        "id": "turn-2",
        "status": "ok",
        "image": str(picture),
        "question": "why is it?",
        "answer": answers(model, picture, "what?", "why is it?")[1],
        "backbone": str(tiny_folders["t5"]),
        "turns_cut": 0,
    }
    assert list(first)[:3] == ["schema", "id", "status"]


BAD = {
    "empty": (b"", "text_empty"),
    "blank": (b" \xe2\x80\x8b", "text_empty"),
    "not_unicode": (b"caf\xe9?", "text_not_unicode"),
    "too_long": (b"a" * 20_001, "text_too_long"),
    "a_line_without_end": (b"a" * 1_200_000, "text_too_long"),
    "unknown_command": (b"/optimise what?", "unknown_command"),
    "nothing_to_optimize": (b"/optimize", "no_question"),
}


@pytest.mark.parametrize(("line", "code"), BAD.values(), ids=BAD)
def test_a_bad_line_costs_its_record_and_the_chat_goes_on(picture: Path, line: bytes, code: str) -> None:
    result = vli("chat", picture, "--json", stdin=line + b"\nwhat?\n")
    bad, good = result.records
    assert (bad["schema"], bad["status"], bad["code"]) == ("vlinstruct.chat/1", "error", code)
    assert bad["message"].isprintable()
    assert good["question"] == "what?"
    assert bad["id"] != good["id"]
    assert "1 of 2 lines failed" in result.refusal(3, stdout=result.stdout)


def test_the_lines_of_answers_are_those_of_the_questions_also_where_some_fail(picture: Path) -> None:
    result = vli("chat", picture, stdin=b"what?\n\n/nothing\nwhat?\n")
    first, failed, last = result.stdout.decode().splitlines()
    assert first
    assert last
    assert failed == ""
    assert result.exit_code == 3
    assert [line.split(" (")[0] for line in result.lines[:2]] == ["error: cannot use text", "error: cannot do"]


def test_an_answer_of_several_lines_is_one_line_in_a_pipe(picture: Path, says: Callable[..., None]) -> None:
    says("one\n", "\ttwo\x1b[2J")
    assert vli("chat", picture, stdin=b"what?\n").stdout == b"one\\n\ttwo\x1b[2J\n"
    assert vli("chat", picture, "--json", stdin=b"what?\n").records[0]["answer"] == "one\n\ttwo\x1b[2J"


@pytest.mark.parametrize("stdin", [b"", b"/quit\nwhat?\n"])
def test_a_chat_in_which_nothing_is_asked_prints_nothing(picture: Path, stdin: bytes) -> None:
    result = vli("chat", picture, stdin=stdin)
    assert (result.text, result.stderr) == ("", "")


def test_ctrl_c_ends_a_piped_chat(
    picture: Path, says: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    says("some", signal.SIGINT)
    assert exit_code_of_chat(monkeypatch, picture, io.TextIOWrapper(io.BytesIO(TALK))) == 130


def exit_code_of_chat(monkeypatch: pytest.MonkeyPatch, picture: Path, stdin: object) -> object:
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "argv", ["vlinstruct", "chat", str(picture)])
    return exit_code_of_main()


# Commands


def test_optimize_prints_what_the_command_prints_and_is_no_turn(picture: Path, prompts: list[str]) -> None:
    expected = vli("optimize", "what?", picture).text
    result = vli("chat", picture, stdin=b"what?\n/optimize\n/optimize what?\nwhy?\n")
    answer, *lines, last = result.text.splitlines()
    assert lines == expected.splitlines() * 2
    assert prompts[-1] == f"Question: what? Answer: {answer} Question: why? Answer:"
    assert last


def test_optimizing_is_recorded_with_the_question_and_by_itself(picture: Path) -> None:
    arguments = ("-O", "--select", "paper", "--json")
    turn, alone = vli("chat", picture, *arguments, stdin=b"what?\n/optimize\n").records
    (record,) = vli("ask", picture, "what?", *arguments).records
    assert {name: turn[name] for name in ("question", "answer", "optimization")}.items() <= record.items()
    assert (alone["schema"], alone["id"], alone["status"]) == ("vlinstruct.optimize/1", "command-1", "ok")
    assert {name: alone[name] for name in ("chosen", "instruction", "reason")}.items() <= record["optimization"].items()
    assert alone["chosen"] == "optimized"


def test_another_picture_begins_a_new_talk(
    pictures: Pictures, model: vlinstruct.Model, num_seen: list[int], tmp_path: Path
) -> None:
    picture, next_picture = pictures(2)
    next_picture = next_picture.rename(tmp_path / "with a space.png")
    first, second = vli("chat", picture, "--json", stdin=f"what?\n/image {next_picture}\nwhat?\n".encode()).records
    assert num_seen == [1, 1]
    assert (first["image"], second["image"]) == (str(picture), str(next_picture))
    assert [second["answer"]] == answers(model, next_picture, "what?")


def test_a_piped_chat_ends_where_its_next_picture_cannot_be_read(picture: Path) -> None:
    result = vli("chat", picture, "--json", stdin=b"what?\n/image none.png\nwhat?\n")
    first, failed = result.records
    assert (first["status"], failed["id"], failed["code"]) == ("ok", "command-1", "image_missing")
    assert "no such file" in result.refusal(4, stdout=result.stdout)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("-", "stdin brings the questions"),
        (".", "this may be several pictures"),
        ("*.png", "this may be several pictures"),
        ("https://example.org/a.png", "URLs are fetched only if typed"),
        ("2", "no such file"),
    ],
)
def test_a_picture_that_cannot_be_talked_about_is_refused(
    image: str, words: str, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(picture.parent)
    assert words in vli("chat", picture, stdin=f"/image {image}\n".encode()).refusal(4)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("none.png",), 4, "no such file"),
        (("-",), 4, "stdin brings the questions"),
        ((), 2, "Missing argument 'IMAGE'"),
        (("none.png", "what?"), 2, "unexpected extra argument"),
        (("none.png", "--num-beams", 0), 2, "num_beams must be 1 to 64, got 0"),
        (("none.png", "--num-beams", 2, "--do-sample"), 2, "sampling needs num_beams 1"),
        (("none.png", "--templates", "none.yaml"), 4, "none.yaml"),
        (("https://example.org/a.png", "--offline"), 9, "--offline forbids fetching"),
    ],
)
def test_what_cannot_begin_is_refused_before_the_model_is_loaded(
    arguments: tuple[object, ...], exit_code: int, words: str
) -> None:
    assert words in vli("chat", *arguments, stdin=TALK).refusal(exit_code)


def test_reset_forgets_the_talk(picture: Path, prompts: list[str]) -> None:
    result = vli("chat", picture, stdin=b"what?\n/reset\nwhy?\n")
    assert prompts == ["what?", "why?"]
    assert result.stderr == "done: turns forgotten: 1.\n"
    assert vli("chat", picture, "-q", stdin=b"/reset\n").stderr == ""


def test_help_is_talk_and_names_every_command(picture: Path) -> None:
    result = vli("chat", picture, "--json", stdin=b"/help\n/help\n")
    assert result.text == ""
    assert result.stderr.count("/optimize [TEXT]") == 2
    unknown = vli("chat", picture, stdin=b"/x\n")
    for command in ("/optimize", "/use", "/image", "/save", "/load", "/reset", "/help", "/quit", "//"):
        assert command in result.stderr
        assert command in unknown.lines[0]


@pytest.mark.parametrize(
    "line", ["/", "/reset all", "/help me", "/quit smoking", "/use it", "/save", "/optimize\tx", "/\x1b[2J"]
)
def test_a_line_that_is_no_command_is_one_printable_line(line: str, picture: Path) -> None:
    result = vli("chat", picture, stdin=line.encode() + b"\n")
    assert (result.exit_code, result.stdout) == (3, b"")
    assert result.lines[0].startswith("error: cannot do (/")
    assert result.lines[0].isprintable()
    assert len(result.lines[0]) <= 300


def test_two_slashes_begin_a_question_with_one(picture: Path) -> None:
    (record,) = vli("chat", picture, "--json", stdin=b"//etc/passwd is what?\n").records
    assert record["question"] == "/etc/passwd is what?"


# Typed


def test_answers_stream_to_a_terminal(
    types: Callable[..., Result], picture: Path, model: vlinstruct.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[str] = []
    original = io.TextIOWrapper.write
    monkeypatch.setattr(
        "command_line._Stream.write", lambda self, text: (writes.append(text), original(self, text))[1], raising=False
    )
    result = types("what?", "why is it?")
    first, second = answers(model, picture, "what?", "why is it?")
    assert result.text == f"> {first}\n> {second}\n> "
    assert result.lines == [HINT, ""]
    assert len(writes) > 10


def test_what_streams_is_escaped(types: Callable[..., Result], says: Callable[..., None]) -> None:
    says("a\x1b", "[2J", "\u202e", "b\n\tc\r")
    assert types("what?").text == "> a\\x1b[2J\\u202eb\n\tc\\r\n> "


@pytest.mark.parametrize("options", [("--json",), ("--json", "--num-beams", 2)])
def test_a_terminal_gets_whole_records(types: Callable[..., Result], options: tuple[object, ...]) -> None:
    result = types("what?", "\udcff", options=options, stdout_is_terminal=False)
    assert [record["status"] for record in result.records] == ["ok", "error"]
    assert result.exit_code == 0
    assert result.lines[-1] == "> > > "


def test_a_prompt_is_no_data(types: Callable[..., Result], picture: Path, model: vlinstruct.Model) -> None:
    result = types("what?", stdout_is_terminal=False)
    assert result.text.splitlines() == answers(model, picture, "what?")
    assert result.lines == [HINT, "> > "]


def test_beams_answer_as_a_whole_with_a_notice(
    types: Callable[..., Result], picture: Path, model: vlinstruct.Model
) -> None:
    result = types("what?", options=("--num-beams", 3))
    (answer,) = answers(model, picture, "what?", generation=GenerationSettings(num_beams=3))
    assert result.text == f"> {answer}\n> "
    assert "--num-beams 1 only" in result.lines[0]


def test_beams_need_no_notice_where_nothing_streams(picture: Path) -> None:
    assert vli("chat", picture, "--num-beams", 3, stdin=b"what?\n").stderr == ""


def test_enter_asks_nothing_and_what_fails_at_a_terminal_ends_with_zero(types: Callable[..., Result]) -> None:
    result = types("", "  ", "/nothing", "caf\udce9?", "/image none.png", "what?")
    assert result.exit_code == 0
    assert [line.split(":")[0] for line in result.lines] == ["notice", "error", "error", "error", ""]
    assert result.text.count("> ") == 7


def test_a_picture_that_cannot_be_read_leaves_a_typed_chat_as_it_was(
    types: Callable[..., Result], prompts: list[str]
) -> None:
    types("what?", "/image none.png", "why?")
    assert prompts[-1].startswith("Question: what? Answer: ")


def test_ctrl_c_stops_an_answer_and_keeps_the_chat(
    types: Callable[..., Result], says: Callable[..., None], prompts: list[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    says("some", signal.SIGINT, "more")
    result = types("what?", "what?")
    assert result.text == "> some> some> "
    assert [line for line in result.lines if line] == [
        HINT,
        "notice: stopped: turn-1 is not kept.",
        "notice: stopped: turn-2 is not kept.",
    ]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stopped_turn_is_not_part_of_the_talk(
    types: Callable[..., Result], prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = InstructBlipBackend.stream

    def stream(self: InstructBlipBackend, row: Row, settings: GenerationSettings) -> Iterator[str | Written]:
        for piece in original(self, row, settings):
            yield piece
            if "stop" in row.prompt:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(InstructBlipBackend, "stream", stream)
    result = types("one?", "stop me?", "two?")
    assert result.exit_code == 0
    first, stopped, second = prompts
    assert "stop me?" in stopped
    assert second.startswith("Question: one? Answer: ")
    assert "stop me?" not in second
    assert first == "one?"


class Keyboard(io.StringIO):
    """A terminal at which lines are typed; a signal among them arrives at the prompt."""

    def __init__(self, *typed: str | signal.Signals) -> None:
        super().__init__()
        self.typed = iter(typed)

    def isatty(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> str:
        line = next(self.typed, "")
        if isinstance(line, signal.Signals):
            signal.raise_signal(line)
        return str(line)


def test_ctrl_c_twice_on_an_empty_line_ends_with_130(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keyboard = Keyboard(signal.SIGINT, "what?\n", signal.SIGINT, signal.SIGINT, "why?\n")
    assert exit_code_of_chat(monkeypatch, picture, keyboard) == 130
    output = capsys.readouterr()
    assert output.err.count("notice: Ctrl-C again, or Ctrl-D, ends the chat.") == 2
    assert len(output.out.splitlines()) == 1
    assert next(keyboard.typed) == "why?\n"


def test_ctrl_c_clears_a_line_as_often_as_it_is_pressed(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vlinstruct.cli.chat_prompt.Prompt.line", "half a line")
    assert exit_code_of_chat(monkeypatch, picture, Keyboard(*[signal.SIGINT] * 3)) == 0
    assert "Ctrl-C again" not in capsys.readouterr().err


def test_exit_alone_leaves_where_it_is_typed_and_is_asked_where_it_is_piped(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keyboard = Keyboard("exit where?\n", " quit \n", "why?\n")
    assert exit_code_of_chat(monkeypatch, picture, keyboard) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert next(keyboard.typed) == "why?\n"
    assert vli("chat", picture, stdin=b"exit\n").text.count("\n") == 1


def test_turns_that_no_longer_fit_are_counted(picture: Path) -> None:
    result = vli("chat", picture, "--json", stdin=f"{'x' * 300}?\n{'y' * 300}?\nz?\n".encode())
    assert [record["turns_cut"] for record in result.records] == [0, 1, 1]
    assert result.stderr == "notice: the prompt has no room for the first turns; left out: 1\n"


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 6, "num_beams": 3, "length_penalty": -1.0},
        {"max_new_tokens": 6, "do_sample": True, "temperature": 0.3, "top_p": 0.5, "seed": 7},
    ],
)
def test_options_of_generation_reach_the_model(
    settings: dict[str, float], picture: Path, model: vlinstruct.Model
) -> None:
    typed = [
        part
        for name, value in settings.items()
        for part in (f"--{name.replace('_', '-')}", *([] if value is True else [value]))
    ]
    config = GenerationSettings(**settings)  # type: ignore[arg-type]
    expected = answers(model, picture, "what?", "why is it?", generation=config)
    assert vli("chat", picture, *typed, stdin=TALK).text.splitlines() == expected


def test_asking_for_help_imports_nothing_heavy() -> None:
    code = """
import sys
import vlinstruct.chat, vlinstruct.cli.chat, vlinstruct.cli.main
print(sorted({"torch", "numpy", "PIL", "tokenizers", "readline"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_picture_may_be_named_as_terminals_paste_it(picture: Path, tmp_path: Path) -> None:
    for name in ("two words.png", "it's.png", "'quoted'.png"):
        (tmp_path / name).write_bytes(picture.read_bytes())
    typed = [
        "'{0}/two words.png'",
        '"{0}/two words.png"',
        "{0}/two\\ words.png",
        "{0}/two words.png",
        "  '{0}/two words.png'  ",
        "{0}/it's.png",
        "{0}/'quoted'.png",
        '"{0}/it\'s.png"',
    ]
    lines = [f"/image {text.format(tmp_path)}\n" for text in typed]
    result = vli("chat", picture, stdin="".join(lines).encode())
    assert result.text == ""
    names = [line.partition(f"about {tmp_path}/")[2].partition(". /image")[0] for line in result.lines]
    assert names == [*["two words.png"] * 5, "it's.png", "'quoted'.png", "it's.png"]


def test_several_pictures_after_image_are_not_taken_for_one(picture: Path) -> None:
    result = vli("chat", picture, stdin=f"/image {picture} {picture}\n".encode())
    assert "no such file" in result.stderr
    assert result.exit_code == 4


def test_an_empty_answer_is_said(picture: Path, says: Callable[..., None]) -> None:
    says("")
    result = vli("chat", picture, stdin=b"what?\nwhy?\n")
    assert result.text == "\n\n"
    assert [line.partition(":")[2].partition(":")[0] for line in result.lines] == [" turn-1", " turn-2"]


def test_a_paste_of_100_000_characters_is_refused_and_the_chat_goes_on(types: Callable[..., Result]) -> None:
    result = types("a" * 100_000, "what?", options=("--json",))
    failed, answered, _ = [json.loads(line.removeprefix("> ") or "{}") for line in result.text.splitlines()]
    assert "100,000 characters" in failed["message"]
    assert answered["question"] == "what?"


# Follow-ups


FOLLOW_UP = b"what colour is the circle?\nand the square?\n"


def test_a_follow_up_is_asked_as_a_whole_question_and_recorded_as_typed(picture: Path, prompts: list[str]) -> None:
    first, second = vli("chat", picture, "--json", *BRIEF, stdin=FOLLOW_UP).records
    assert prompts[-1].endswith("Question: what colour is the square? Answer:")
    assert (second["question"], second["instruction"]) == ("and the square?", "what colour is the square?")
    assert "instruction" not in first
    _, typed = vli("chat", picture, "--json", "--verbatim", *BRIEF, stdin=FOLLOW_UP).records
    assert prompts[-1].endswith("Question: and the square? Answer:")
    assert "instruction" not in typed


def test_who_types_a_follow_up_is_told_what_was_asked(
    types: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    result = types("what colour is the circle?", "and the square?", "/optimize what?", "/use", options=BRIEF)
    asked = [line for line in result.lines if line.startswith("asked: ")]
    assert asked[0] == 'asked: "what colour is the square?"'
    assert len(asked) == 2
    result = types(
        "what colour is the circle?", "and the square?", options=("-O", "--when", "unsure", "--sure-above", 0, *BRIEF)
    )
    asked = [line for line in result.lines if line.startswith("asked: ")]
    assert asked[0].startswith("asked: your words, left alone")
    assert asked[1].startswith('asked: "what colour is the square?", left alone')


# What /optimize found


def test_use_asks_what_optimize_found_and_nothing_else(picture: Path, prompts: list[str]) -> None:
    arguments = ("--json", "-O", "--select", "paper", *BRIEF)
    _, found, used = vli("chat", picture, *arguments, stdin=b"name 2 things\n/optimize\n/use\n").records
    assert (used["id"], used["question"]) == ("turn-2", found["instruction"])
    assert "optimization" not in used
    assert prompts[-1].endswith(f"Question: {found['instruction']} Answer:")


@pytest.mark.parametrize(
    "before",
    [b""]
    + [pytest.param(b"/optimize what?\n" + line, marks=pytest.mark.slow) for line in (b"/reset\n", b"/image {next}\n")],
)
def test_use_needs_something_that_was_found(before: bytes, pictures: Pictures) -> None:
    picture, next_picture = pictures(2)
    stdin = before.replace(b"{next}", str(next_picture).encode()) + b"/use\n"
    result = vli("chat", picture, stdin=stdin)
    assert result.exit_code == 3
    assert "error: cannot do (/use): nothing was optimized yet. Type /optimize first" in result.lines
    assert result.stdout.endswith(b"\n\n" if before else b"\n")  # its line of stdout is there, and empty


# Several pictures


def test_a_number_goes_back_to_a_picture_and_its_conversation(
    pictures: Pictures, prompts: list[str], num_seen: list[int]
) -> None:
    picture, next_picture = pictures(2)
    lines = f"what?\n/image {next_picture}\nwhy?\n/image 1\nwho?\n/image 2\nwhen?\n/image\n"
    first, second, third, fourth = (result := vli("chat", picture, "--json", *BRIEF, stdin=lines.encode())).records
    assert num_seen == [1, 1]
    assert [record["image"] for record in (first, second, third, fourth)] == [str(picture), str(next_picture)] * 2
    assert prompts[2] == f"Question: what? Answer: {first['answer']} Question: who? Answer:"
    assert prompts[3] == f"Question: why? Answer: {second['answer']} Question: when? Answer:"
    assert result.lines[-2:] == [f"  1  {picture} (2 turns)", f"* 2  {next_picture} (2 turns)"]


def test_a_name_in_the_list_of_pictures_is_printable(picture: Path, tmp_path: Path) -> None:
    name = tmp_path / "\x1b[2J\u202e.png"
    name.write_bytes(picture.read_bytes())
    assert all(line.isprintable() for line in vli("chat", str(name), stdin=b"/image\n").lines)


@pytest.mark.slow
def test_a_clip_is_talked_about_and_a_sound_that_the_model_does_not_take_is_refused(
    types: Callable[..., Result], tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    sound = write_sound(tmp_path / "a.wav", np.zeros(16_000, dtype=np.float32))
    lines = (f"/image {clip}", "what?", f"/image {sound}", "why?")
    options = ("--json", "--backbone", "mini")
    first, failed, second = types(*lines, options=options, stdout_is_terminal=False).records
    assert (first["image"], second["image"]) == (str(clip), str(clip))
    assert failed["code"] == "media_not_taken"


# Saved and loaded


def test_what_is_saved_comes_back_with_its_pictures_and_is_not_asked_again(
    pictures: Pictures, prompts: list[str], tmp_path: Path
) -> None:
    picture, next_picture = pictures(2)
    file = tmp_path / "two words.jsonl"
    lines = (
        f"what?\n/image {next_picture}\nwhat colour is the star?\nand the ring?\n/image {picture}\nwho?\n/save {file}\n"
    )
    saved = vli("chat", picture, "--json", *BRIEF, stdin=lines.encode()).records
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["picture"] for record in records] == [1, 2, 2, 3]
    assert [{**record, "picture": 0} for record in records] == [{**record, "picture": 0} for record in saved]
    prompts.clear()
    result = vli("chat", picture, "--json", stdin=f"/load '{file}'\nwhy?\n/image 3\nwhy?\n/image\n".encode())
    assert prompts[0] == f"Question: who? Answer: {records[3]['answer']} Question: why? Answer:"
    assert prompts[1].startswith("Question: what colour is the star? Answer: ")
    assert "Question: what colour is the ring? Answer: " in prompts[1]
    assert len(prompts) == 2
    assert [line.rpartition("(")[2] for line in result.lines[-4:]] == ["0 turns)", "1 turn)", "3 turns)", "2 turns)"]


@pytest.mark.slow
def test_what_json_wrote_is_loaded_too(picture: Path, prompts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_bytes(vli("chat", picture, "--json", stdin=b"what?\n/optimize\n/nothing\nwhy?\n").stdout)
    vli("chat", picture, stdin=f"/load {file}\nwho?\n".encode())
    assert prompts[-1].startswith("Question: what? Answer: ")
    assert prompts[-1].endswith("Question: who? Answer:")
    assert prompts[-1].count("Question: ") == 3


def test_a_picture_is_looked_for_beside_the_file_that_names_it(picture: Path, tmp_path: Path) -> None:
    file = picture.parent / "chat.jsonl"
    file.write_text(json.dumps({**TURN, "image": picture.name}) + "\n")
    (record,) = vli("chat", picture, "--json", stdin=f"/load {file}\nwhy?\n".encode()).records
    assert record["image"] == str(picture)


def test_a_file_is_replaced_only_where_that_is_typed_or_it_is_the_chats_own(
    types: Callable[..., Result], picture: Path, tmp_path: Path
) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text("mine")
    result = vli("chat", picture, stdin=f"what?\n/save {file}\n".encode())
    assert f"cannot save ({file}): it is there already" in result.lines[0]
    assert file.read_text() == "mine"
    result = vli("chat", picture, stdin=f"what?\n/save --overwrite {file}\n".encode())
    assert "only if that is typed" in result.lines[0]
    assert file.read_text() == "mine"
    lines = ("what?", f"/save --overwrite {file}", "why?", f"/save {file}", f"/load {file}", f"/save {file}")
    result = types(*lines, options=BRIEF)
    saved = [line for line in result.lines if "saved" in line]
    assert saved == [
        f"done: {turns} saved to {file}, which was replaced." for turns in ("1 turn", "2 turns", "4 turns")
    ]
    assert len(file.read_text().splitlines()) == 4


@pytest.mark.parametrize(("name", "words"), [("none/x.jsonl", "its folder does not exist"), (".", "it is a directory")])
def test_what_cannot_be_saved_is_said(name: str, words: str, picture: Path) -> None:
    result = vli("chat", picture, stdin=f"what?\n/save {name}\n".encode())
    assert words in result.lines[0]
    assert "nothing was answered yet" in vli("chat", picture, stdin=f"/save {name}\n".encode()).lines[0]


TURN = {"schema": "vlinstruct.chat/1", "id": "t", "status": "ok", "image": "a.png", "backbone": "mini"}
TURN |= {"question": "what?", "answer": "a star", "turns_cut": 0}
BAD_FILES = {
    "empty": (b"", "it holds no turn of a chat"),
    "binary": (b"\x89PNG\r\n\x1a\n" + bytes(99), "it is no text"),
    "no_json": (b"hello", "line 1"),
    "list": (b"[1]", "line 1"),
    "foreign": (b'{"schema": "openai/1", "question": "what?"}', "it is no record of a chat"),
    "without_schema": (b'{"question": "what?"}', "field 'schema' is missing"),
    "no_picture": (json.dumps({**TURN, "image": ""}).encode(), "field 'image' is empty"),
    "gone": (json.dumps({**TURN, "image": "gone.png"}).encode(), "no such file"),
    "url": (json.dumps({**TURN, "image": "https://example.org/a.png"}).encode(), "URLs are fetched only if typed"),
    "many": (json.dumps({**TURN, "image": "*"}).encode(), "this may be several pictures"),
    "blank_question": (json.dumps({**TURN, "question": " "}).encode(), "it is empty or blank"),
    "no_answer": (json.dumps({**TURN, "answer": 7}).encode(), "field 'answer' is no text"),
    "surrogate": (json.dumps({**TURN, "answer": "\ud800"}).encode(), "not valid Unicode"),
    "negative": (json.dumps({**TURN, "turns_cut": -1}).encode(), "field 'turns_cut' is -1"),
    "later_line": (json.dumps(TURN).encode() + b"\n{", "line 2"),
}


@pytest.mark.parametrize(("content", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_no_chat_is_refused_in_one_line(
    content: bytes, words: str, picture: Path, tmp_path: Path
) -> None:
    file = tmp_path / "\x1b[2J.jsonl"
    file.write_bytes(content)
    assert words in vli("chat", picture, stdin=f"/load {file}\nwhat?\n".encode()).refusal(4)


def test_a_file_that_cannot_be_loaded_leaves_a_typed_chat_as_it_was(
    types: Callable[..., Result], prompts: list[str], tmp_path: Path, picture: Path
) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text("".join(json.dumps({**TURN, "image": str(image)}) + "\n" for image in (picture, "gone.png")))
    result = types("what?", f"/load {file}", "why?", "/image")
    assert prompts[-1].startswith("Question: what? Answer: ")
    assert result.lines[-2] == f"* 1  {picture} (2 turns)"


# Tab


def test_tab_completes_commands_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    for name in ("two words.png", "it's.png", "notes.jsonl", ".hidden.png", "pictures/a.mp4"):
        (tmp_path / name).touch()
    assert candidates("/") == [
        f"{name} " if name in ("/optimize", "/image", "/save", "/load") else name for name in COMMANDS
    ]
    assert candidates("/image ") == ["/image it's.png", "/image pictures/", "/image two words.png"]
    assert candidates("/image two w") == ["/image two words.png"]
    assert candidates("/image 'two w") == ["/image 'two words.png'"]
    assert unquoted_path("'it's.png'") == "it's.png"
    assert candidates("/image .h") == ["/image .hidden.png"]
    assert candidates("/image ~/pic") == ["/image ~/pictures/"]
    assert candidates("/image pictures/") == ["/image pictures/a.mp4"]
    assert candidates("/load n") == ["/load notes.jsonl"]
    for line in ("", "what", "/x", "/reset ", "/image none/", "/image \0", "/optimize t"):
        assert candidates(line) == []


_TERMINAL = """
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "stays" else signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-m", "vlinstruct", *sys.argv[2:]])
shown = b""
while b"> " not in shown:
    shown += os.read(terminal, 1024)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("hangup", "exit_code"), [("ends", -1), ("stays", 0)])
def test_a_terminal_that_goes_away_ends_the_chat(hangup: str, exit_code: int, picture: Path) -> None:
    """With SIGHUP, which ends it; or, where that is ignored as under nohup, as Ctrl-D does."""
    command = [sys.executable, "-c", _TERMINAL, hangup, "chat", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{exit_code}\n", "")


_KEYS = """
import os, pty, signal, sys, termios, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.executable, [sys.executable, "-m", "vlinstruct", "chat", sys.argv[1]])
shown = b""
def shown_before(words):
    global shown
    while words not in shown:
        shown += os.read(terminal, 1024)
    before, _, shown = shown.partition(words)
    # Python's readline misses a signal that comes before it waits for one: until the chat sleeps and takes no time.
    taken = None
    while (now := processor_time()) is None or now != taken:
        taken = now
        time.sleep(0.3)
    return before.decode()
def processor_time():
    with open(f"/proc/{pid}/stat") as file:
        state, *numbers = file.read().rpartition(")")[2].split()
    return numbers[10:12] if state == "S" else None
shown_before(b"> ")
for key in (b"half a line\\x03", b"/ima\\tnext\\t\\n"):
    os.write(terminal, key)
    said = shown_before(b"> ")
print(said.partition("about ")[2].partition(". ")[0])
# Another thread that took the signal would leave the one that waits for a key asleep.
for thread in os.listdir(f"/proc/{pid}/task"):
    with open(f"/proc/{pid}/task/{thread}/status") as file:
        mask = next(line for line in file if line.startswith("SigBlk:")).split()[1]
    assert (thread != str(pid)) == bool(int(mask, 16) >> (signal.SIGCONT - 1) & 1), thread
os.kill(pid, signal.SIGSTOP)
os.waitpid(pid, os.WUNTRACED)
modes = termios.tcgetattr(terminal)
modes[3] |= termios.ICANON | termios.ECHO  # as a shell sets them
termios.tcsetattr(terminal, termios.TCSANOW, modes)
os.kill(pid, signal.SIGCONT)
shown_before(b"> ")
print(bool(termios.tcgetattr(terminal)[3] & termios.ICANON))
os.write(terminal, b"\\x04")
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.slow
def test_keys_clear_a_line_complete_a_path_and_stop_the_chat_for_a_while(pictures: Pictures, tmp_path: Path) -> None:
    picture, next_picture = pictures(2)
    next_picture.rename(tmp_path / "next one.png")
    command = [sys.executable, "-c", _KEYS, str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert (done.stdout.splitlines(), done.stderr) == (["next one.png", "False", "0"], "")
