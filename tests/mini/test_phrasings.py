import random
import re
from collections import Counter

import pytest

from vlinstruct.instruction.content import literal_changes
from vlinstruct.mini import Split
from vlinstruct.mini.phrasings import (
    GOOD_STYLES,
    POOR_STYLES,
    SIDES,
    TASKS,
    Wording,
    around,
    families,
    foreign_wordings,
    nouns,
)
from vlinstruct.mini.questions import RELATIONS, Fact, facts
from vlinstruct.mini.wording import answer_in, canonical, clean, fields, poor, worded
from vlinstruct.mini.world import sample_scene

FAMILIES = families()
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
STYLES = {*GOOD_STYLES, *POOR_STYLES}
_FIELD = re.compile(r"\{(\w+)\}")
# What a wording may name of a family's slots; a tuple is one or the other.
FIELDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "colour": (("thing",),),
    "shape": (("colour",),),
    "count": (("things",),),
    "exist": (("thing", "a_thing", "things"),),
    "same": (("first",), ("second",)),
    "position": (("first",), ("second",)),
    "relation": (("thing",),),
    "written": (("quote",),),
    "ocr": (("tokens",),),
    "meme": (("quote",),),
    "options": (("asked", "question"), ("options",)),
    "choice": (("thing",), ("options",)),
    "answerable": (("asked", "question"),),
    "dialogue": (("thing", "a_thing"),),
}


def _wordings(split: Split) -> list[tuple[str, Wording]]:
    return [(name, wording) for name, family in FAMILIES.items() for wording in family.wordings[split]]


def _letters(text: str) -> str:
    """Returns a wording's small letters and fields: what remains of it under any case, space and mark."""
    return re.sub(r"[^a-z{}_]", "", text.lower())


def _one_fact_of_every_family() -> list[Fact]:
    by_family: dict[str, Fact] = {}
    for seed in range(200):
        by_family |= {fact.family: fact for fact in facts(sample_scene(seed, fonts=("pillow",)), random.Random(seed))}
    assert by_family.keys() == FAMILIES.keys()
    return list(by_family.values())


FACTS = _one_fact_of_every_family()


def test_every_family_is_in_one_task() -> None:
    assert Counter(family for named in TASKS.values() for family in named) == Counter(list(FAMILIES))
    assert len(TASKS) == 10


def test_sides_are_the_worlds_relations() -> None:
    assert {*SIDES.values()} == RELATIONS.keys()


def test_no_wording_of_dev_or_test_is_seen_in_training_nor_its_letters() -> None:
    texts = {
        split: [wording.text for _, wording in _wordings(split)] + [w.text for w in foreign_wordings()[split]]
        for split in SPLITS
    }
    best = [text for family in FAMILIES.values() for text in family.canonical.values()]
    known = {_letters(text) for text in (*texts["train"], *best)}
    for split in ("dev", "test"):
        assert [text for text in texts[split] if _letters(text) in known] == []
    assert not {*map(_letters, texts["dev"])} & {*map(_letters, texts["test"])}
    assert not {*nouns()["train"]} & {*nouns()["dev"], *nouns()["test"]}


@pytest.mark.parametrize("split", SPLITS)
def test_no_wording_stands_twice_in_a_part(split: Split) -> None:
    texts = [wording.text.lower() for _, wording in _wordings(split)]
    assert [text for text, count in Counter(texts).items() if count > 1] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_many_wordings_in_many_styles(name: str) -> None:
    family = FAMILIES[name]
    assert len(family.wordings["train"]) >= 120
    assert len(family.wordings["test"]) >= 40
    assert {wording.style for wording in family.wordings["train"]} == STYLES
    assert {wording.style for wording in family.wordings["test"]} == STYLES
    assert {wording.form for wording in family.wordings["test"]} == family.canonical.keys()


@pytest.mark.parametrize("split", SPLITS)
def test_every_wording_names_what_its_family_asks_about(split: Split) -> None:
    for name, wording in _wordings(split):
        named = _FIELD.findall(wording.text)
        wanted = FIELDS.get(name, ())
        for alternatives in wanted:
            assert {*alternatives} & {*named}, wording
        allowed = {field for alternatives in wanted for field in alternatives}
        # A wording that names its side says so in words, every other one has a field for it.
        if name in ("position", "relation") and wording.relation is None:
            allowed.add("relation")
            assert "relation" in named, wording
        assert {*named} <= allowed, wording


def test_wordings_of_one_side_are_for_that_side_alone() -> None:
    slots = {"first": "star", "relation": "above", "second": "ring"}
    rng = random.Random(0)
    below = {w.text for w in FAMILIES["position"].wordings["test"] if w.relation == "below"}
    drawn = {worded("position", slots, rng, "test").text for _ in range(300)}
    assert not {text.replace("{first}", "star").replace("{second}", "ring") for text in below} & drawn


def test_a_verdict_has_the_form_that_is_asked_for() -> None:
    assert canonical("position", {"first": "star", "relation": "above", "second": "ring"}, "yes_no") == (
        "Is the star above the ring?"
    )
    assert [answer_in("yes_no", answer) for answer in ("true", "false", "yes", "red")] == ["yes", "no", "yes", "red"]
    assert [answer_in("true_false", answer) for answer in ("no", "true")] == ["false", "true"]


@pytest.mark.parametrize("split", SPLITS)
def test_slots_survive_every_wording(split: Split) -> None:
    rng = random.Random(3)
    for fact in FACTS:
        filled = {**fact.slots, **fields(fact.slots)}
        for _ in range(30):
            for text in (clean(fact.family, fact.slots, rng, split), poor(fact.family, fact.slots, rng, split)):
                for alternatives in FIELDS.get(fact.family, ()):
                    assert any(filled[name] in text for name in alternatives), text


def test_slots_are_inserted_verbatim() -> None:
    hostile = {"quote": "{thing} %s {0} </s>"}
    assert canonical("written", hostile) == 'Is "{thing} %s {0} </s>" written in the picture?'
    assert hostile["quote"] in clean("written", hostile, random.Random(0))


def test_the_canonical_form_keeps_numbers_quotes_and_options() -> None:
    for fact in FACTS:
        texts = [canonical(fact.family, fact.slots, form) for form in FAMILIES[fact.family].canonical]
        assert all(literal_changes(texts[0], text) == [] for text in texts)


def test_training_puts_words_around_and_in_place_of_others() -> None:
    assert len(around().openings) >= 40
    assert len(around().closings) >= 30
    for group in around().synonyms:
        assert len({*group}) == len(group) >= 2
