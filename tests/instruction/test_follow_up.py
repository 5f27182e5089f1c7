"""Follow-up questions made whole: what is put back, and that whole questions stay as they were typed."""

from __future__ import annotations

import random

import pytest

from vlinstruct.instruction.follow_up import whole_question
from vlinstruct.instruction.templates import fill
from vlinstruct.mini.phrasings import families
from vlinstruct.mini.questions import facts
from vlinstruct.mini.wording import canonical, fields
from vlinstruct.mini.world import sample_scene

COLOUR = "what colour is the circle?"
FOLLOW_UPS = [
    # another thing
    (COLOUR, "and the square?", "what colour is the square?"),
    (COLOUR, "What about the red star", "what colour is the red star?"),
    (COLOUR, "ok, and the stars?", "what colour are the stars?"),
    ("How many circles are there?", "stars?", "How many stars are there?"),
    ("How many circles are there?", "and the red box?", "How many red boxes are there?"),
    ("Is there a red star in the picture?", "or an orange one?", "Is there an orange star in the picture?"),
    ("What is the shape of the red object?", "and the blue?", "What is the shape of the blue object?"),
    ("what is the man holding?", "and the woman?", "what is the woman holding?"),
    ("what does the sign say?", "and the poster?", "what does the poster say?"),
    ("is the man old?", "and the woman?", "is the woman old?"),
    ("who is the man next to the car?", "and the woman?", "who is the woman next to the car?"),
    ("how many people are in the car?", "and dogs?", "how many dogs are in the car?"),
    ("My son drew it: is there a ring?", "and a star?", "My son drew it: is there a star?"),
    ("Tell me the ring's colour.", "and the heart?", "Tell me the heart's colour."),
    ("wat color is teh star", "and the square?", "wat color is the square"),
    # something else of the same thing
    (COLOUR, "and its shape?", "what shape is the circle?"),
    (COLOUR, "where is it?", "where is the circle?"),
    ("Is there a star in the picture?", "what colour is it?", "what colour is the star?"),
    ("Is there a star in the picture?", "how many?", "how many stars are there?"),
    ("what is written?", "in what colour?", "what colour is the text?"),
    # another place
    (
        "Which shape is to the left of the red star?",
        "and on the right?",
        "Which shape is to the right of the red star?",
    ),
    ("Is the star above the ring?", "or to the left of it?", "Is the star to the left of the ring?"),
    ("Is the star above the ring?", "below the cross?", "Is the star below the cross?"),
    ("what is written at the top?", "and at the bottom?", "what is written at the bottom?"),
    ("what is written?", "and on the left?", "what is written on the left?"),
    ("how many people are in the car?", "and in the truck?", "how many people are in the truck?"),
    # what stands around a question stays around it
    (f"{COLOUR}\nAnswer with one word.", "and the square?", "what colour is the square?\nAnswer with one word."),
]


@pytest.mark.parametrize(("earlier", "typed", "whole"), FOLLOW_UPS)
def test_what_a_follow_up_leaves_out_is_put_back(earlier: str, typed: str, whole: str) -> None:
    assert whole_question(typed, earlier) == whole


def test_a_follow_up_of_a_follow_up_goes_on_from_what_was_asked() -> None:
    question = COLOUR
    for typed in ("and the square?", "how many?", "and stars?", "on the left?"):
        question = whole_question(typed, question) or ""
    assert question == "how many stars are there on the left?"


WHOLE = """
what colour is the square? | is it raining? | what time is it? | what is it? | how many people are there? | why? | stop
describe the picture | who is the man on the left? | and what is the dog doing? | what about the colour of the square?
is the square bigger than the circle? | text colour? | count the stars | read the sign | yes | thanks! | are you sure?
is it a cat or a dog? | where was this taken? | what do you see on the right? | number of stars | a caption please
""".replace("\n", " | ").strip(" |")


@pytest.mark.parametrize("typed", WHOLE.split(" | "))
def test_a_question_that_is_whole_or_cannot_be_told_stays_as_typed(typed: str) -> None:
    assert whole_question(typed, COLOUR) is None


@pytest.mark.parametrize(
    ("earlier", "typed"),
    [
        ("are they big?", "any buildings?"),
        ("how many giraffes?", "any trees?"),
        ("is it clean?", "what about the sink?"),
        ("does it have a tag?", "and the cat?"),
        ("why is that funny?", "and the man?"),
        ("more details please", "and in French?"),
        ("what's behind them?", "in the background?"),
        ("how tall is it?", "and on the left?"),
        ("the left one", "the big one?"),
        ("Describe the picture in one short sentence.", "and the star?"),
        ("what color is the floor?", "a pot?"),
        ("How many stars are there?", "squares overall?"),
        (COLOUR, "the text?"),
    ],
)
def test_a_follow_up_of_a_question_that_needs_its_talk_stays_as_typed(earlier: str, typed: str) -> None:
    assert whole_question(typed, earlier) is None


def test_no_wording_of_a_whole_question_is_changed() -> None:
    """Every dev wording of every family, about scenes that allow it, after another question about the scene."""
    rng = random.Random(0)
    num_asked = 0
    for seed in range(6):
        known = facts(sample_scene(seed, split="dev"), rng)
        earlier = rng.choice(known)
        for fact in {fact.family: fact for fact in known}.values():
            for wording in families()[fact.family].wordings["dev"]:
                if wording.relation in (None, fact.slots.get("relation")):
                    text = fill(wording.text, **fields(fact.slots))
                    assert whole_question(text, canonical(earlier.family, earlier.slots)) is None
                    num_asked += 1
    assert num_asked > 1_000


@pytest.mark.parametrize(
    ("typed", "earlier"),
    [
        ("", COLOUR),
        ("?!", COLOUR),
        ("and " * 1_000, COLOUR),
        ("and the square?", "what colour is the circle? " * 500),
        ("and the\nsquare?", COLOUR),
        ("und das Quadrat?", "Welche Farbe hat der Kreis?"),
        ("\u0430 \u043a\u0432\u0430\u0434\u0440\u0430\u0442?", "\u0446\u0432\u0435\u0442?"),
        ("and the \x1b[2J?", ""),
        ("the " * 25, "the " * 250),
        ("and </s>{0}<image>?", "{0} </s>"),
    ],
)
def test_what_is_no_follow_up_stays_as_typed(typed: str, earlier: str) -> None:
    assert whole_question(typed, earlier) is None
