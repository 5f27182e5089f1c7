"""`vlinstruct optimize`: the three instructions, the choice, and templates that a user can print and replace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import vli

import vlinstruct
from vlinstruct.instruction.templates import Templates, templates_source

from .conftest import Pictures

USAGE = 'Type: vlinstruct optimize "INSTRUCTION" IMAGE...'
ROLES = ("initial", "rewritten", "optimized")


@pytest.fixture
def templates_file(tmp_path: Path) -> Path:
    """What `--show-templates` prints, in a file."""
    path = tmp_path / "mine.yaml"
    path.write_bytes(vli("optimize", "--show-templates").stdout)
    return path


def test_a_record_has_the_fields_of_the_readme(picture: Path, tiny_folders: dict[str, Path]) -> None:
    (record,) = vli("optimize", "what?", picture, "--json").records
    head = {name: record.pop(name) for name in list(record)[:5]}
    assert head == {
        "schema": "vlinstruct.optimize/1",
        "id": str(picture),
        "status": "ok",
        "image": str(picture),
        "backbone": str(tiny_folders["t5"]),
    }
    assert set(record) == {*ROLES, "chosen", "instruction", "reason"}
    # An answer is there where it was asked for: of a text that loses nothing; the initial one has no cross check.
    judged = {"answer", "certainty"}
    assert set(record["initial"]) == {"text", "ias", *judged}
    assert all(set(record[role]) - judged - {"cross_nll"} == {"text", "ias"} for role in ROLES)
    assert record["initial"]["text"] == "what?"
    assert record["instruction"] == record[record["chosen"]]["text"]
    (record,) = vli("optimize", "what?", picture, "--select", "ias", "--json").records
    assert all(set(record[role]) == {"text", "ias"} for role in ROLES)


def test_the_record_is_what_python_returns(picture: Path, tiny_folders: dict[str, Path]) -> None:
    ours = vlinstruct.load(str(tiny_folders["t5"]), device="cpu").optimize("name 2 things", picture)
    (record,) = vli("optimize", "name 2 things", picture, "--json").records
    for role, scored in ours.by_role().items():
        expected = {"text": scored.text, "ias": pytest.approx(scored.ias, abs=1e-5)}
        if scored.judgement is not None:
            certainty = pytest.approx(scored.judgement.answer.certainty, abs=1e-5)
            expected |= {"answer": scored.judgement.answer.text, "certainty": certainty}
            if scored.judgement.cross_nll is not None:
                expected["cross_nll"] = pytest.approx(scored.judgement.cross_nll, abs=1e-5)
        assert record[role] == expected
    assert (record["chosen"], record["reason"]) == (ours.chosen, ours.reason)


def test_the_ias_are_those_of_score(picture: Path) -> None:
    (record,) = vli("optimize", "what?", picture, "--json").records
    texts = [record[role]["text"] for role in ROLES]
    (scored,) = vli("score", picture, "--json", "--", *texts).records
    assert [version["ias"] for version in scored["scores"]] == pytest.approx(
        [record[role]["ias"] for role in ROLES], abs=3e-5
    )


def test_every_version_is_printed_with_its_ias_and_then_the_choice(picture: Path) -> None:
    (record,) = vli("optimize", "name 2 things", picture, "--json").records
    lines = vli("optimize", "name 2 things", picture).text.splitlines()
    assert lines == [
        *(f"{role:9}  {record[role]['ias']:8.4f}  {record[role]['text']}" for role in ROLES),
        f"chosen     initial: {record['reason']}",
    ]


def test_answers_are_those_to_the_instruction_as_typed_and_as_chosen(picture: Path) -> None:
    arguments = ("optimize", "what?", picture, "--answer", "--max-new-tokens", 6)
    (record,) = vli(*arguments, "--json").records
    for name, question in (("initial_answer", "what?"), ("answer", record["instruction"])):
        assert record[name] + "\n" == vli("ask", picture, "--max-new-tokens", 6, "--", question).text
    printed = vli(*arguments).text
    assert f"\nanswer     {record['initial_answer']}  (as typed, " in printed
    assert f"\nanswer     {record['answer']}  (chosen, " in printed


def test_paper_takes_the_optimized_instruction_and_safe_the_lowest_ias_that_keeps_the_content(picture: Path) -> None:
    paper, safe = (
        vli("optimize", "name 2 things", picture, "--select", select, "--json").records[0]
        for select in ("paper", "safe")
    )
    assert paper["chosen"] == "optimized"
    assert safe["chosen"] == "initial"
    assert "the optimized one loses the number 2" in safe["reason"]
    assert [paper[role] for role in ROLES] == [{name: safe[role][name] for name in ("text", "ias")} for role in ROLES]


@pytest.mark.usefixtures("no_model")
def test_an_unknown_selection_is_refused_with_those_that_exist(picture: Path) -> None:
    line = vli("optimize", "x", picture, "--select", "best").refusal(2)
    assert "'best' is not one of 'safe', 'cross', 'agree', 'ias', 'paper'" in line


def test_several_pictures_are_a_batch_in_their_order(pictures: Pictures) -> None:
    paths = pictures(3)
    records = vli("optimize", "what?", *paths).records
    assert [record["image"] for record in records] == list(map(str, paths))
    assert records == [vli("optimize", "what?", path, "--json").records[0] for path in paths]


@pytest.mark.parametrize("more", [(), ("--answer", "--max-new-tokens", 2), ("--select", "paper")])
def test_the_vision_tower_runs_once_per_picture(
    picture: Path, pictures: Pictures, num_seen: list[int], more: tuple[object, ...]
) -> None:
    assert vli("optimize", "what?", picture, *more).exit_code == 0
    assert vli("optimize", "what?", *pictures(2), *more).exit_code == 0
    assert num_seen == [1, 1, 1]


@pytest.mark.usefixtures("no_model")
def test_show_templates_prints_the_file_that_ships(templates_file: Path) -> None:
    assert templates_file.read_text() == templates_source()
    assert Templates.load(templates_file) == Templates.default()


def test_printed_templates_change_nothing(picture: Path, templates_file: Path) -> None:
    plain = vli("optimize", "what?", picture, "--json")
    assert vli("optimize", "what?", picture, "--templates", templates_file, "--json").stdout == plain.stdout


@pytest.mark.parametrize("command", ["optimize", "ask -O"])
def test_edited_templates_reach_the_model(
    picture: Path, templates_file: Path, prompts: list[str], command: str
) -> None:
    source = templates_file.read_text()
    edited = re.sub(r"Please modify\s+the text", "Kindly, %s {0}", source)
    edited = edited.replace("most appropriate instruction should be:", "best is:")
    edited = edited.replace("These are instructions", "Behold").replace("Score: {ias}.", "({ias})")
    templates_file.write_text(edited)
    words = ("optimize", "what?", picture) if command == "optimize" else ("ask", picture, "what?", "-O")
    result = vli(*words, "--templates", templates_file, "--json", "--max-new-tokens", 2)
    assert result.exit_code == 0, result.stderr
    own, rewriting, scoring, *others = prompts
    assert own == "what?"
    (comparison,) = [prompt for prompt in others if prompt.startswith("Behold")]
    assert rewriting.startswith("There is the text what?. Kindly, %s {0} to make it better")
    assert scoring == "Based on the image given, the best is:"
    assert re.search(r"Instruction: what\? \(\d\.\d{4}\)", comparison)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"rewrite: x", "missing: score, compare, compare_item"),
        (b"- 1", "it must be a mapping"),
        (b"\xff", "it is not UTF-8"),
        (b"", "it must be a mapping"),
        (templates_source().replace("text {instruction}", "text {instrution}").encode(), "{instrution}"),
        (b"!!python/object/apply:os.system [x]", "cannot use templates"),
        (b"score: \x1b[2J", "not valid YAML"),
    ],
)
def test_bad_templates_are_one_line(picture: Path, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    line = vli("optimize", "x", picture, "--templates", tmp_path / "mine.yaml").refusal(4)
    assert words in line
    assert "mine.yaml" in line


@pytest.mark.usefixtures("no_model")
def test_missing_templates_are_one_line(picture: Path) -> None:
    assert "cannot read file (none.yaml)" in vli("optimize", "x", picture, "--templates", "none.yaml").refusal(4)


@pytest.mark.usefixtures("no_model")
def test_a_picture_and_an_instruction_that_changed_places_are_named(picture: Path, pictures: Pictures) -> None:
    swapped = f"the picture and the text are in the wrong order. {USAGE}"
    assert swapped in vli("optimize", picture, "what is this").refusal(2)
    assert swapped in vli("optimize", "missing.jpg", "what is this").refusal(2)
    assert "a text is missing" in vli("optimize", *pictures(2)).refusal(2)


@pytest.mark.usefixtures("no_model")
def test_a_missing_argument_is_named(picture: Path) -> None:
    needed = f"an instruction and a picture are needed. {USAGE}"
    assert [vli("optimize", *typed).refusal(2) for typed in ((), ("what?",), (picture,))] == [f"error: {needed}"] * 3


def test_an_option_that_changes_nothing_is_said_unless_quiet(picture: Path) -> None:
    arguments = ("optimize", "what?", picture, "--num-beams", 2)
    loud, quiet = vli(*arguments), vli(*arguments, "-q")
    assert loud.lines[0] == "notice: --num-beams changes nothing without --answer."
    assert quiet.stderr == ""
    assert quiet.text == loud.text
