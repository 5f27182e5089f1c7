import random

import pytest

from pretrain_mini.evaluate_answers import HEIGHT_BANDS, Answered, family_shares, held_out_scenes, reading_shares
from pretrain_mini.evaluate_people import (
    REQUIRED,
    Understood,
    asks_the_same,
    is_same_answer,
    pictures_for,
    together,
    typed_questions,
)
from pretrain_mini.rewriting import sample_fact
from vlinstruct.instruction.templates import fill
from vlinstruct.mini import Split
from vlinstruct.mini.draw import DEFAULT_SIZE
from vlinstruct.mini.fonts import BUILT_IN
from vlinstruct.mini.phrasings import families
from vlinstruct.mini.questions import Fact, ask, facts, is_label
from vlinstruct.mini.wording import canonical, clean, fields
from vlinstruct.mini.words import split_of
from vlinstruct.mini.world import sample_scene

COLOUR = Fact(family="colour", slots={"thing": "ring"}, answer="red")


def test_wordings_of_a_fact_ask_the_same() -> None:
    rng = random.Random(0)
    for _ in range(60):
        fact = sample_fact(rng, "dev")
        own = families()[fact.family].form
        assert asks_the_same(canonical(fact.family, fact.slots), fact, own)
        assert asks_the_same(clean(fact.family, fact.slots, rng, "dev"), fact, own)


def test_other_slots_families_forms_or_spellings_do_not() -> None:
    assert not asks_the_same("What colour is the star?", COLOUR, "open")
    assert not asks_the_same("How many rings are there?", COLOUR, "open")
    assert not asks_the_same("Waht colour is the ring?", COLOUR, "open")
    exist = Fact(family="exist", slots={"thing": "ring"}, answer="yes")
    assert not asks_the_same(canonical("exist", exist.slots, "true_false"), exist, "yes_no")


def test_every_question_typed_is_one_of_its_part() -> None:
    for question in typed_questions("dev", 36):
        wordings = families()[question.fact.family].wordings["dev"]
        assert any(
            fill(w.text, **fields(question.fact.slots)) == question.text for w in wordings if w.form == question.form
        )


def test_a_wording_is_asked_about_pictures_that_it_fits() -> None:
    for wording in families()["position"].wordings["dev"][:12]:
        drawn = pictures_for("position", wording, "dev")
        for asked in (next(drawn), next(drawn)):
            assert "{" not in asked.text
            assert asked.answer in {"yes_no": ("yes", "no"), "true_false": ("true", "false")}[wording.form]
    first, again = (next(pictures_for("count", families()["count"].wordings["dev"][0], "dev")) for _ in range(2))
    assert first == again


def test_kinds_count_alike_however_many_wordings_they_have() -> None:
    kinds = [Understood(kind=kind, wordings=[0.5] * (place + 1)) for place, kind in enumerate(REQUIRED)]
    kinds[0] = Understood(kind=REQUIRED[0], wordings=[1.0] * 50)
    mean = together([*kinds, Understood(kind="caption", wordings=[0.0])])
    assert mean.value == pytest.approx(0.5 + 0.5 / len(REQUIRED))
    assert mean.low == mean.high == mean.value
    assert is_same_answer("true", "yes")


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
