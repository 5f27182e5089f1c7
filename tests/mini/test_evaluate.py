import random

from vlinstruct.mini.draw import DEFAULT_SIZE
from vlinstruct.mini.evaluate_answers import Answered, family_shares, held_out_scenes, reading_shares
from vlinstruct.mini.evaluate_instructions import is_well_formed
from vlinstruct.mini.fonts import BUILT_IN
from vlinstruct.mini.questions import Fact, ask, facts
from vlinstruct.mini.rewriting import sample_fact
from vlinstruct.mini.wording import canonical, clean
from vlinstruct.mini.words import is_held_out
from vlinstruct.mini.world import sample_scene

COLOUR = Fact(family="colour", slots={"thing": "ring"}, answer="red")


def test_good_wordings_are_well_formed() -> None:
    rng = random.Random(0)
    for _ in range(60):
        fact = sample_fact(rng, "test")
        assert is_well_formed(canonical(fact.family, fact.slots), fact)
        assert is_well_formed(clean(fact.family, fact.slots, rng, "test"), fact)


def test_other_slots_families_or_spellings_are_not() -> None:
    assert not is_well_formed("What colour is the star?", COLOUR)
    assert not is_well_formed("How many rings are there?", COLOUR)
    assert not is_well_formed("Waht colour is the ring?", COLOUR)


def test_scenes_of_the_evaluation_are_held_out() -> None:
    assert all(is_held_out(text.text) for scene in held_out_scenes(50) for text in scene.prints)


def _answered(answer: str) -> list[Answered]:
    scene = next(scene for seed in range(50) if (scene := sample_scene(seed, fonts=(BUILT_IN,))).prints)
    rng = random.Random(0)
    fact = next(fact for fact in facts(scene, rng) if fact.family in ("reading", "number"))
    return [Answered(scene=scene, question=ask(fact, rng), answer=answer or fact.answer)]


def test_right_and_wrong_readings_are_counted() -> None:
    assert DEFAULT_SIZE == (112, 112)
    right, wrong = (reading_shares(_answered(answer)) for answer in ("", "?"))
    assert sum(one.hits for one in right[:4]) == 1
    assert sum(one.hits for one in wrong) == 0
    assert family_shares(_answered(""))[0].rate == 1.0
