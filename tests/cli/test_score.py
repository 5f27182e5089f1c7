"""`vlinstruct score`: the IAS of instructions for a picture, token by token."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import vli
from tiny_models import same_nll

import vlinstruct

from .conftest import Pictures

USAGE = 'Type: vlinstruct score IMAGE "INSTRUCTION"...'


def test_a_record_has_the_fields_of_the_readme(picture: Path, tiny_folders: dict[str, Path]) -> None:
    ours = vlinstruct.load(str(tiny_folders["t5"]), device="cpu").score(picture, "what is it?", "x")
    (record,) = vli("score", picture, "what is it?", "x", "--json").records
    scores = record.pop("scores")
    assert record == {
        "schema": "vlinstruct.score/1",
        "id": str(picture),
        "status": "ok",
        "image": str(picture),
        "backbone": str(tiny_folders["t5"]),
    }
    assert scores == [
        {
            "instruction": scored.text,
            "ias": pytest.approx(scored.ias, abs=1e-5),
            "tokens": list(scored.scores.tokens),
            "token_nll": same_nll(scored.scores.token_nll),
        }
        for scored in ours
    ]


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_the_tokens_spell_the_instruction_and_its_end(picture: Path, tiny_folders: dict[str, Path], kind: str) -> None:
    (record,) = vli("score", picture, "what is it?", "--backbone", tiny_folders[kind], "--json").records
    *tokens, end = record["scores"][0]["tokens"]
    assert "".join(tokens) == "▁what▁is▁it?"
    assert end == "</s>"


def test_every_instruction_is_printed_with_its_ias_and_its_tokens(picture: Path) -> None:
    (record,) = vli("score", picture, "hi you", "x", "--json").records
    lines = vli("score", picture, "hi you", "x").text.splitlines()
    for scored, line, tokens in zip(record["scores"], lines[::2], lines[1::2], strict=True):
        assert line == f"{scored['ias']:.4f}  {scored['instruction']}"
        assert tokens.split() == [
            part
            for token, nll in zip(scored["tokens"], scored["token_nll"], strict=True)
            for part in (token, f"{nll:.2f}")
        ]


def test_instructions_scored_together_equal_those_scored_alone(picture: Path) -> None:
    texts = ["what is it?", "x", "name all of the 12 things that you can see", "x"]
    (together,) = vli("score", picture, *texts, "--json").records
    for text, scored in zip(texts, together["scores"], strict=True):
        (alone,) = vli("score", picture, text, "--json").records[0]["scores"]
        assert scored["token_nll"] == pytest.approx(alone.pop("token_nll"), abs=3e-5)
        assert scored["ias"] == pytest.approx(alone.pop("ias"), abs=3e-5)
        assert alone.items() <= scored.items()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_folder_is_a_batch_that_equals_single_pictures(pictures: Pictures, batch_size: int) -> None:
    paths = pictures(3)
    records = vli("score", paths[0].parent, "what?", "x", "--batch-size", batch_size).records
    assert [Path(record["image"]).name for record in records] == [path.name for path in paths]
    for path, record in zip(paths, records, strict=True):
        (alone,) = vli("score", path, "what?", "x", "--json").records
        for scored, other in zip(record["scores"], alone["scores"], strict=True):
            assert scored["ias"] == pytest.approx(other["ias"], abs=3e-5)


def test_the_picture_decides_the_score(pictures: Pictures) -> None:
    records = [vli("score", path, "what?", "--json").records[0] for path in pictures(2)]
    assert records[0]["scores"][0]["ias"] != records[1]["scores"][0]["ias"]


def test_the_vision_tower_runs_once_per_picture(picture: Path, pictures: Pictures, num_seen: list[int]) -> None:
    assert vli("score", picture, "a", "b", "c").exit_code == 0
    assert vli("score", pictures(3)[0].parent, "a", "b", "--batch-size", 2).exit_code == 0
    assert num_seen == [1, 2, 1]


@pytest.mark.usefixtures("no_model")
def test_a_picture_and_an_instruction_that_changed_places_are_named(picture: Path) -> None:
    swapped = f"the picture and the text are in the wrong order. {USAGE}"
    assert swapped in vli("score", "what is this", picture).refusal(2)
    assert swapped in vli("score", "what is this", "missing.png", "and this").refusal(2)
    assert f"a text is missing: {picture} is a file" in vli("score", picture, picture).refusal(2)


@pytest.mark.usefixtures("no_model")
def test_a_missing_argument_is_named(picture: Path) -> None:
    needed = f"a picture and an instruction are needed. {USAGE}"
    assert [vli("score", *typed).refusal(2) for typed in ((), (picture,))] == [f"error: {needed}"] * 2


def test_a_long_instruction_is_said_once_unless_quiet(pictures: Pictures) -> None:
    paths = pictures(2)
    arguments = ("score", paths[0].parent, "a b " * 60)
    loud, quiet = vli(*arguments), vli(*arguments, "--quiet")
    assert loud.lines == ["notice: the Q-Former reads the first 62 of the instruction's 120 tokens"]
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout
