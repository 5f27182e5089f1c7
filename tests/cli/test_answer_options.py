"""The options of optimization: every command has them, they reach the model, and none is dropped without a word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, vli

from vlinstruct.backend import Row, Written
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.chat import Chat
from vlinstruct.errors import UsageError
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Failed

from .conftest import Pictures

BRIEF = ("--max-new-tokens", 4)
REWRITTEN = "Which one is it?"
ALL = ("--select", "cross", "--when", "unsure", "--keep", "left, not", "--keep", "red", "--rewritings", 3)
ALL += ("--try", "what is it?", "--least-certainty", 0.25, "--max-cross-nll", 1.5, "--sure-above", 0.75)
EXPECTED = OptimizationSettings(
    select="cross",
    when="unsure",
    keep=("left", "not", "red"),
    variants=("what is it?",),
    num_rewritings=3,
    least_certainty=0.25,
    max_cross_nll=1.5,
    sure_above=0.75,
)
Words = tuple[object, ...]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the model write at once: a rewriting, what it makes of two instructions, an answer."""

    def write(self: object, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        texts = {"rewrite": REWRITTEN, "compare": "tell me", "answer": "red", "judge": "red"}
        return [Written(text=texts[row.stage], token_nll=(0.5,)) for row in rows]

    monkeypatch.setattr(InstructBlipBackend, "write", write)


@pytest.fixture
def settings_of(picture: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., OptimizationSettings]:
    """Runs a command and returns the settings that its optimization got."""

    def run(command: str, *options: object) -> OptimizationSettings:
        seen: list[OptimizationSettings] = []
        commands: dict[str, tuple[type, str, Words]] = {
            "ask": (Model, "ask_each", ("ask", picture, "what?", "-O", *BRIEF)),
            "optimize": (Model, "optimize_each", ("optimize", "what?", picture)),
            "answer": (Model, "ask_each", ("optimize", "what?", picture, "--answer", *BRIEF)),
            "shared": (Model, "optimize_chunks", ("optimize", "what?", picture, "--shared")),
            "chat": (Chat, "_optimized", ("chat", picture, "-O", *BRIEF)),
        }
        owner, name, words = commands[command]

        def spy(self: Any, *arguments: Any, **named: Any) -> Any:
            seen.append(named["optimization"] if owner is Model else self.settings.optimization)
            raise UsageError("seen")

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, spy)
            assert "seen" in vli(*words, *options, stdin=b"what?\n").refusal(2)
        return seen[0]

    return run


@pytest.mark.parametrize("command", ["ask", "answer", "chat"])
def test_every_option_reaches_what_answers(settings_of: Callable[..., OptimizationSettings], command: str) -> None:
    assert settings_of(command, *ALL) == EXPECTED
    assert settings_of(command) == OptimizationSettings()


@pytest.mark.parametrize("command", ["optimize", "shared"])
def test_what_asks_for_an_instruction_has_all_but_the_gate(
    settings_of: Callable[..., OptimizationSettings], command: str
) -> None:
    options = ("--select", "agree", "--keep", "not", "--try", "is it?", "--rewritings", 2, "--least-certainty", 0)
    assert settings_of(command, *options) == OptimizationSettings(
        select="agree", keep=("not",), variants=("is it?",), num_rewritings=2, least_certainty=0
    )
    assert settings_of(command, "--max-cross-nll", 2) == OptimizationSettings(max_cross_nll=2)


PAPER = "with --select paper, which always takes the optimized instruction"
ASK = ("ask", "PICTURE", "what?")
OPTIMIZE = ("optimize", "what?", "PICTURE")
IDLE: dict[str, tuple[Words, str]] = {
    "ask": ((*ASK, "--keep", "not", "--try", "is it?"), "--keep and --try change nothing without --optimize"),
    "ask_select": ((*ASK, "--select", "paper"), "--select changes nothing without --optimize"),
    "ask_templates": ((*ASK, "--templates", "mine.yaml"), "--templates changes nothing without --optimize"),
    "keep": ((*ASK, "-O", "--select", "paper", "--keep", "not"), f"--keep changes nothing {PAPER}"),
    "try": ((*OPTIMIZE, "--select", "paper", "--try", "x"), f"--try changes nothing {PAPER}"),
    "rewritings": ((*OPTIMIZE, "--select", "paper", "--rewritings", 2), f"--rewritings changes nothing {PAPER}"),
    "least": (
        (*ASK, "-O", "--select", "paper", "--least-certainty", 0.5),
        f"--least-certainty changes nothing {PAPER}",
    ),
    "cross_ias": (
        (*ASK, "-O", "--select", "ias", "--max-cross-nll", 1),
        "--max-cross-nll changes nothing with --select",
    ),
    "cross_agree": ((*OPTIMIZE, "--select", "agree", "--max-cross-nll", 1), "--max-cross-nll changes nothing with"),
    "sure_rule": ((*ASK, "-O", "--select", "ias", "--sure-above", 0.5), "it belongs to --when unsure"),
    "sure_always": ((*ASK, "-O", "--when", "always", "--sure-above", 0.5), "it belongs to --when unsure"),
    "sure_optimize": ((*OPTIMIZE, "--sure-above", 0.5), "--sure-above changes nothing without --answer"),
    "when_optimize": ((*OPTIMIZE, "--when", "unsure"), "--when changes nothing without --answer"),
    "when_shared": ((*OPTIMIZE, "--shared", "--when", "unsure"), "--when changes nothing with --shared"),
    "sure_chat": (("chat", "PICTURE", "--sure-above", 0.5), "--sure-above changes nothing without --optimize"),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("words", "expected"), IDLE.values(), ids=IDLE)
def test_what_has_no_effect_is_refused(picture: Path, words: Words, expected: str) -> None:
    assert expected in vli(*(picture if word == "PICTURE" else word for word in words)).refusal(2)


BAD: dict[str, tuple[Words, int, str]] = {
    "select": (("--select", "best"), 2, "'best' is not one of 'safe', 'cross', 'agree', 'ias', 'paper'"),
    "when": (("--when", "never"), 2, "'never' is not one of 'unsure', 'always'"),
    "keep": (("--keep", "left,,not"), 2, '--keep needs words with commas between. Type: --keep "left,not".'),
    "rewritings": (("--rewritings", 0), 2, "greater than or equal to 1"),
    "cross": (("--max-cross-nll", 0), 2, "max_cross_nll must be above 0, got 0.0"),
    "sure": (("--sure-above", "nan"), 2, "sure_above must be 0 to 1, got nan"),
    "try": (("--try", " "), 4, "cannot use text (--try): it is empty or blank"),
    "file": (("--try", "@none.txt"), 4, "cannot read text (@none.txt)"),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("options", "exit_code", "expected"), BAD.values(), ids=BAD)
def test_a_bad_value_is_one_line_before_the_model_is_loaded(
    picture: Path, options: Words, exit_code: int, expected: str
) -> None:
    assert expected in vli("ask", picture, "what?", "-O", *options).refusal(exit_code)


def test_a_file_of_instructions_is_tried_line_by_line(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "tries.txt").write_text("what is it?\n\nwho is it?\n")
    options = ("--try", f"@{tmp_path / 'tries.txt'}", "--try", "@@home?", "--json")
    (record,) = vli("optimize", "what?", picture, *options).records
    assert [record[f"variant_{place}"]["text"] for place in (1, 2, 3)] == ["what is it?", "who is it?", "@home?"]
    lines = vli("optimize", "what?", picture, *options[:-1]).text.splitlines()
    assert lines[3] == f"variant 1  {record['variant_1']['ias']:8.4f}  what is it?"


def test_what_a_user_tries_may_be_chosen_and_is_asked(picture: Path) -> None:
    texts = [chr(code) * 3 for code in range(97, 123)]
    (scored,) = vli("score", picture, "--json", "--", *texts, "what?", REWRITTEN, "tell me").records
    best = min(scored["scores"], key=lambda entry: entry["ias"])["instruction"]
    assert best in texts
    tries = [word for text in texts for word in ("--try", text)]
    (record,) = vli("ask", picture, "what?", "-O", "--select", "ias", *tries, *BRIEF, "--json").records
    assert record["optimization"]["chosen"] == f"variant_{1 + texts.index(best)}"
    assert record["instruction"] == best


@pytest.mark.parametrize("more", [(), ("--sure-above", 0)])
def test_an_instruction_that_is_asked_for_is_always_written(picture: Path, more: Words) -> None:
    """Only what answers may leave the words alone: `--sure-above 0` does so always."""
    answer = ("--answer", *BRIEF) if more else ()
    (record,) = vli("optimize", "what?", picture, *answer, *more, "--json").records
    assert ("rewritten" in record) is not bool(more)


def test_both_answers_are_shown_with_what_is_known_of_them(picture: Path) -> None:
    words = ("optimize", "what?", picture, "--answer", *BRIEF, "--when", "always", "--max-cross-nll", 99)
    (record,) = vli(*words, "--json").records
    *_, reason, typed, chosen = vli(*words).text.splitlines()
    assert reason == f"chosen     {record['chosen']}: {record['reason']}"
    assert typed == f"answer     {record['initial_answer']}  (as typed, certainty {record['initial_certainty']:.2f})"
    about = f"chosen, certainty {record['certainty']:.2f}"
    if record["chosen"] != "initial":
        about += f", cross check {record[record['chosen']]['cross_nll']:.2f} nats"
    assert chosen == f"answer     {record['answer']}  ({about})"


def test_words_that_are_left_alone_are_shown_with_the_reason(picture: Path) -> None:
    words = ("optimize", "what?", picture, "--answer", *BRIEF, "--sure-above", 0)
    (record,) = vli(*words, "--json").records
    first, reason, typed, chosen = vli(*words).text.splitlines()
    assert first == "initial    not asked for  what?"
    assert reason == f"chosen     initial: {record['reason']}"
    assert "certain" in record["reason"]
    assert typed.removesuffix(f"(as typed, certainty {record['certainty']:.2f})") == f"answer     {record['answer']}  "
    assert chosen.removesuffix(f"(chosen, certainty {record['certainty']:.2f})") == f"answer     {record['answer']}  "


# What was asked


def ask(picture: Path, *options: object, is_terminal: bool = True) -> Result:
    return vli("ask", picture, "what?", "-O", *BRIEF, *options, is_terminal=is_terminal)


def test_who_watches_sees_dimly_what_was_asked(picture: Path) -> None:
    left_alone = ask(picture, "--sure-above", 0)
    (line,) = left_alone.lines
    certainty = ask(picture, "--sure-above", 0, "--json").records[0]["optimization"]["initial"]["certainty"]
    assert line == f"\x1b[2masked: your words, left alone (sure of the answer: {certainty:.2f})\x1b[0m"
    (record,) = ask(picture, "--select", "paper", "--json").records
    initial, optimized = (record["optimization"][role]["ias"] for role in ("initial", "optimized"))
    (line,) = ask(picture, "--select", "paper").lines
    assert line.startswith('\x1b[2masked: "')
    assert line.endswith(f'" (IAS {initial:.2f} -> {optimized:.2f})\x1b[0m')


def test_where_no_other_instruction_can_be_used_the_reason_is_said(picture: Path) -> None:
    words = ("--when", "always", "--max-cross-nll", 1e-9)
    reason = ask(picture, *words, "--json").records[0]["optimization"]["reason"]
    (line,) = ask(picture, *words).lines
    assert line[4:-4].startswith(f"asked: your words: {reason[:60]}")


def test_data_and_pipes_get_the_answer_alone(picture: Path) -> None:
    answer = ask(picture, "--sure-above", 0).text
    for silent in (
        ask(picture, "--sure-above", 0, "--quiet"),
        ask(picture, "--sure-above", 0, "--json"),
        ask(picture, "--sure-above", 0, is_terminal=False),
        vli("ask", picture, "what?", *BRIEF, is_terminal=True),
    ):
        assert silent.stderr == ""
    assert ask(picture, "--sure-above", 0, is_terminal=False).text == answer


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_without_styles_gets_plain_words(
    picture: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert ask(picture, "--sure-above", 0).stderr.startswith("asked: your words")


def test_a_batch_has_it_in_its_records_alone(pictures: Pictures) -> None:
    result = vli("ask", *pictures(2), "what?", "-O", *BRIEF, "--sure-above", 0, "--json", is_terminal=True)
    assert len(result.records) == 2
    assert "asked" not in result.stderr


def test_a_chat_says_it_below_the_answer(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """stdout and stderr are one terminal here: what is said must not stand in the answer's line."""
    shown: list[str] = []
    monkeypatch.setattr("vlinstruct.cli.chat_session.show_piece", shown.append)
    monkeypatch.setattr("vlinstruct.cli.terminal.print_to_stderr", lambda text="": shown.append(f"{text}\n"))
    monkeypatch.setattr("command_line._Stream.isatty", lambda stream: True)
    monkeypatch.setattr(InstructBlipBackend, "stream", lambda self, row, settings: iter(["r", "ed"]))
    assert vli("chat", picture, "-O", "--sure-above", 0, *BRIEF, stdin=b"what?\n/quit\n").exit_code == 0
    _, answer, asked = "".join(shown).splitlines()
    assert answer == "red"
    assert asked.startswith("\x1b[2masked: your words, left alone")
    del shown[:]
    vli("chat", picture, "-O", "--sure-above", 0, *BRIEF, "--quiet", stdin=b"what?\n/quit\n")
    assert "asked" not in "".join(shown)


def test_optimize_in_a_chat_shows_an_instruction_also_where_the_answer_is_certain(picture: Path) -> None:
    options = ("-O", "--when", "unsure", "--sure-above", 0, *BRIEF, "--json")
    turn, shown = vli("chat", picture, *options, stdin=b"what?\n/optimize\n").records
    assert "rewritten" not in turn["optimization"]
    assert "rewritten" in shown
