import random
import re
from collections import Counter

import pytest

from vlinstruct.instruction.content import literal_changes
from vlinstruct.mini import Split
from vlinstruct.mini.phrasings import (
    STYLES,
    TASKS,
    Style,
    Wordings,
    families,
    manners,
    styles_of,
)
from vlinstruct.mini.questions import Fact, facts
from vlinstruct.mini.wording import canonical, clean, poor
from vlinstruct.mini.world import sample_scene

FAMILIES = families()
MANNERS = manners()
MISSPELLINGS = MANNERS.misspellings
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
ALLOWED = [(style, split) for split in SPLITS for style in styles_of(split)]


def _wordings_of(name: str) -> list[Wordings]:
    return [FAMILIES[name].paraphrases, *FAMILIES[name].poor.values()]


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


def test_no_wording_of_any_family_stands_twice() -> None:
    best = [family.canonical for family in FAMILIES.values()]
    texts = [
        text for name in FAMILIES for wordings in _wordings_of(name) for split in SPLITS for text in wordings.of(split)
    ]
    assert [text for text, count in Counter(map(str.lower, best + texts)).items() if count > 1] == []


def test_no_manner_or_misspelling_stands_in_two_parts() -> None:
    for wordings in (MANNERS.openings, MANNERS.closings, MANNERS.casual_openings, MANNERS.casual_closings):
        texts = [text for split in SPLITS for text in wordings.of(split)]
        assert len(texts) == len(set(texts))
    wrong = [text for wordings in MISSPELLINGS.values() for split in SPLITS for text in wordings.of(split)]
    assert [text for text, count in Counter([*MISSPELLINGS, *wrong]).items() if count > 1] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_every_wording_has_the_familys_slots_and_no_other(name: str) -> None:
    family = FAMILIES[name]
    for wordings in _wordings_of(name):
        for text in (family.canonical, *wordings.train, *wordings.dev, *wordings.test):
            assert sorted(family.slots) == sorted(part.split("}")[0] for part in text.split("{")[1:])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_enough_wordings_in_every_part(name: str) -> None:
    family = FAMILIES[name]
    by_kind = {"good": family.paraphrases, **family.poor}
    least = {"good": (5, 2, 2), "verbose": (4, 2, 2), "vague": (3, 2, 2), "keywords": (4, 2, 2)}
    assert by_kind.keys() == least.keys()
    for kind, counts in least.items():
        assert all(len(by_kind[kind].of(split)) >= count for split, count in zip(SPLITS, counts, strict=True)), kind


@pytest.mark.parametrize("name", FAMILIES)
def test_every_good_wording_can_be_misspelt(name: str) -> None:
    good = FAMILIES[name].paraphrases
    for text in (FAMILIES[name].canonical, *good.train, *good.dev, *good.test):
        assert {word.lower() for word in re.findall(r"\w+", text)} & MISSPELLINGS.keys(), text


def _families_worded(text: str, facts_known: list[Fact], split: Split) -> set[str]:
    """Returns the families that have a listed wording which fits the text, slots being anything of their kind."""
    worded = set()
    for fact in facts_known:
        templates = (
            FAMILIES[fact.family].canonical,
            *(t for wordings in _wordings_of(fact.family) for t in wordings.of(split)),
        )
        if any(_filled(template, fact) == text for template in templates):
            worded.add(fact.family)
    return worded


def _filled(template: str, fact: Fact) -> str:
    for name, value in fact.slots.items():
        template = template.replace(f"{{{name}}}", value)
    return template


@pytest.mark.parametrize("split", SPLITS)
def test_no_two_families_say_the_same_when_filled(split: Split) -> None:
    rng = random.Random(1)
    all_facts = [fact for seed in range(12) for fact in facts(sample_scene(seed, fonts=("pillow",)), rng)]
    for fact in all_facts:
        text = poor(fact.family, fact.slots, rng, split, rng.choice(("verbose", "vague", "keywords")))
        assert _families_worded(text, all_facts, split) == {fact.family}


def test_every_part_but_training_has_a_style_of_its_own() -> None:
    assert styles_of("train") == STYLES
    assert set(styles_of("dev")) - set(STYLES) == {"official"}
    assert set(styles_of("test")) - set(STYLES) == {"telegram"}


def _is_held_out(text: str) -> bool:
    return text.endswith(" stop") or text.startswith(MANNERS.official_openings)


def test_held_out_styles_are_never_drawn_for_training() -> None:
    rng = random.Random(2)
    drawn = {split: [poor(f.family, f.slots, rng, split) for f in FACTS for _ in range(40)] for split in SPLITS}
    assert not any(map(_is_held_out, drawn["train"]))
    for split, ending in (("dev", ""), ("test", " stop")):
        held_out = [text for text in drawn[split] if _is_held_out(text)]
        assert held_out
        assert all(text.endswith(ending) for text in held_out)


@pytest.mark.parametrize(("style", "split"), [("telegram", "train"), ("official", "train"), ("telegram", "dev")])
def test_a_held_out_style_cannot_be_asked_for_elsewhere(style: Style, split: Split) -> None:
    with pytest.raises(AssertionError, match="held out"):
        poor("caption", {}, random.Random(0), split, style)


@pytest.mark.parametrize(("style", "split"), ALLOWED)
def test_slots_survive_every_style(style: Style, split: Split) -> None:
    rng = random.Random(3)
    for fact in FACTS:
        for _ in range(6):
            text = poor(fact.family, fact.slots, rng, split, style)
            assert all(value in text for value in fact.slots.values())


@pytest.mark.parametrize(("style", "split"), ALLOWED)
def test_the_canonical_form_keeps_the_content_of_every_style(style: Style, split: Split) -> None:
    rng = random.Random(4)
    for fact in FACTS:
        for _ in range(6):
            text = poor(fact.family, fact.slots, rng, split, style)
            assert literal_changes(text, canonical(fact.family, fact.slots)) == []


def test_slots_are_inserted_verbatim() -> None:
    hostile = {"quote": "{thing} %s {0} </s>"}
    assert canonical("written", hostile) == 'Is "{thing} %s {0} </s>" written in the picture?'
    assert hostile["quote"] in clean("written", hostile, random.Random(0))


def test_the_canonical_form_keeps_numbers_quotes_and_options() -> None:
    rng = random.Random(5)
    for fact in FACTS:
        for split in SPLITS:
            source = clean(fact.family, fact.slots, rng, split)
            assert literal_changes(source, canonical(fact.family, fact.slots)) == []


@pytest.mark.parametrize("family", ["position", "options", "ocr"])
def test_a_telegram_has_neither_capitals_nor_articles(family: str) -> None:
    slots = dict.fromkeys(FAMILIES[family].slots, "X")
    for seed in range(10):
        text = poor(family, slots, random.Random(seed), "test", "telegram")
        words = text.replace("X", "").split()
        assert text.endswith(" stop")
        assert not {"the", "a", "an"} & set(words)
        assert all(word == word.lower() for word in words)


def test_no_wording_is_a_number_or_a_truth_value_to_yaml() -> None:
    around = (MANNERS.openings, MANNERS.closings, MANNERS.casual_openings, MANNERS.casual_closings)
    all_wordings = [
        *around,
        *MISSPELLINGS.values(),
        *(wordings for name in FAMILIES for wordings in _wordings_of(name)),
    ]
    assert {type(text) for wordings in all_wordings for split in SPLITS for text in wordings.of(split)} == {str}
    assert {type(text) for text in (*FAMILIES, *MISSPELLINGS, *MANNERS.official_openings)} == {str}
