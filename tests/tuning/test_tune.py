"""The laws of tuning, with a fake backend: a picture is its width; who shares a call with a row may move its answer."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vlinstruct as vli
from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.batch import ChosenModel
from vlinstruct.errors import CheckpointError, DataError, InputError, TextError, UsageError
from vlinstruct.metrics.captions import ptb_tokens
from vlinstruct.metrics.cider import cider
from vlinstruct.metrics.vqa_accuracy import vqa_accuracy
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings
from vlinstruct.text import MAX_INSTRUCTION_CHARACTERS
from vlinstruct.values import Abilities, Failed, TokenScores, Usage

OWN, BETTER = "tell me", "What is it?"
FIRST_WIDTH = 8
Fields = dict[str, Any]
SETTINGS = vli.RunSettings(batch_size=4)


class Fake(Backend):
    """Answers with the item's number where `is_right` says so of a prompt, a number and how many rows share the call.

    Args:
        is_right: see above.
        rewritten: what the language model alone makes of a prompt.
    """

    abilities = Abilities(can_score=False)

    def __init__(self) -> None:
        self.is_right: Callable[[str, int, int], bool] = lambda prompt, number, shared: False
        self.rewritten: Callable[[str], str] = lambda prompt: prompt
        self.rows: list[Row] = []
        self.fails_on: Callable[[str, int], bool] = lambda prompt, number: False
        self.stop_at: int | None = None

    def see(self, media: Sequence[Any]) -> list[Seen | Failed]:
        return [picture.width - FIRST_WIDTH for picture in media]  # type: ignore[misc]

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        if self.stop_at is not None and len(self.rows) >= self.stop_at:
            raise KeyboardInterrupt
        self.rows += rows
        return [self._written(row, len(rows)) for row in rows]

    def _written(self, row: Row, shared: int) -> Written | Failed:
        usage = Usage(prompt=len(row.prompt.split()), written=1)
        if not row.seen:
            return Written(text=self.rewritten(row.prompt), usage=usage)
        (number,) = row.seen
        if self.fails_on(row.prompt, number):  # type: ignore[arg-type]
            return Failed(error=TextError("the prompt is too long", code="text_too_long"))
        is_right = self.is_right(row.prompt, number, shared)  # type: ignore[arg-type]
        return Written(text=f"{number}" if is_right else f"wrong {number}", usage=usage)

    def score(self, rows: Sequence[Row], targets: Sequence[Sequence[str]], **settings: Any) -> list[Any]:
        return [[TokenScores(tokens=("a",), token_nll=(1.0,)) for _ in texts] for texts in targets]

    def num_answers(self) -> Counter[tuple[str, object]]:
        return Counter((row.prompt, row.seen[0]) for row in self.rows if row.seen and row.stage == "answer")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The model of every run of the test."""
    backend = Fake()
    monkeypatch.setattr(ChosenModel, "load", lambda chosen: Model(backend))
    monkeypatch.setattr(ChosenModel, "key", lambda chosen: ["fake"])
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # the laws need no disk that is slow
    return backend


def labelled(folder: Path, count: int = 24, **fields: Callable[[int], object]) -> Path:
    """Items whose right answer is their number."""
    lines = []
    for number in range(count):
        Image.new("RGB", (FIRST_WIDTH + number, 8)).save(folder / f"{number}.png")
        item: Fields = {"image": f"{number}.png", "answer": str(number), "id": number}
        item |= {name: make(number) for name, make in fields.items()}
        lines.append(json.dumps({name: value for name, value in item.items() if value is not None}))
    path = folder / "labelled.jsonl"
    path.write_text("\n".join(lines))
    return path


def records_of(output: Path) -> dict[str, Fields]:
    lines = Path(f"{output}.jsonl").read_text().splitlines()
    return {record["id"]: record for record in map(json.loads, lines)}


def row_of(record: Fields, instruction: str) -> Fields:
    (row,) = [row for row in record["candidates"] if row["instruction"] == instruction]
    return row


def better_wins(prompt: str, number: int, shared: int) -> bool:
    return prompt == BETTER or number % 4 == 0


# What is found


def test_a_better_instruction_that_the_model_proposes_is_found_and_written(fake: Fake, tmp_path: Path) -> None:
    fake.is_right, fake.rewritten = better_wins, lambda prompt: BETTER
    record = vli.tune(OWN, labelled(tmp_path), output=tmp_path / "best.txt", settings=SETTINGS)
    assert record["instruction"] == BETTER
    assert (tmp_path / "best.txt").read_text() == f"{BETTER}\n"
    assert records_of(tmp_path / "best.txt")["result"].items() >= record.items()
    assert row_of(record, BETTER)["held_out"]["score"] == 1


def test_a_better_instruction_of_the_users_own_list_is_found(fake: Fake, tmp_path: Path) -> None:
    fake.is_right = better_wins
    record = vli.tune(OWN, labelled(tmp_path), tuning=vli.TuneSettings(tries=("worse", BETTER)), settings=SETTINGS)
    assert (record["instruction"], record["chosen"]) == (BETTER, "yours")


@pytest.mark.parametrize("right", [lambda prompt, number, shared: number % 2 == 0, lambda *row: True])
def test_the_users_own_words_stay_where_others_are_as_good(fake: Fake, tmp_path: Path, right: Any) -> None:
    fake.is_right, fake.rewritten = right, lambda prompt: BETTER
    record = vli.tune(OWN, labelled(tmp_path), tuning=vli.TuneSettings(tries=("another",)), settings=SETTINGS)
    assert (record["instruction"], record["chosen"]) == (OWN, "own")


def test_a_model_that_needs_a_picture_to_write_tunes_among_the_users_own_list(fake: Fake, tmp_path: Path) -> None:
    fake.abilities = replace(Fake.abilities, can_write_alone=False)
    fake.is_right = better_wins
    record = vli.tune(OWN, labelled(tmp_path), tuning=vli.TuneSettings(tries=(BETTER,)), settings=SETTINGS)
    assert record["instruction"] == BETTER
    assert all(row.seen for row in fake.rows)


def test_a_template_gets_each_items_question_and_every_other_brace_stays(fake: Fake, tmp_path: Path) -> None:
    own = "{0} {answer} {x!r} {{}} %s: {question} {question}"
    data = labelled(tmp_path, question=lambda number: f"which {{{number}}}?")
    vli.tune(own, data, output=tmp_path / "best.txt", settings=SETTINGS)
    asked = {row.prompt for row in fake.rows if row.seen}
    assert asked >= {f"{{0}} {{answer}} {{x!r}} {{{{}}}} %s: which {{{n}}}? which {{{n}}}?" for n in range(24)}
    assert (tmp_path / "best.txt").read_text() == f"{own}\n"


def test_a_rewriting_with_the_question_becomes_a_template(fake: Fake, tmp_path: Path) -> None:
    fake.rewritten = lambda prompt: "What colour is the star?" if "star" in prompt else "What is it?"
    fake.is_right = lambda prompt, number, shared: prompt.startswith("What colour is the ")
    data = labelled(tmp_path, question=lambda number: "star" if number % 2 else "cat")
    record = vli.tune("colour, {question}", data, settings=SETTINGS)
    assert record["instruction"] == "What colour is the {question}?"


# Which items may decide


def test_what_is_proposed_and_raced_rests_on_other_items_than_the_winners_figure(fake: Fake, tmp_path: Path) -> None:
    fake.is_right, fake.rewritten = better_wins, lambda prompt: prompt[:60] if "wrong" in prompt else BETTER
    tries = ("worse", "bad", "none")
    vli.tune(OWN, labelled(tmp_path), tuning=vli.TuneSettings(tries=tries), output=tmp_path / "o", settings=SETTINGS)
    records = records_of(tmp_path / "o")
    asked = {number: {r["item"] for r in records.values() if r.get("candidate") == number} for number in range(8)}
    texts = [candidate["text"] for candidate in records["candidates"]["candidates"]]
    looks = {look["instruction"] for look in records["result"]["looks"]}
    raced_only = [asked[number] for number, text in enumerate(texts) if number and text not in looks]
    search = set.union(*raced_only)
    assert asked[0] == set(range(24))
    assert len(search) == 12
    assert row_of(records["result"], BETTER)["held_out"]["items"] == 12
    shown = [row.prompt for row in fake.rows if "is right" in row.prompt]
    assert shown
    quoted = {int(word) for prompt in shown for word in prompt.replace(".", " ").split() if word.isdigit()}
    assert quoted <= search


def test_a_backend_that_scores_looks_at_the_pictures_of_the_search_part_alone_to_propose(
    fake: Fake, tmp_path: Path
) -> None:
    fake.abilities = Abilities()
    vli.tune(OWN, labelled(tmp_path), output=tmp_path / "o", settings=SETTINGS)
    looked_at = {row.seen[0] for row in fake.rows if row.seen and row.stage == "compare"}
    asked_first = {row.seen[0] for row in [row for row in fake.rows if row.stage == "answer"][:12]}
    assert looked_at
    assert looked_at <= asked_first


# What it costs


@pytest.mark.parametrize("can_score", [True, False])
@pytest.mark.parametrize("budget", [24, 30, 41, 64, 100, 162, 400])
def test_a_budget_is_never_exceeded_and_all_that_is_written_is_told(
    fake: Fake, tmp_path: Path, budget: int, can_score: bool
) -> None:
    fake.abilities = Abilities(can_score=can_score)
    fake.is_right, fake.rewritten = better_wins, lambda prompt: f"What is {len(prompt)}?"
    tuning = vli.TuneSettings(budget=budget, tries=("a {question}", "b {question}", "c {question}"))
    data = labelled(tmp_path, question=lambda number: f"thing {number}")  # none is rewritten once for all
    record = vli.tune("tell me {question}", data, tuning=tuning, output=tmp_path / "o", settings=SETTINGS)
    assert records_of(tmp_path / "o")["candidates"]["calls"] <= budget // 4
    assert record["calls"] == len(fake.rows) <= budget
    assert record["tokens"] == sum(len(row.prompt.split()) + 1 for row in fake.rows)


def test_no_item_is_asked_the_same_twice(fake: Fake, tmp_path: Path) -> None:
    fake.rewritten = lambda prompt: f"What is {len(prompt)}?"
    vli.tune(OWN, labelled(tmp_path), settings=SETTINGS)
    assert set(fake.num_answers().values()) == {1}


def test_a_budget_that_compares_nothing_is_refused_before_anything_is_written(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Raise it to 24"):
        vli.tune(OWN, labelled(tmp_path), tuning=vli.TuneSettings(budget=20), output=tmp_path / "o", settings=SETTINGS)
    assert not fake.rows
    assert not (tmp_path / "o.jsonl").exists()


# Stopped and resumed


def test_a_run_that_is_killed_at_any_record_ends_as_one_that_never_was(fake: Fake, tmp_path: Path) -> None:
    fake.is_right = lambda prompt, number, shared: (number * shared + len(prompt)) % 3 > 0
    fake.rewritten = lambda prompt: f"What is {len(prompt) % 2}?"
    fake.fails_on = lambda prompt, number: prompt.endswith("1?") and number == 3
    data, output = labelled(tmp_path, 13), tmp_path / "best.txt"
    (tmp_path / "5.png").write_bytes(b"<html>")
    records = Path(f"{output}.jsonl")
    whole = vli.tune(OWN, data, output=output, settings=SETTINGS)
    text, lines = output.read_text(), records.read_bytes().splitlines(keepends=True)
    assert any(b'"error"' in line for line in lines)
    for num_kept in range(len(lines)):
        output.unlink(missing_ok=True)
        records.write_bytes(b"".join(lines[:num_kept]) + lines[num_kept][:-9])
        assert vli.tune(OWN, data, output=output, settings=SETTINGS) == whole
        assert sorted(records.read_bytes().splitlines()) == sorted(b"".join(lines).splitlines())
        assert output.read_text() == text


def test_a_finished_run_loads_no_model(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = labelled(tmp_path)
    whole = vli.tune(OWN, data, output=tmp_path / "best.txt", settings=SETTINGS)
    monkeypatch.setattr(ChosenModel, "load", lambda chosen: pytest.fail("the model was loaded"))
    assert vli.tune(OWN, data, output=tmp_path / "best.txt", settings=SETTINGS) == whole


def test_ctrl_c_loses_no_answer_that_is_there(fake: Fake, tmp_path: Path) -> None:
    fake.is_right, fake.rewritten, fake.stop_at = better_wins, lambda prompt: BETTER, 20
    data, output = labelled(tmp_path), tmp_path / "best.txt"
    with pytest.raises(KeyboardInterrupt):
        vli.tune(OWN, data, output=output, settings=SETTINGS)
    before = records_of(output)
    assert len(before) == 12
    assert not output.exists()
    fake.stop_at, fake.rows = None, []
    assert vli.tune(OWN, data, output=output, settings=SETTINGS)["instruction"] == BETTER
    assert records_of(output).items() >= before.items()
    assert set(fake.num_answers().values()) == {1}


@pytest.mark.parametrize(
    "change",
    [
        {"tuning": vli.TuneSettings(seed=1)},
        {"tuning": vli.TuneSettings(metric="vqa")},
        {"settings": vli.RunSettings(batch_size=5)},
        {"instruction": "tell us"},
    ],
)
def test_another_run_is_not_mixed_into_the_records(fake: Fake, tmp_path: Path, change: Fields) -> None:
    data, output = labelled(tmp_path), tmp_path / "best.txt"
    arguments: Fields = {"instruction": OWN, "data": data, "output": output, "settings": SETTINGS}
    vli.tune(**arguments)
    content = Path(f"{output}.jsonl").read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        vli.tune(**arguments | change)
    assert Path(f"{output}.jsonl").read_bytes() == content


def test_rows_that_share_a_call_do_not_change_what_a_real_model_answers(
    tmp_path: Path,
) -> None:
    data, found = labelled(tmp_path, 12), []
    for batch_size in (1, 5):
        output = tmp_path / f"best-{batch_size}.txt"
        vli.tune(
            "what?",
            data,
            output=output,
            tuning=vli.TuneSettings(tries=("which?",), generation=GenerationSettings(max_new_tokens=5), budget=44),
            settings=vli.RunSettings(model=vli.ModelSettings(backbone="mini", device="cpu"), batch_size=batch_size),
        )
        found.append({id: {**record, "key": None} for id, record in records_of(output).items()})
    assert found[0] == found[1]
    assert len(found[0]) > 24


# What counts


def test_an_answer_that_cannot_be_made_is_wrong_and_a_picture_that_cannot_be_read_does_not_count(
    fake: Fake, tmp_path: Path
) -> None:
    fake.is_right = lambda *row: True
    fake.fails_on = lambda prompt, number: number == 3
    data = labelled(tmp_path)
    (tmp_path / "7.png").write_bytes(b"<html>")
    record = vli.tune(OWN, data, output=tmp_path / "o", settings=SETTINGS)
    own = row_of(record, OWN)
    right = sum(own[part]["score"] * own[part]["items"] for part in ("race", "held_out"))
    assert own["race"]["items"] + own["held_out"]["items"] == record["items"] == 23
    assert right == pytest.approx(22, abs=1e-3)
    assert [failed["item"] for failed in record["failed"]] == [7]
    assert records_of(tmp_path / "o")["0/3"]["code"] == "text_too_long"


def test_where_no_picture_can_be_read_the_first_ones_error_is_told(fake: Fake, tmp_path: Path) -> None:
    data = labelled(tmp_path)
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"<html>")
    with pytest.raises(InputError, match="cannot read image"):
        vli.tune(OWN, data, settings=SETTINGS)


def test_where_no_answer_can_be_made_the_first_ones_error_is_told(fake: Fake, tmp_path: Path) -> None:
    fake.fails_on = lambda prompt, number: True
    with pytest.raises(TextError, match="too long"):
        vli.tune(OWN, labelled(tmp_path), settings=SETTINGS)


def test_a_score_is_what_the_metric_says_of_all_items(fake: Fake, tmp_path: Path) -> None:
    said = ["two cats sleep", "a dog runs", "two dogs run home"]
    fake.is_right = lambda prompt, number, shared: number % 2 == 0
    people = {number: [str(number)] * (number % 5) + ["none"] * (10 - number % 5) for number in range(24)}
    captions = {number: [said[number % 3], f"{number} {said[number % 2]}"] for number in range(24)}
    for metric, answers in (("vqa", people), ("cider", captions)):
        data, output = labelled(tmp_path, answer=lambda number, answers=answers: answers[number]), tmp_path / metric
        vli.tune(OWN, data, tuning=vli.TuneSettings(metric=metric), output=output, settings=SETTINGS)
        records = [record for _, record in sorted(records_of(output).items()) if record.get("candidate") == 0]
        if metric == "vqa":
            expected = {r["item"]: vqa_accuracy(r["answer"], people[r["item"]]) for r in records}
        else:
            whole = {r["item"]: r["answer"] for r in records}
            scores = cider(
                [ptb_tokens(whole[number]) for number in range(24)],
                [[ptb_tokens(caption) for caption in captions[number]] for number in range(24)],
            )
            expected = dict(enumerate(scores.per_item))
        assert len(records) == 24
        assert len(set(expected.values())) > 1
        assert {r["item"]: r["score"] for r in records} == pytest.approx(expected, abs=1e-5)


def test_one_answer_is_what_all_ten_people_said(fake: Fake, tmp_path: Path) -> None:
    fake.is_right = lambda *row: True
    record = vli.tune(OWN, labelled(tmp_path), tuning=vli.TuneSettings(metric="vqa"), settings=SETTINGS)
    assert row_of(record, OWN)["held_out"]["score"] == 1


# What is refused


@pytest.mark.parametrize(
    ("own", "question", "why"),
    [(OWN, lambda number: "star", "has no {question}"), ("is it {question}?", None, "the data has no questions")],
)
def test_instructions_and_data_must_go_together(
    fake: Fake, tmp_path: Path, own: str, question: Callable[[int], object] | None, why: str
) -> None:
    data = labelled(tmp_path, **({} if question is None else {"question": question}))
    with pytest.raises(UsageError) as refusal:
        vli.tune(own, data, settings=SETTINGS)
    assert why in str(refusal.value)


def test_items_that_cannot_be_asked_are_told_and_do_not_count(fake: Fake, tmp_path: Path) -> None:
    questions: dict[int, object] = {3: None, 4: "x" * (MAX_INSTRUCTION_CHARACTERS - 100)}
    data = labelled(tmp_path, question=lambda number: questions.get(number, "star"))
    record = vli.tune("y" * 200 + " {question}", data, settings=SETTINGS)
    assert record["items"] == 22
    assert [(failed["item"], failed["message"].split(":")[0]) for failed in record["failed"]] == [
        (3, "line 4 has no question, others have. Add it."),
        (4, "cannot use text (line 5)"),
    ]


def test_a_few_items_are_not_enough(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="11 items can be used, at least 12 are needed"):
        vli.tune(OWN, labelled(tmp_path, 11), settings=SETTINGS)


def test_an_output_that_would_destroy_something_is_refused(fake: Fake, tmp_path: Path) -> None:
    data, foreign = labelled(tmp_path), tmp_path / "mine.txt"
    foreign.write_text("my notes")
    os.mkfifo(tmp_path / "pipe")
    refused = {foreign: "no tune wrote it", tmp_path: "directory", data: "inputs", tmp_path / "0.png": "inputs"}
    refused |= {tmp_path / "none" / "best.txt": "folder does not exist", tmp_path / "pipe": "not a regular file"}
    for output, why in refused.items():
        overwrite = replace(SETTINGS, overwrite=output not in (foreign,))
        with pytest.raises(InputError, match=why):
            vli.tune(OWN, data, output=output, settings=overwrite)
    assert foreign.read_text() == "my notes"
    assert not fake.rows
    vli.tune(OWN, data, output=foreign, settings=replace(SETTINGS, overwrite=True))
    assert foreign.read_text() == f"{OWN}\n"


def test_a_link_to_the_output_stays_a_link(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to(tmp_path / "best.txt")
    vli.tune(OWN, labelled(tmp_path), output=tmp_path / "link.txt", settings=SETTINGS)
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "best.txt").read_text() == f"{OWN}\n"


def test_a_broken_model_ends_the_run(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        raise CheckpointError("the weights are damaged")

    monkeypatch.setattr(fake, "write", write)
    with pytest.raises(CheckpointError, match="damaged"):
        vli.tune(OWN, labelled(tmp_path), settings=SETTINGS)
