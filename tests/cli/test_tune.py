"""`vlinstruct tune`: what it prints and writes, how its files are used afterwards, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import vli

from vlinstruct.backend import Row, Written
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Usage

Pictures = Callable[..., list[Path]]
OWN, BETTER = "tell me", "What is it?"


@pytest.fixture
def labelled(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve items whose answer is `yes`, and a model that says so to BETTER alone, which it does not propose."""
    items = [{"image": path.name, "answer": "Yes."} for path in pictures(12)]

    def write(self: object, rows: Sequence[Row], settings: GenerationSettings) -> list[Written]:
        answers = {"answer": "no", "compare": BETTER[:-1], "rewrite": OWN}
        texts = ["yes" if row.prompt == BETTER else answers[row.stage] for row in rows]
        return [Written(text=text, usage=Usage(prompt=2, written=1)) for text in texts]

    monkeypatch.setattr(InstructBlipBackend, "write", write)
    return as_lines(pictures(12)[0].parent / "labelled.jsonl", items)


def as_lines(path: Path, items: Sequence[object]) -> Path:
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items))
    return path


def test_the_table_names_every_instruction_with_its_score_interval_calls_and_tokens(labelled: Path) -> None:
    lines = vli("tune", OWN, "--data", labelled, "--try", BETTER).text.splitlines()
    head, held_out, better, own, race, *_ = lines
    assert head.split() == ["score", "95", "%", "interval", "items", "calls", "tokens", "instruction"]
    assert (held_out, race) == (
        "held out: these items chose nothing before",
        "race: the winner's score is too high here",
    )
    assert better.split() == ["100.0", "[61.0,", "100.0]", "6", *BETTER.split(), "(yours)"]
    assert own.split() == ["0.0", "[0.0,", "39.0]", "6", *OWN.split(), "(own)"]
    (raced,) = [line for line in lines if line.split()[-1:] == ["(yours)"] and line != better]
    assert raced.split() == ["100.0", "[61.0,", "100.0]", "6", "12", "36", *BETTER.split(), "(yours)"]
    assert lines[-1] == f"best       {BETTER}"
    assert lines[-2].startswith("chosen     it is better than yours on 12 items")


def test_an_instruction_of_several_lines_is_a_line_of_the_table_and_whole_in_the_file(
    labelled: Path, tmp_path: Path
) -> None:
    own = "look.\n\x1b[2Jsay:"
    shown = vli("tune", own, "--data", labelled, "-o", tmp_path / "best.txt").text
    assert sum(r"look.\n\x1b[2Jsay:  (own)" in line for line in shown.splitlines()) == 2
    assert "\x1b" not in shown
    assert (tmp_path / "best.txt").read_text() == f"{own}\n"


def test_the_instruction_that_it_writes_is_one_for_ask(labelled: Path, tmp_path: Path, prompts: list[str]) -> None:
    best = tmp_path / "best.txt"
    done = vli("tune", OWN, "--data", labelled, "--try", BETTER, "-o", best)
    assert f"the instruction is in {best}, the answers are in {best}.jsonl" in done.stderr
    assert best.read_text() == f"{BETTER}\n"
    (answer,) = vli("ask", labelled.parent / "000.png", f"@{best}", "--json").records
    assert answer["question"] == BETTER


def test_a_template_that_it_writes_is_one_for_asks_template(labelled: Path, tmp_path: Path) -> None:
    items = [{**json.loads(line), "question": "{it} or not"} for line in labelled.read_text().splitlines()]
    best = tmp_path / "best.txt"
    own = "is it {0}: {question}?"
    assert vli("tune", own, "--data", as_lines(labelled, items), "-o", best).exit_code == 0
    assert best.read_text() == f"{own}\n"
    records = [json.loads(line) for line in Path(f"{best}.jsonl").read_text().splitlines()]
    assert {record["instruction"] for record in records if record.get("candidate") == 0} == {"is it {0}: {it} or not?"}
    (answer,) = vli("ask", labelled.parent / "000.png", "{it} or not", "--template", f"@{best}", "--json").records
    assert answer["instruction"] == "is it {0}: {it} or not?"


def test_instructions_may_stand_in_files(labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text(f"{OWN}\n")
    (tmp_path / "others.txt").write_text(f"@worse\n\n{BETTER}\r\n")
    typed = vli("tune", OWN, "--data", labelled, "--try", "@@worse", "--try", BETTER, "--json").records
    of_files = vli("tune", f"@{tmp_path}/own.txt", "--data", labelled, "--try", f"@{tmp_path}/others.txt", "--json")
    assert of_files.records == typed
    assert [row["instruction"] for row in typed[0]["candidates"]][:3] == [OWN, "@worse", BETTER]


def test_the_json_record_is_the_one_in_the_file(labelled: Path, tmp_path: Path) -> None:
    command = ("tune", OWN, "--data", labelled, "-o", tmp_path / "best.txt", "--json")
    (record,) = vli(*command).records
    last = json.loads(Path(f"{tmp_path}/best.txt.jsonl").read_text().splitlines()[-1])
    assert {name: value for name, value in last.items() if name != "key"} == record
    assert vli(*command).records == [record]


def test_bad_lines_are_left_out_and_told_in_one_line(labelled: Path, tmp_path: Path) -> None:
    good = labelled.read_text().splitlines()
    bad: list[Any] = ["{", {"image": "000.png"}, {"image": "000.png", "answer": {"a": 1}}, {"answer": "yes"}]
    (labelled.parent / "broken.png").write_bytes(b"<html>")
    bad.append({"image": "broken.png", "answer": "yes"})
    result = vli("tune", OWN, "--data", as_lines(labelled, [*good, *bad]), "--json")
    assert result.exit_code == 3
    (line,) = [line for line in result.lines if line.startswith("error: ")]
    assert line.startswith("error: 5 of 17 items cannot be used and do not count: ")
    assert "line 13" in line
    (record,) = result.records
    assert [failed["item"] for failed in record["failed"]] == [f"line-{number}" for number in range(13, 18)]
    assert record["items"] == 12


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"image": "000.png"}\n' * 3, '{"image": "000.png", "answer": "a"}']
)
def test_too_few_good_lines_are_one_line_before_any_model_is_loaded(
    labelled: Path, content: str, no_model: None
) -> None:
    labelled.write_text(content)
    line = vli("tune", OWN, "--data", labelled).refusal(4)
    assert "labelled.jsonl" in line


@pytest.mark.parametrize(
    ("arguments", "exit_code", "why"),
    [
        ((), 2, "an instruction and labelled items are needed"),
        ((OWN,), 2, "an instruction and labelled items are needed"),
        ((OWN, "--data", "LABELLED", "--overwrite"), 2, "--overwrite needs --output"),
        ((OWN, "--data", "LABELLED", "--metric", "bleu"), 2, "'bleu' is not one of 'exact', 'vqa', 'cider'"),
        (
            (OWN, "--data", "LABELLED", "--budget", "20"),
            2,
            "a budget of 20 compares no two instructions. Raise it to 24.",
        ),
        ((f"{OWN} {{question}}", "--data", "LABELLED"), 2, "the data has no questions"),
        ((" ", "--data", "LABELLED"), 4, "empty"),
        (("@none.txt", "--data", "LABELLED"), 4, "@none.txt"),
        ((OWN, "--data", "LABELLED", "--try", "@none.txt"), 4, "@none.txt"),
        ((OWN, "--data", "none.jsonl"), 4, "none.jsonl"),
        ((OWN, "--data", "LABELLED", "-o", "LABELLED", "--overwrite"), 4, "one of the inputs"),
        ((OWN, "--data", "LABELLED", "-o", "none/best.txt"), 4, "folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    labelled: Path, no_model: None, arguments: Sequence[str], exit_code: int, why: str
) -> None:
    typed = [str(labelled) if argument == "LABELLED" else argument for argument in arguments]
    assert why in vli("tune", *typed).refusal(exit_code)


def test_ctrl_c_loses_nothing(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("tune", OWN, "--data", labelled, "--try", BETTER, "--batch-size", 2, "-o", tmp_path / "best.txt")
    whole = vli(*command[:-1], tmp_path / "whole.txt").text
    write, calls = InstructBlipBackend.write, 0

    def interrupted(self: InstructBlipBackend, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return write(self, *arguments)

    monkeypatch.setattr(InstructBlipBackend, "write", interrupted)
    assert vli(*command).exit_code == 130
    assert len(Path(f"{tmp_path}/best.txt.jsonl").read_text().splitlines()) >= 6
    assert vli(*command).text == whole
    assert (tmp_path / "best.txt").read_bytes() == (tmp_path / "whole.txt").read_bytes()


def test_another_tunes_output_is_not_mixed_in(labelled: Path, tmp_path: Path) -> None:
    command = ("tune", OWN, "--data", labelled, "-o", tmp_path / "best.txt")
    assert vli(*command).exit_code == 0
    assert "--overwrite" in vli(*command, "--seed", 1).refusal(4)
    assert vli(*command, "--seed", 1, "--overwrite").exit_code == 0
