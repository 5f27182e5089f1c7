import random

import pytest

from vlinstruct.mini.phrasings import families
from vlinstruct.mini.questions import NOUNS_BY_COLOUR, Fact, Question, caption, description, facts, plural, questions
from vlinstruct.mini.questions.things import same_colours
from vlinstruct.mini.scene import COLOURS, SHAPES, Print, Scene, Thing
from vlinstruct.mini.world import sample_scene


def _all_questions() -> list[tuple[Scene, Question]]:
    scenes = [sample_scene(seed) for seed in range(400)]
    return [
        (scene, question) for scene in scenes for question in questions(scene, random.Random(7 * len(scene.things) + 1))
    ]


ALL = _all_questions()


def _of(family: str) -> list[tuple[Scene, Question]]:
    of_family = [(scene, question) for scene, question in ALL if question.family == family]
    assert len(of_family) > 10, f"too few questions of {family} to judge"
    return of_family


def _facts_of(scene: Scene, family: str) -> list[Fact]:
    return [fact for fact in facts(scene, random.Random(0)) if fact.family == family]


def _thing(shape: str, colour: str, x: float = 0.5, y: float = 0.5, size: float = 0.2) -> Thing:
    return Thing(shape=shape, colour=colour, rgb=COLOURS[colour], x=x, y=y, size=size)


def _scene(*things: Thing, text: str | None = None) -> Scene:
    printed = Print(text=text or "", colour="black", rgb=COLOURS["black"], font="pillow", x=0.5, y=0.2, height=0.2)
    return Scene(
        background="white",
        background_rgb=COLOURS["white"],
        things=things,
        prints=(printed,) if text is not None else (),
    )


def _colours_of_unique_things(scene: Scene) -> dict[str, str]:
    """Returns the colour of every noun that names one thing of the picture, independently of `questions`."""
    shapes = [thing.shape for thing in scene.things]
    colours = {thing.shape: thing.colour for thing in scene.things if shapes.count(thing.shape) == 1}
    texts = {"text": scene.prints[0].colour} if scene.prints else {}
    return colours | texts | {"background": scene.background}


def _truth_of_asked(scene: Scene, description: str) -> str | None:
    """Returns what "colour of the star", "shape of the red object" or "number of circles" is; None if not there."""
    kind, _, noun = description.split(" ", 2)
    noun = noun.removeprefix("the ").removesuffix(" object")
    if kind == "colour":
        return _colours_of_unique_things(scene).get(noun)
    if kind == "shape":
        shapes = [thing.shape for thing in scene.things if thing.colour == noun]
        return shapes[0] if len(shapes) == 1 else None
    return str(sum(noun == "objects" or plural(thing.shape, 2) == f"2 {noun}" for thing in scene.things))


def _texts(options: str) -> list[str]:
    return options.split()[1::2]


def test_every_family_is_asked() -> None:
    assert {question.family for _, question in ALL} == set(families())


def test_colours_are_those_of_the_only_thing_named() -> None:
    for scene, question in _of("colour"):
        assert question.answer == _colours_of_unique_things(scene)[question.fact.slots["thing"]]


def test_shapes_are_those_of_the_only_thing_of_that_colour() -> None:
    for scene, question in _of("shape"):
        assert [t.shape for t in scene.things if t.colour == question.fact.slots["colour"]] == [question.answer]


def test_counts_are_counted() -> None:
    for scene, question in _of("count"):
        assert question.answer == _truth_of_asked(scene, f"number of {question.fact.slots['things']}")


def _stands(relation: str, first: Thing, second: Thing) -> bool:
    return {
        "to the left of": first.x < second.x,
        "to the right of": first.x > second.x,
        "above": first.y < second.y,
        "below": first.y > second.y,
    }[relation]


def test_positions_follow_the_coordinates() -> None:
    for scene, question in _of("position"):
        things = {thing.name: thing for thing in scene.things}
        first, second = things[question.fact.slots["first"]], things[question.fact.slots["second"]]
        assert question.answer == str(_stands(question.fact.slots["relation"], first, second)).lower()


def test_one_thing_alone_stands_in_the_relation_asked() -> None:
    for scene, question in _of("relation"):
        (reference,) = [thing for thing in scene.things if thing.name == question.fact.slots["thing"]]
        related = [thing for thing in scene.things if _stands(question.fact.slots["relation"], thing, reference)]
        assert [thing.shape for thing in related] == [question.answer]
        assert question.fact.focus == (reference, related[0])


@pytest.mark.parametrize(("other_x", "is_asked"), [(0.3, True), (0.47, False), (0.53, False), (0.8, False)])
def test_a_relation_is_asked_only_where_no_second_thing_may_be_meant(other_x: float, is_asked: bool) -> None:
    scene = _scene(_thing("star", "red", x=0.5), _thing("ring", "blue", x=0.9), _thing("cross", "green", x=other_x))
    slots = [fact.slots for fact in _facts_of(scene, "relation")]
    assert ({"relation": "to the right of", "thing": "red star"} in slots) == is_asked


def test_same_colours_are_the_same() -> None:
    for scene, question in _of("same"):
        colours = _colours_of_unique_things(scene)
        is_same = colours[question.fact.slots["first"]] == colours[question.fact.slots["second"]]
        assert question.answer == ("yes" if is_same else "no")
        assert [thing.shape for thing in question.fact.focus] == [
            question.fact.slots["first"],
            question.fact.slots["second"],
        ]


def test_existence_is_true_of_the_scene() -> None:
    for scene, question in _of("exist"):
        present = {thing.name for thing in scene.things}
        assert question.answer == ("yes" if question.fact.slots["thing"] in present else "no")


@pytest.mark.parametrize("family", ["reading", "number"])
def test_readings_are_the_print_in_lower_case(family: str) -> None:
    for scene, question in _of(family):
        assert question.answer == scene.prints[0].text.lower()


def test_quotes_are_written_or_not() -> None:
    for scene, question in _of("written"):
        assert question.answer == ("yes" if question.fact.slots["quote"] == scene.prints[0].text.lower() else "no")


def test_the_printed_text_is_one_of_the_ocr_tokens() -> None:
    for scene, question in _of("ocr"):
        tokens = question.fact.slots["tokens"].split(", ")
        assert tokens.count(question.answer) == 1
        assert question.answer == scene.prints[0].text.lower()
        assert 2 <= len(tokens) <= 3


@pytest.mark.parametrize(("label", "answer"), [("RED", "yes"), ("Star", "yes"), ("blue", "no"), ("ring", "no")])
def test_a_label_fits_when_some_thing_has_its_colour_or_shape(label: str, answer: str) -> None:
    scene = _scene(_thing("star", "red"), _thing("cross", "green"), text=label)
    (fact,) = _facts_of(scene, "meme")
    assert (fact.answer, fact.slots["quote"], fact.candidates) == (answer, label.lower(), ("yes", "no"))


def test_labels_are_never_read_and_other_texts_are_no_memes() -> None:
    thing = _thing("star", "red")
    for family in ("reading", "written", "ocr"):
        assert _facts_of(_scene(thing, text="Circle"), family) == []
        assert _facts_of(_scene(thing, text="exit"), family) != []
    assert _facts_of(_scene(thing, text="exit"), "meme") == []
    assert _facts_of(_scene(text="Circle"), "meme") == []


def test_options_contain_the_answer_once_and_are_of_its_kind() -> None:
    numbers = set("0123456789")
    for scene, question in _of("options"):
        texts = _texts(question.fact.slots["options"])
        assert texts.count(question.answer) == 1
        assert len(set(texts)) == len(texts)
        assert any(set(texts) <= kind for kind in (set(COLOURS), set(SHAPES), numbers))
        assert question.answer == _truth_of_asked(scene, question.fact.slots["asked"])
        assert question.fact.candidates == tuple(texts)


def test_one_option_alone_has_the_colour_of_the_thing_chosen_for() -> None:
    for scene, question in _of("choice"):
        colour = _colours_of_unique_things(scene)[question.fact.slots["thing"]]
        texts = _texts(question.fact.slots["options"])
        assert [noun for noun in texts if noun in NOUNS_BY_COLOUR[colour]] == [question.answer]
        assert question.fact.candidates == tuple(texts)


def test_every_colour_has_nouns_of_its_own() -> None:
    nouns = [noun for words in NOUNS_BY_COLOUR.values() for noun in words]
    assert NOUNS_BY_COLOUR.keys() == COLOURS.keys()
    assert len(nouns) == len(set(nouns))
    assert all(noun.isalpha() and noun.islower() for noun in nouns)


def test_only_what_the_picture_does_not_show_is_unanswerable() -> None:
    for scene, question in _of("answerable"):
        assert question.answer == (_truth_of_asked(scene, question.fact.slots["asked"]) or "unanswerable")
        assert question.fact.is_fitting == (question.answer != "unanswerable")


def test_dialogues_go_on_about_the_only_thing_of_its_shape() -> None:
    for scene, question in _of("dialogue"):
        shape = question.fact.slots["thing"]
        assert question.answer == _colours_of_unique_things(scene)[shape]
        assert len(set(question.fact.candidates)) == 16
        assert set(COLOURS) | {"yes", "no"} <= set(question.fact.candidates)


def test_candidates_contain_the_answer() -> None:
    ranked = {question.family for _, question in ALL if question.fact.candidates}
    assert ranked == {"options", "choice", "dialogue", "meme"}
    assert all(question.fact.candidates.count(question.answer) == 1 for _, question in ALL if question.family in ranked)


def test_captions_name_everything() -> None:
    for scene in (sample_scene(seed) for seed in range(40)):
        text = caption(scene)
        assert all(thing.colour in text and thing.shape in text for thing in scene.things)
        assert all(shown.text.lower() in text for shown in scene.prints)


def test_a_description_places_the_two_largest_things_from_left_to_right() -> None:
    scene = _scene(
        _thing("circle", "blue", x=0.8, y=0.1, size=0.3),
        _thing("star", "red", x=0.4, y=0.7, size=0.2),
        _thing("ring", "green", x=0.1, size=0.1),
        text="EXIT",
    )
    assert description(scene) == "white background, red star bottom, blue circle right, exit"


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [(0.35, 0.1, "left"), (0.65, 0.9, "right"), (0.5, 0.3, "top"), (0.4, 0.7, "bottom"), (0.5, 0.5, "middle")],
)
def test_a_place_is_left_or_right_before_top_or_bottom(x: float, y: float, place: str) -> None:
    assert description(_scene(_thing("star", "red", x=x, y=y))) == f"white background, red star {place}"


def _named(fact: Fact) -> set[str]:
    """Returns the colours and shapes that a fact's slots name, apart from what they only offer to choose from."""
    texts = [value for name, value in fact.slots.items() if name not in ("options", "tokens", "quote")]
    words = {word for text in texts for word in text.split()}
    return words & set(COLOURS) | {shape for shape in SHAPES if {shape, plural(shape, 2)[2:]} & words}


def test_fitting_facts_name_nothing_absent() -> None:
    for scene, question in ALL:
        present = {word for thing in scene.things for word in (thing.colour, thing.shape)}
        if question.fact.is_fitting:
            assert _named(question.fact) <= present, question
            assert "text" not in question.fact.slots.get("asked", "").split() or scene.prints
            assert question.fact.slots.get("quote") in (None, *(text.text.lower() for text in scene.prints))


def test_facts_do_not_fit_when_they_name_something_absent() -> None:
    for scene, question in ALL:
        if not question.fact.is_fitting and question.family in ("exist", "count"):
            names = {plural(thing.name, 1) for thing in scene.things} | {plural(t.shape, 2)[2:] for t in scene.things}
            assert not names & set(question.fact.slots.values())


@pytest.mark.parametrize(
    ("family", "first"), [("position", "true"), ("written", "yes"), ("answerable", "unanswerable")]
)
def test_both_answers_are_about_as_frequent(family: str, first: str) -> None:
    answers = [question.answer for _, question in _of(family)]
    assert 0.4 < answers.count(first) / len(answers) < 0.6


def test_about_as_many_things_have_the_same_colour_as_have_not() -> None:
    rng = random.Random(9)
    answers = [fact.answer for seed in range(3000) for fact in same_colours(sample_scene(seed), rng)]
    assert 0.35 < answers.count("yes") / len(answers) < 0.65
