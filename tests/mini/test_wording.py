import random
import re

from vlinstruct.mini.wording import roughened, typo, with_article

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
