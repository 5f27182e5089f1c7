import random
import re

from pretrain_mini.evaluate_people import asks_the_same
from pretrain_mini.rewriting import (
    TextPair,
    as_called,
    comparison_pair,
    offered,
    rewriting_pair,
    sample_fact,
    sample_rewriting,
    scene_pair,
)
from vlinstruct.instruction.templates import Templates
from vlinstruct.mini.phrasings import families
from vlinstruct.mini.questions import Fact, facts
from vlinstruct.mini.wording import canonical
from vlinstruct.mini.words import split_of
from vlinstruct.mini.world import sample_scene

TEMPLATES = Templates.default()


def test_rewritings_are_a_function_of_the_seed() -> None:
    assert sample_rewriting(random.Random(1)) == sample_rewriting(random.Random(1))


def test_the_prompt_is_the_templates() -> None:
    pair = rewriting_pair(TEMPLATES, random.Random(2))
    assert pair.prompt.startswith("There is the text ")
    assert pair.prompt.endswith("keywords.")


def test_quoted_words_of_training_rewritings_are_never_held_out() -> None:
    rng = random.Random(4)
    pairs = [sample_rewriting(rng) for _ in range(400)]
    quoted = [target.split('"')[1] for _, target in pairs if target.count('"') == 2]
    assert quoted
    assert sum(split_of(word) != "train" for word in quoted) <= len(quoted) // 4  # near misses may be


def _compared(pair: TextPair) -> list[tuple[str, float]]:
    """Returns the instructions of a comparison's prompt with their scores, as they stand."""
    item = re.compile(r"Instruction: (.*?) Score: (\d+\.\d{4})\.(?= )")
    return [(text, float(score)) for text, score in item.findall(pair.prompt)]


def _fitting() -> list[Fact]:
    return [fact for fact in facts(sample_scene(3), random.Random(5)) if fact.is_fitting]


def _comparisons() -> list[tuple[TextPair, list[tuple[str, float]]]]:
    rng = random.Random(6)
    pairs = [comparison_pair(TEMPLATES, _fitting(), rng) for _ in range(120)]
    return [(pair, _compared(pair)) for pair in pairs]


def test_the_better_score_stands_first_as_often_as_last() -> None:
    apart = [scores for _, scores in _comparisons() if scores[0][1] != scores[1][1]]
    first = sum(scores[0][1] < scores[1][1] for scores in apart)
    assert 0.35 < first / len(apart) < 0.65


def test_the_lower_score_decides_a_comparison_and_the_shorter_text_a_tie() -> None:
    well_worded = 0
    for pair, scores in _comparisons():
        best = min(scores, key=lambda entry: (entry[1], len(entry[0]), entry[0]))[0]
        asked = {
            canonical(fact.family, fact.slots, form)
            for fact in _fitting()
            for form in families()[fact.family].canonical
            if asks_the_same(best, fact, form)
        }
        assert not asked or pair.target in asked
        well_worded += bool(asked)
    assert well_worded > 4


def test_what_is_foreign_stays_as_it_is_and_the_rest_becomes_canonical() -> None:
    rng = random.Random(7)
    best = {form for family in families().values() for form in family.canonical.values()}
    frames = [re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(text))) for text in best]
    pairs = [sample_rewriting(rng) for _ in range(400)]
    kept = sum(source == target for source, target in pairs)
    assert 0.25 < kept / len(pairs) < 0.5
    assert all(source == target or any(frame.fullmatch(target) for frame in frames) for source, target in pairs)


def test_a_thing_is_called_by_its_shape_only_where_that_is_as_clear() -> None:
    for seed in range(80):
        scene, rng = sample_scene(seed, fonts=("pillow",)), random.Random(seed)
        for fact in facts(scene, rng):
            called = as_called(fact, scene, rng)
            shapes = [thing.shape for thing in scene.things]
            if fact.family in ("position", "relation"):
                for slot in ("first", "second", "thing"):
                    name = called.slots.get(slot, "red star")
                    assert " " in name or shapes.count(name) == 1
            if fact.family == "exist" and " " not in called.slots["thing"]:
                assert (called.slots["thing"] in shapes) == (fact.answer == "yes")


def test_options_are_the_same_however_they_are_listed() -> None:
    rng = random.Random(8)
    for _ in range(300):
        fact = sample_fact(rng, "train")
        listed = offered(fact, rng).get("options", "")
        assert all(option in listed for option in fact.candidates if "options" in fact.slots)


def test_a_scene_in_words_tells_what_can_be_asked() -> None:
    pair = scene_pair(TEMPLATES, random.Random(9))
    assert pair.prompt.endswith(TEMPLATES.score_prompt())
    assert "background" in pair.prompt
