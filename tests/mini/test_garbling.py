import random

from vlinstruct.mini.phrasings import manners
from vlinstruct.mini.wording import garbled, typo

MISSPELLINGS = manners().misspellings
WORDING = "What is the colour of the {thing} that you see? Options: {options}"


def test_fields_are_never_touched() -> None:
    for seed in range(300):
        text = garbled(WORDING, random.Random(seed))
        assert text.split().count("{thing}") == text.split().count("{options}") == 1


def test_wordings_come_out_spoilt_in_many_ways() -> None:
    assert len({garbled(WORDING, random.Random(seed)) for seed in range(100)}) > 70


def test_misspellings_of_dev_and_test_are_never_made() -> None:
    held_out = {word for wordings in MISSPELLINGS.values() for word in (*wordings.dev, *wordings.test)}
    made = {typo(word, random.Random(seed)) for word in MISSPELLINGS for seed in range(300)}
    assert len(made) > 200
    assert not made & held_out
