import random
import re

from pretrain_mini.roughening import foreign, roughened, typed, typo
from vlinstruct.mini.phrasings import nouns
from vlinstruct.mini.questions import facts
from vlinstruct.mini.wording import with_article
from vlinstruct.mini.world import sample_scene

WORDING = "What colour is the {thing} in this picture, and is there a {second}?"


def test_fields_are_never_touched() -> None:
    for seed in range(300):
        text = roughened(WORDING, random.Random(seed))
        assert re.findall(r"\{\w+\}", text) == ["{thing}", "{second}"]


def test_the_same_wording_becomes_many() -> None:
    assert len({roughened(WORDING, random.Random(seed)) for seed in range(300)}) > 200


def test_nothing_is_left_without_words() -> None:
    for seed in range(200):
        assert roughened("?", random.Random(seed))


def test_a_slip_changes_one_place() -> None:
    for seed in range(300):
        spoilt = typo("picture", random.Random(seed))
        assert abs(len(spoilt) - len("picture")) <= 1
        assert sorted(spoilt)[0] >= "a"
        same = sum(a == b for a, b in zip(spoilt, "picture", strict=False))
        same_behind = sum(a == b for a, b in zip(spoilt[::-1], "erutcip", strict=False))
        assert max(same, same_behind) >= 3


def test_short_words_have_no_slips() -> None:
    assert {typo(word, random.Random(seed)) for word in ("of", "a1b", "it") for seed in range(20)} == {
        "of",
        "a1b",
        "it",
    }


def test_an_article_fits_its_noun() -> None:
    assert [with_article(noun) for noun in ("orange ring", "umbrella", "star")] == [
        "an orange ring",
        "an umbrella",
        "a star",
    ]


def test_what_is_typed_keeps_quotations_options_and_tokens() -> None:
    rng = random.Random(4)
    for seed in range(60):
        for fact in facts(sample_scene(seed, fonts=("pillow",)), rng):
            text = typed(fact.family, fact.slots, rng).text
            for name in ("quote", "options", "tokens", "asked"):
                is_offered = name in fact.slots and not (name == "asked" and fact.slots["question"] in text)
                assert not is_offered or fact.slots[name] in text


def test_no_noun_of_training_is_foreign_to_it_in_dev_or_test() -> None:
    rng = random.Random(5)
    drawn = " ".join(foreign(rng, "test") for _ in range(400))
    assert not re.search(r"[{}]", drawn)
    assert any(noun in drawn for noun in nouns()["test"])
