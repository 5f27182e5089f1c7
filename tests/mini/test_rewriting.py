import random

from vlinstruct.instruction.templates import Templates
from vlinstruct.mini.questions import facts
from vlinstruct.mini.rewriting import comparison_pair, rewriting_pair, sample_rewriting
from vlinstruct.mini.wording import canonical
from vlinstruct.mini.words import is_held_out
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
    assert sum(is_held_out(word) for word in quoted) <= len(quoted) // 4  # near misses and nouns may be


def test_the_lower_score_decides_a_comparison() -> None:
    rng = random.Random(6)
    fitting = [fact for fact in facts(sample_scene(3), rng) if fact.is_fitting]
    known = {canonical(fact.family, fact.slots) for fact in fitting}
    for _ in range(30):
        pair = comparison_pair(TEMPLATES, fitting, rng)
        assert pair.target in known
        assert pair.prompt.count("Score: ") == 2
