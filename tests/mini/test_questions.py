import random

import pytest

from vlinstruct.mini.phrasings import FAMILIES
from vlinstruct.mini.questions import Question, caption, plural, questions
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.world import sample_scene


def _all_questions() -> list[tuple[Scene, Question]]:
    scenes = [sample_scene(seed) for seed in range(150)]
    return [(scene, one) for scene in scenes for one in questions(scene, random.Random(7))]


ALL = _all_questions()


def _of(family: str) -> list[tuple[Scene, Question]]:
    found = [(scene, one) for scene, one in ALL if one.family == family]
    assert len(found) > 20, f"too few questions of {family} to judge"
    return found


def test_every_family_is_asked() -> None:
    assert {one.family for _, one in ALL} == set(FAMILIES)


def test_colours_are_those_of_the_only_thing_named() -> None:
    for scene, one in _of("colour"):
        colours = {thing.shape: thing.colour for thing in scene.things} | {"background": scene.background}
        colours |= {"text": scene.prints[0].colour} if scene.prints else {}
        assert one.answer == colours[one.fact.slots["thing"]]


def test_shapes_are_those_of_the_only_thing_of_that_colour() -> None:
    for scene, one in _of("shape"):
        assert [t.shape for t in scene.things if t.colour == one.fact.slots["colour"]] == [one.answer]


def test_counts_are_counted() -> None:
    for scene, one in _of("count"):
        wanted = one.fact.slots["things"]
        number = sum(wanted == "objects" or plural(thing.shape, 2) == f"2 {wanted}" for thing in scene.things)
        assert one.answer == str(number)


def test_positions_follow_the_coordinates() -> None:
    for scene, one in _of("position"):
        places = {thing.name: (thing.x, thing.y) for thing in scene.things}
        first, second = places[one.fact.slots["first"]], places[one.fact.slots["second"]]
        truth = {
            "to the left of": first[0] < second[0],
            "to the right of": first[0] > second[0],
            "above": first[1] < second[1],
            "below": first[1] > second[1],
        }
        assert one.answer == ("yes" if truth[one.fact.slots["relation"]] else "no")


def test_existence_is_true_of_the_scene() -> None:
    for scene, one in _of("exist"):
        there = {plural(thing.name, 1) for thing in scene.things}
        assert one.answer == ("yes" if one.fact.slots["thing"] in there else "no")


@pytest.mark.parametrize("family", ["reading", "number"])
def test_readings_are_the_print_in_lower_case(family: str) -> None:
    for scene, one in _of(family):
        assert one.answer == scene.prints[0].text.lower()


def test_quotes_are_written_or_not() -> None:
    for scene, one in _of("written"):
        assert one.answer == ("yes" if one.fact.slots["quote"] == scene.prints[0].text.lower() else "no")


def test_options_contain_the_answer_once() -> None:
    for _, one in _of("options"):
        assert one.fact.slots["options"].split().count(one.answer) == 1


def test_captions_name_everything() -> None:
    for scene in (sample_scene(seed) for seed in range(40)):
        text = caption(scene)
        assert all(thing.colour in text and thing.shape in text for thing in scene.things)
        assert all(one.text.lower() in text for one in scene.prints)


def test_yes_and_no_are_balanced() -> None:
    answers = [one.answer for _, one in _of("position")]
    assert 0.4 < answers.count("yes") / len(answers) < 0.6
