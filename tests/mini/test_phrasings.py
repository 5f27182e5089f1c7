import random

import pytest

from vlinstruct.instruction.content import content_changes
from vlinstruct.mini.phrasings import CLOSINGS, FAMILIES, MISSPELLINGS, OPENINGS, STYLES, Split, Style, Wordings
from vlinstruct.mini.rewriting import sample_fact
from vlinstruct.mini.wording import canonical, clean, poor

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def _all_wordings() -> list[Wordings]:
    families = FAMILIES.values()
    listed = [one.paraphrases for one in families] + [one for family in families for one in family.poor.values()]
    return [*listed, OPENINGS, CLOSINGS, *MISSPELLINGS.values()]


def test_no_wording_stands_in_two_parts() -> None:
    for wordings in _all_wordings():
        listed = [text for split in SPLITS for text in wordings.of(split)]
        assert len(listed) == len(set(listed))
        assert all(wordings.of(split) for split in SPLITS)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_wording_has_the_familys_slots_and_no_other(name: str) -> None:
    family = FAMILIES[name]
    for wordings in (family.paraphrases, *family.poor.values()):
        for text in (family.canonical, *wordings.train, *wordings.dev, *wordings.test):
            assert sorted(family.slots) == sorted(part.split("}")[0] for part in text.split("{")[1:])


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("style", STYLES)
def test_slots_survive_every_style(style: Style, split: Split) -> None:
    rng = random.Random(3)
    for _ in range(40):
        fact = sample_fact(rng, split)
        text = poor(fact.family, fact.slots, rng, split, style)
        assert all(value in text for value in fact.slots.values())


def test_slots_are_inserted_verbatim() -> None:
    hostile = {"quote": "{thing} %s {0} </s>"}
    assert canonical("written", hostile) == 'Is "{thing} %s {0} </s>" written in the picture?'
    assert hostile["quote"] in clean("written", hostile, random.Random(0))


def test_the_canonical_form_keeps_numbers_quotes_and_options() -> None:
    rng = random.Random(5)
    for _ in range(100):
        fact = sample_fact(rng, "train")
        source = clean(fact.family, fact.slots, rng).removesuffix(" Answer:")
        assert content_changes(source, canonical(fact.family, fact.slots)) == []
