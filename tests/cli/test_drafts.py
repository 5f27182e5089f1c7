"""What the model writes or scores may be the same, nothing, or not a number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import vli
from safetensors.torch import load_file, save_file
from tiny_models import text_tokenizer

from .conftest import Pictures

Writes = Callable[[str], None]
ROLES = ("initial", "rewritten", "optimized")
EMPTY = ("the rewriting was empty: the initial instruction is used instead", "the comparison returned nothing")
BLANK = ["", " \n", "\u200b\u2060", "\0"]


@pytest.fixture
def damaged(tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the backbone a copy of the tiny one with a value in place of one tensor, or of one of its rows."""

    def damage(name: str, *, row: int | None = None, value: float = float("nan")) -> None:
        shutil.copytree(tiny_folders["t5"], tmp_path / "damaged")
        state = load_file(tmp_path / "damaged" / "model.safetensors")
        state[name][slice(None) if row is None else row] = value
        save_file(state, tmp_path / "damaged" / "model.safetensors")
        monkeypatch.setenv("VLINSTRUCT_BACKBONE", str(tmp_path / "damaged"))

    return damage


@pytest.fixture(params=["nan", "inf", "-inf"])
def z_is_damaged(request: pytest.FixtureRequest, damaged: Callable[..., None]) -> None:
    """Makes every text with a Z in it have no finite score; others are as they were."""
    z = text_tokenizer("t5").token_to_id("Z")
    damaged("language_model.shared.weight", row=z, value=float(request.param))


@pytest.mark.parametrize(("select", "chosen"), [("safe", "initial"), ("paper", "optimized")])
def test_identical_candidates_are_a_tie_that_the_initial_one_wins(
    picture: Path, writes: Writes, select: str, chosen: str
) -> None:
    writes("what?")
    result = vli("optimize", "what?", picture, "--select", select, "--json")
    (record,) = result.records
    assert record["initial"] == record["rewritten"] == record["optimized"]
    assert (record["chosen"], record["instruction"]) == (chosen, "what?")
    assert "notices" not in record
    assert result.stderr == ""


@pytest.mark.parametrize("text", BLANK)
def test_an_empty_rewriting_falls_back_to_the_instruction_and_is_said_and_recorded(
    picture: Path, writes: Writes, text: str
) -> None:
    writes(text)
    result = vli("optimize", "what?", picture, "--json")
    (record,) = result.records
    assert {record[role]["text"] for role in ROLES} == {"what?"}
    assert (record["chosen"], record["instruction"]) == ("initial", "what?")
    assert [notice.startswith(words) for notice, words in zip(record["notices"], EMPTY, strict=True)] == [True, True]
    assert result.lines == [f"notice: {notice}" for notice in record["notices"]]
    assert vli("optimize", "what?", picture, "--quiet").stderr == ""


def test_an_empty_rewriting_is_said_when_a_question_is_optimized(picture: Path, writes: Writes) -> None:
    writes("")
    result = vli("ask", picture, "what?", "-O", "--json", "--select", "ias")
    (record,) = result.records
    assert record["instruction"] == "what?"
    # The answer, which is written by the same stand-in, is empty, too.
    assert result.lines == [f"notice: {text}" for text in (*record["optimization"]["notices"], *record["notices"])]


def test_an_empty_rewriting_is_recorded_for_every_item_of_a_batch(pictures: Pictures, writes: Writes) -> None:
    writes("")
    records = vli("optimize", "what?", *pictures(2)).records
    assert [record["notices"][0] for record in records] == [EMPTY[0]] * 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_finite_is_an_error_that_leaves_the_instruction(
    picture: Path, damaged: Callable[..., None], value: float
) -> None:
    damaged("language_projection.weight", value=value)
    assert "so the initial one stays as it is" in vli("optimize", "what?", picture, "--select", "ias").refusal(4)
    assert "so the initial one stays as it is" in vli("ask", picture, "what?", "-O", "--select", "ias").refusal(4)
    assert "values that are not finite" in vli("ask", picture, "what?", "-O").refusal(5)  # as without -O
    assert "no finite score" in vli("score", picture, "what?", "x").refusal(4)
    assert "no finite score" in vli("ask", picture, "what?", "--choices", "yes,no").refusal(4)


@pytest.mark.parametrize("more", [(), ("--num-beams", 3), ("--do-sample",)])
def test_an_answer_is_never_made_of_values_that_are_not_finite(
    picture: Path, damaged: Callable[..., None], more: tuple[object, ...]
) -> None:
    damaged("language_projection.weight")
    assert "values that are not finite" in vli("ask", picture, "what?", *more).refusal(5)


def test_items_without_a_finite_score_are_failed_records(pictures: Pictures, damaged: Callable[..., None]) -> None:
    damaged("language_projection.weight")
    result = vli("optimize", "what?", *pictures(2), "--select", "ias")
    assert result.exit_code == 4
    assert [record["code"] for record in result.records] == ["non_finite_score"] * 2


@pytest.mark.parametrize(("questions", "exit_code"), [(("Z?", "Z!"), 5), (("Z?", "what?"), 3)])
def test_values_that_are_not_finite_are_the_models_fault_only_where_every_item_has_them(
    tmp_path: Path, picture: Path, damaged: Callable[..., None], questions: tuple[str, ...], exit_code: int
) -> None:
    damaged("language_model.shared.weight", row=text_tokenizer("t5").token_to_id("Z"))
    lines = (json.dumps({"image": picture.name, "question": question}) for question in questions)
    data = picture.with_name("questions.jsonl")
    data.write_text("\n".join(lines), encoding="utf-8")
    result = vli("ask", "--data", data)
    assert result.exit_code == exit_code
    assert [record.get("code", "good") for record in result.records] == [
        "non_finite_logits" if "Z" in question else "good" for question in questions
    ]


@pytest.mark.usefixtures("z_is_damaged")
def test_a_score_that_is_not_finite_is_said_and_its_neighbour_unharmed(
    picture: Path, tiny_folders: dict[str, Path]
) -> None:
    (record,) = vli("score", picture, "Zoo", "what?", "--json").records
    bad, good = record["scores"]
    (sound,) = vli("score", picture, "what?", "--json", "--backbone", tiny_folders["t5"]).records
    assert bad["ias"] is None
    assert None in bad["token_nll"]
    assert good["ias"] == pytest.approx(sound["scores"][0]["ias"], abs=3e-5)
    assert vli("score", picture, "Zoo", "what?").text.startswith("not finite  Zoo\n")


@pytest.mark.usefixtures("z_is_damaged")
@pytest.mark.parametrize(
    ("typed", "written", "chosen", "notices"),
    [
        ("what?", "what PLZ?", "initial", ["rewritten", "optimized"]),
        ("what PLZ?", "what?", "rewritten", ["initial"]),
    ],
)
def test_a_candidate_without_a_finite_score_never_wins(
    picture: Path, writes: Writes, typed: str, written: str, chosen: str, notices: list[str]
) -> None:
    writes(written)
    result = vli("optimize", typed, picture, "--json", "--select", "ias")
    (record,) = result.records
    assert (record["chosen"], record["instruction"]) == (chosen, "what?")
    assert [record[role]["ias"] is None for role in ROLES] == ["Z" in record[role]["text"] for role in ROLES]
    assert [notice.split()[1] for notice in record["notices"]] == notices
    assert all("no finite IAS" in line for line in result.lines)
    assert len(result.lines) == len(notices)
    assert f"{notices[0]:9}  not finite  what PLZ?\n" in vli("optimize", typed, picture, "--select", "ias").text


@pytest.mark.usefixtures("z_is_damaged")
def test_a_question_none_of_whose_versions_has_a_finite_score_fails_alone(
    picture: Path, writes: Writes, tmp_path: Path
) -> None:
    writes("Zoo")
    items = [{"image": f"pictures/{picture.name}", "question": question} for question in ("Zoo", "what?")]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    result = vli("ask", "-O", "--select", "ias", "--data", tmp_path / "items.jsonl")
    assert result.exit_code == 3
    bad, good = result.records
    assert (bad["status"], bad["code"]) == ("error", "non_finite_score")
    assert (good["status"], good["instruction"]) == ("ok", "what?")


@pytest.mark.usefixtures("z_is_damaged")
def test_a_choice_without_a_finite_score_is_no_answer(picture: Path) -> None:
    assert "no finite score" in vli("ask", picture, "what?", "--choices", "yes,Zoo").refusal(4)
