import random

import pytest

from pretrain_mini.evaluate_answers import HEIGHT_BANDS, Answered, family_shares, held_out_scenes, reading_shares
from pretrain_mini.evaluate_instructions import is_well_formed
from pretrain_mini.rewriting import sample_fact
from vlinstruct.mini import Split
from vlinstruct.mini.draw import DEFAULT_SIZE
from vlinstruct.mini.fonts import BUILT_IN
from vlinstruct.mini.questions import Fact, ask, facts, is_label
from vlinstruct.mini.wording import canonical, clean
from vlinstruct.mini.words import split_of
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


@pytest.mark.parametrize("split", ["dev", "test"])
def test_scenes_of_the_evaluation_are_the_parts_own(split: Split) -> None:
    prints = [text.text for scene in held_out_scenes(50, split) for text in scene.prints]
    assert {split_of(text) for text in prints if not is_label(text)} == {split}


def _answered(answer: str) -> list[Answered]:
    rng = random.Random(0)
    scenes = (sample_scene(seed, fonts=(BUILT_IN,)) for seed in range(50))
    known = ((scene, fact) for scene in scenes for fact in facts(scene, rng))
    scene, fact = next((scene, fact) for scene, fact in known if fact.family in ("reading", "number"))
    return [Answered(scene=scene, question=ask(fact, rng), answer=answer or fact.answer)]


def test_right_and_wrong_readings_are_counted() -> None:
    assert DEFAULT_SIZE == (120, 120)
    right, wrong = (reading_shares(_answered(answer)) for answer in ("", "?"))
    assert sum(one.hits for one in right[: len(HEIGHT_BANDS)]) == 1
    assert sum(one.hits for one in wrong) == 0
    assert [one.rate for one in family_shares(_answered("")) if one.items] == [1.0]
