import random
from dataclasses import replace

import pytest

from pretrain_mini.rows import names_only_what_is_there
from vlinstruct.mini import Split
from vlinstruct.mini.questions import Fact, facts
from vlinstruct.mini.scene import COLOURS, Print, Scene, Thing
from vlinstruct.mini.world import sample_scene

STAR = Thing(shape="star", colour="red", rgb=COLOURS["red"], x=0.5, y=0.7, size=0.3)
SIGN = Print(text="Exit", colour="blue", rgb=COLOURS["blue"], font="pillow", x=0.5, y=0.2, height=0.2)
SCENE = Scene(background="white", background_rgb=(255, 255, 255), things=(STAR,), prints=(SIGN,))


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_scenes_own_facts_fit_as_they_say(split: Split) -> None:
    rng = random.Random(0)
    scenes = [sample_scene(seed, split=split, fonts=("pillow",)) for seed in range(200)]
    known = [(scene, fact) for scene in scenes for fact in facts(scene, rng)]
    assert all(names_only_what_is_there(fact, scene) == fact.is_fitting for scene, fact in known)


@pytest.mark.parametrize(
    ("family", "slots", "fits"),
    [
        ("colour", {"thing": "star"}, True),
        ("colour", {"thing": "ring"}, False),
        ("shape", {"colour": "blue"}, False),
        ("count", {"things": "stars"}, True),
        ("count", {"things": "crosses"}, False),
        ("exist", {"thing": "a red star"}, True),
        ("exist", {"thing": "a blue star"}, False),
        ("position", {"first": "red star", "relation": "above", "second": "red ring"}, False),
        ("options", {"asked": "colour of the star", "options": "(a) green (b) pink"}, True),
        ("answerable", {"asked": "shape of the green object"}, False),
        ("reading", {}, True),
        ("number", {}, False),
        ("written", {"quote": "exit"}, True),
        ("written", {"quote": "stop"}, False),
        ("ocr", {"tokens": "exit, stop"}, True),
        ("ocr", {"tokens": "stop, 17"}, False),
        ("meme", {"quote": "exit"}, False),
        ("caption", {}, True),
    ],
)
def test_a_question_about_another_picture_fits_when_all_it_names_is_here(
    family: str, slots: dict[str, str], fits: bool
) -> None:
    assert names_only_what_is_there(Fact(family=family, slots=slots, answer=""), SCENE) is fits


def test_without_a_text_there_is_none_to_ask_about() -> None:
    bare = replace(SCENE, prints=())
    assert not names_only_what_is_there(Fact(family="reading", slots={}, answer=""), bare)
    assert not names_only_what_is_there(Fact(family="colour", slots={"thing": "text"}, answer=""), bare)
