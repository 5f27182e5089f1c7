"""`vlinstruct ask`: what it prints and records, and that every option reaches the model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import vli

import vlinstruct
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import good

from .conftest import Pictures

USAGE = 'Type: vlinstruct ask IMAGE... "QUESTION"'


@pytest.fixture
def model(tiny_folders: dict[str, Path]) -> vlinstruct.Model:
    return vlinstruct.load(str(tiny_folders["t5"]), device="cpu")


def test_the_answer_is_all_that_is_printed(picture: Path, model: vlinstruct.Model) -> None:
    result = vli("ask", picture, "what?")
    assert result.text == model.ask(picture, "what?").text + "\n"
    assert result.stderr == ""


def test_a_record_has_the_fields_of_the_readme(picture: Path, tiny_folders: dict[str, Path]) -> None:
    answer = vli("ask", picture, "what?").text.rstrip("\n")
    (record,) = vli("ask", picture, "what?", "--json").records
    assert record == {
        "schema": "vlinstruct.ask/1",
        "id": str(picture),
        "status": "ok",
        "image": str(picture),
        "backbone": str(tiny_folders["t5"]),
        "question": "what?",
        "instruction": "what?",
        "answer": answer,
    }
    assert list(record)[:3] == ["schema", "id", "status"]


def test_an_optimized_question_tells_how_it_came_about(picture: Path, model: vlinstruct.Model) -> None:
    (record,) = vli("ask", picture, "what?", "-O", "--select", "paper", "--json").records
    (optimized,) = vli("optimize", "what?", picture, "--select", "paper", "--json").records
    assert record["question"] == "what?"
    assert record["instruction"] == optimized["instruction"] != "what?"
    assert record["answer"] == model.ask(picture, optimized["instruction"]).text
    assert record["optimization"].items() <= optimized.items()
    assert set(record["optimization"]) == {
        "initial",
        "rewritten",
        "optimized",
        "chosen",
        "instruction",
        "reason",
    }


def test_select_is_obeyed(picture: Path) -> None:
    chosen = {
        select: vli("ask", picture, "name 2 things", "-O", "--select", select, "--json").records[0]["optimization"]
        for select in ("safe", "ias", "paper")
    }
    assert chosen["paper"]["chosen"] == "optimized"
    for select in ("safe", "ias"):
        assert "2" in chosen[select]["instruction"]
        assert chosen[select]["chosen"] == "initial"


def test_choices_are_recorded_as_offered_with_their_probabilities(picture: Path, model: vlinstruct.Model) -> None:
    (record,) = vli("ask", picture, "what?", "--choices", "yes, no,it is not clear", "--json").records
    choices = record["choices"]
    assert [choice["text"] for choice in choices] == ["yes", "no", "it is not clear"]
    assert math.fsum(choice["probability"] for choice in choices) == pytest.approx(1, abs=3e-5)
    assert record["answer"] == max(choices, key=lambda choice: choice["probability"])["text"]
    weights = [math.exp(-choice["nll"]) for choice in choices]
    expected = [weight / sum(weights) for weight in weights]
    assert [choice["probability"] for choice in choices] == pytest.approx(expected, abs=3e-5)
    ours = model.ask(picture, "what?", choices=["yes", "no", "it is not clear"]).choices
    assert [choice["nll"] for choice in choices] == pytest.approx([choice.nll for choice in ours], abs=1e-5)


def test_choices_are_printed_with_percentages_the_likeliest_first(picture: Path) -> None:
    (record,) = vli("ask", picture, "what?", "--choices", "yes,no,maybe", "--json").records
    ranked = sorted(record["choices"], key=lambda choice: -choice["probability"])
    lines = vli("ask", picture, "what?", "--choices", "yes,no,maybe").text.splitlines()
    assert [line.split() for line in lines] == [[f"{choice['probability']:.1%}", choice["text"]] for choice in ranked]
    assert len({line.index("%") for line in lines}) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_choices_of_a_batch_equal_those_of_single_pictures(pictures: Pictures, batch_size: int) -> None:
    paths = pictures(3)
    arguments = ("what?", "--choices", "yes,no way,x", "--json")
    alone = [vli("ask", path, *arguments).records[0] for path in paths]
    together = vli("ask", *paths, *arguments, "--batch-size", batch_size).records
    for batched, other in zip(together, alone, strict=True):
        assert math.fsum(choice["probability"] for choice in batched["choices"]) == pytest.approx(1, abs=3e-5)
        for name in ("probability", "nll"):
            values = [choice.pop(name) for choice in batched["choices"]]
            assert values == pytest.approx([choice.pop(name) for choice in other["choices"]], abs=3e-5)
        assert batched == other


def test_a_long_choice_is_not_punished_for_its_length(picture: Path, model: vlinstruct.Model) -> None:
    offered = ["no", "it is certainly not one"]
    (record,) = vli("ask", picture, "what?", "--choices", ",".join(offered), "--json").records
    (scores,) = map(good, model.rank_each([model.see(picture)], ["what?"], [offered]))
    means = [sum(score.token_nll) / len(score.token_nll) for score in scores]
    assert [choice["nll"] for choice in record["choices"]] == pytest.approx(means, abs=1e-5)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("choices", ["", "yes", "yes,", "yes,,no", "yes,yes", "a, a ", ","])
def test_fewer_than_two_different_choices_are_refused(picture: Path, choices: str) -> None:
    assert "--choices needs two or more different answers" in vli("ask", picture, "x", "--choices", choices).refusal(2)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ('["1,000", "2,000"]', ["1,000", "2,000"]),
        ('[ "a, b" , "c" ]', ["a, b", "c"]),
        ("[1, 2.50]", ["1", "2.50"]),
        ("[a],[b]", ["[a]", "[b]"]),
        ('say "yes",say "no"', ['say "yes"', 'say "no"']),
    ],
)
def test_choices_with_commas_are_a_json_list(picture: Path, typed: str, offered: list[str]) -> None:
    (record,) = vli("ask", picture, "how many?", "--choices", typed, "--json").records
    assert [choice["text"] for choice in record["choices"]] == offered


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("typed", ['["1,000", "2,000]', '["a", null]', "[yes, no]", '["a", ["b"]]'])
def test_a_list_of_choices_that_is_none_is_refused(picture: Path, typed: str) -> None:
    assert """Type: --choices '["1,000", "2,000"]'.""" in vli("ask", picture, "x", "--choices", typed).refusal(2)


def test_a_list_and_commas_are_one_run(picture: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    vli("ask", picture, "what?", "--choices", "yes,no", "-o", output)
    resumed = vli("ask", picture, "what?", "--choices", '["yes", "no"]', "-o", output)
    assert "1 were already there" in resumed.lines[-1]


def test_a_template_wraps_the_question(picture: Path, prompts: list[str]) -> None:
    (record,) = vli("ask", picture, "{a}?", "--template", "Q: {question} {b} A:", "--json").records
    assert prompts == ["Q: {a}? {b} A:"]
    assert (record["question"], record["instruction"]) == ("{a}?", "Q: {a}? {b} A:")


def test_a_template_wraps_the_questions_of_a_file(picture: Path, prompts: list[str], tmp_path: Path) -> None:
    lines = [{"image": f"pictures/{picture.name}", "question": question} for question in ("a?", "b?")]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = vli("ask", "--data", tmp_path / "items.jsonl", "--template", "Q: {question} A:")
    assert [record["question"] for record in result.records] == ["a?", "b?"]
    assert prompts == ["Q: a? A:", "Q: b? A:"]


@pytest.mark.usefixtures("no_model")
def test_a_template_without_its_field_is_refused(picture: Path) -> None:
    assert "--template must contain {question}" in vli("ask", picture, "x", "--template", "Q: {q}").refusal(2)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 5},
        {"num_beams": 3, "length_penalty": -1.0},
        {"max_new_tokens": 2},
        {"repetition_penalty": 3.0},
        {"do_sample": True, "seed": 7},
        {"do_sample": True, "seed": 2**64 - 1},
        {"do_sample": True, "temperature": 0.3, "top_p": 0.5},
    ],
)
def test_options_of_generation_reach_the_model(
    picture: Path, model: vlinstruct.Model, settings: dict[str, float]
) -> None:
    typed = [
        part
        for name, value in settings.items()
        for part in (f"--{name.replace('_', '-')}", *([] if value is True else [value]))
    ]
    expected = model.ask(picture, "what is it?", generation=GenerationSettings(**settings)).text  # type: ignore[arg-type]
    assert vli("ask", picture, "what is it?", *typed).text == expected + "\n"
    assert expected != model.ask(picture, "what is it?").text


def test_a_seed_decides_what_is_drawn(picture: Path) -> None:
    answers = [vli("ask", picture, "what?", "--do-sample", "--seed", seed).text for seed in (0, 1, 0)]
    assert answers[0] == answers[2] != answers[1]


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--seed", -1, "seed must be 0 to 2^64 - 1, got -1"),
        ("--seed", 2**64, f"seed must be 0 to 2^64 - 1, got {2**64}"),
        ("--num-beams", 0, "num_beams must be 1 to 64, got 0"),
        ("--max-new-tokens", 0, "max_new_tokens must be 1 to 4096"),
        ("--temperature", "nan", "temperature must be above 0"),
        ("--top-p", 1.5, "top_p must be above 0 and at most 1"),
        ("--select", "best", "'best' is not one of 'safe', 'cross', 'agree', 'ias', 'paper'"),
        ("--batch-size", 0, "--batch-size"),
        ("--dtype", "float8", "'float8' is not one of"),
        ("--num-beams", "five", "Invalid value for '--num-beams'"),
    ],
)
def test_a_value_out_of_range_is_refused_before_the_model_is_loaded(
    picture: Path, option: str, value: object, words: str
) -> None:
    assert words in vli("ask", picture, "x", option, value).refusal(2)


@pytest.mark.usefixtures("no_model")
def test_a_picture_and_a_question_that_changed_places_are_named(picture: Path) -> None:
    swapped = f"the picture and the text are in the wrong order. {USAGE}"
    assert swapped in vli("ask", "what is this", picture).refusal(2)
    assert swapped in vli("ask", "what is this", "missing.jpg").refusal(2)
    assert swapped in vli("ask", picture, "what is this", picture).refusal(2)


@pytest.mark.usefixtures("no_model")
def test_a_missing_question_is_named(picture: Path, pictures: Pictures) -> None:
    assert f"a picture and a question are needed. {USAGE}" in vli("ask", picture).refusal(2)
    assert f"a picture and a question are needed. {USAGE}" in vli("ask").refusal(2)
    assert "a text is missing" in vli("ask", *pictures(2)).refusal(2)


def test_a_question_may_look_like_a_file_that_is_not_there(picture: Path, prompts: list[str]) -> None:
    assert vli("ask", picture, "cat.jpg").exit_code == 0
    assert prompts == ["cat.jpg"]


@pytest.mark.parametrize("more", [(), ("-O",), ("-O", "--choices", "yes,no"), ("--num-beams", 3)])
def test_the_vision_tower_runs_once_per_picture(
    picture: Path, pictures: Pictures, num_seen: list[int], more: tuple[object, ...]
) -> None:
    assert vli("ask", picture, "what?", *more).exit_code == 0
    assert num_seen == [1]
    assert vli("ask", *pictures(3), "what?", "--batch-size", 2, *more).exit_code == 0
    assert num_seen == [1, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--choices", "yes,no", "--num-beams", 2), "--num-beams changes nothing with --choices"),
        (("--temperature", 5, "--seed", 1), "--temperature and --seed change nothing without --do-sample"),
        (
            ("--top-p", 0.5, "--do-sample", "--length-penalty", 2),
            "--length-penalty changes nothing without --num-beams",
        ),
        (("--recursive", "--choices", "yes,no"), "--recursive changes nothing without a folder"),
        (("--batch-size", 4, "--choices", "yes,no"), "--batch-size changes nothing with one picture"),
    ],
)
def test_an_option_that_changes_nothing_is_said_unless_quiet(
    picture: Path, arguments: tuple[object, ...], words: str
) -> None:
    loud, quiet = vli("ask", picture, "x", *arguments), vli("ask", picture, "x", *arguments, "--quiet")
    (line,) = loud.lines
    assert line.startswith("notice: ")
    assert words in line
    assert quiet.stderr == ""
    assert quiet.text == loud.text


def test_quiet_still_says_errors(picture: Path) -> None:
    assert "no such file" in vli("ask", picture.with_name("none.png"), "x", "--quiet").refusal(4)


def test_paper_selection_is_the_one_of_python(picture: Path, model: vlinstruct.Model) -> None:
    expected = model.ask(picture, "what?", optimize=True, optimization=OptimizationSettings(select="paper"))
    assert vli("ask", picture, "what?", "-O", "--select", "paper").text == expected.text + "\n"


@pytest.mark.parametrize(
    "more",
    [
        ("--do-sample", "--temperature", 0.5, "--top-p", 0.9, "--seed", 3),
        ("--num-beams", 2, "--length-penalty", 2),
        ("--temperature", 1.0, "--seed", 0),  # the defaults
    ],
)
def test_an_option_that_does_something_is_not_remarked_upon(picture: Path, more: tuple[object, ...]) -> None:
    assert not [line for line in vli("ask", picture, "what?", *more).lines if "nothing" in line]


def test_an_empty_answer_is_said_and_recorded(picture: Path, pictures: Pictures, writes: Callable[[str], None]) -> None:
    writes("")
    one = vli("ask", picture, "what?")
    assert one.exit_code == 0
    assert "notice: the answer is empty" in one.stderr
    (record,) = vli("ask", picture, "what?", "--json").records
    assert (record["answer"], len(record["notices"])) == ("", 1)
    batch = vli("ask", *pictures(3), "what?")
    assert batch.exit_code == 0
    assert "notice: 3 of 3 records: the answer is empty, the model ended it at once" in batch.stderr
    assert all("the answer is empty" in record["notices"][0] for record in batch.records)
    writes("red")
    assert vli("ask", picture, "what?").stderr == ""
    assert "notices" not in vli("ask", picture, "what?", "--json").records[0]


@pytest.mark.parametrize(("name", "is_said"), [("a.txt", True), ("a.JSON", True), ("a.cvs", True), ("a.jsonl", False)])
def test_an_output_named_as_another_format_holds_json_lines_and_that_is_said(
    name: str, is_said: bool, picture: Path, tmp_path: Path
) -> None:
    result = vli("ask", picture, "what?", "-o", tmp_path / name)
    assert ("will hold JSON lines" in result.stderr) is is_said
    assert json.loads((tmp_path / name).read_text())["schema"] == "vlinstruct.ask/1"


def test_a_batch_that_is_refused_leaves_no_output(picture: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    vli("ask", picture, "what?", "-o", output, "--device", "cuda:77").refusal(4)
    assert not output.exists()
    vli("ask", picture, "what?", "-o", output)
    before = output.read_bytes()
    vli("ask", picture, "why?", "-o", output, "--device", "cuda:77", "--overwrite").refusal(4)
    assert output.read_bytes() == before
