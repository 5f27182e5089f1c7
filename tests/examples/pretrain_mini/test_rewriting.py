import random
import re

from pretrain_mini.evaluate_instructions import is_well_formed
from pretrain_mini.rewriting import TextPair, comparison_pair, rewriting_pair, sample_rewriting
from vlinstruct.instruction.templates import Templates
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
    assert sum(split_of(word) != "train" for word in quoted) <= len(quoted) // 4  # near misses and nouns may be


def _compared(pair: TextPair) -> list[tuple[str, float]]:
    """Returns the instructions of a comparison's prompt with their scores, as they stand."""
    item = re.compile(r"Instruction: (.*?) Score: (\d+\.\d{4})\.(?= )")
    return [(text, float(score)) for text, score in item.findall(pair.prompt)]


def _fitting() -> list[Fact]:
    return [fact for fact in facts(sample_scene(3), random.Random(5)) if fact.is_fitting]


def _comparisons() -> list[tuple[TextPair, list[tuple[str, float]]]]:
    rng = random.Random(6)
    pairs = [comparison_pair(TEMPLATES, _fitting(), rng) for _ in range(300)]
    return [(pair, _compared(pair)) for pair in pairs]


def test_the_better_score_stands_first_as_often_as_last() -> None:
    apart = [scores for _, scores in _comparisons() if scores[0][1] != scores[1][1]]
    first = sum(scores[0][1] < scores[1][1] for scores in apart)
    assert 0.4 < first / len(apart) < 0.6


def test_the_lower_score_decides_a_comparison_and_the_shorter_text_a_tie() -> None:
    well_worded = 0
    for pair, scores in _comparisons():
        best = min(scores, key=lambda entry: (entry[1], len(entry[0]), entry[0]))[0]
        asked = {canonical(fact.family, fact.slots) for fact in _fitting() if is_well_formed(best, fact)}
        assert not asked or pair.target in asked
        well_worded += bool(asked)
    assert well_worded > 100
