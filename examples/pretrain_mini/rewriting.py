"""Text-only training pairs: poor instructions with their canonical form, and comparisons of two scored instructions.

A third of the rewriting pairs are questions from outside mini's world, so that the language model learns to carry over
words, numbers and quoted strings that it has never seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from vlinstruct.instruction.templates import Templates, fill
from vlinstruct.mini import Split
from vlinstruct.mini.phrasings import manners
from vlinstruct.mini.questions import Fact, facts
from vlinstruct.mini.wording import canonical, clean, poor
from vlinstruct.mini.words import sample_text
from vlinstruct.mini.world import sample_scene
from vlinstruct.values import ScoredInstruction, TokenScores

# Wordings of foreign questions: {noun}, {other} and {number} are filled with words that mostly are no world words.
FOREIGN = (
    "What is the {noun} doing?",
    "What is the {noun} in the picture?",
    "Where is the {noun}?",
    "Is the {noun} next to the {other}?",
    "Is this a {noun} or a {other}?",
    "Who is holding the {noun}?",
    "What kind of {noun} is this?",
    "How many {noun} are in the {other}?",
    'Does the {noun} say "{other}"?',
    "Is the number {number} on the {noun}?",
    "What time is it on the {noun}?",
    "Why is the {noun} {other}?",
    "Describe the {noun} and the {other}.",
    "Which {noun} is the {other}? (a) {noun} (b) {other} (c) {third}",
    "What can you see behind the {noun}?",
    "Write a story about the {noun} in {number} words.",
    "Is the {noun} wearing a {other}?",
    "Based on the image, is this statement true or false? The {noun} is {other}.",
)
_NOUN_TEXT = """
    man woman person people child boy girl animal food plate hand face head eye hair tree flower grass sky street
    building phone camera computer screen clothes bike airplane vehicle umbrella bottle cup fork knife spoon sandwich
    hot cold large small old young big little open made holding wearing sitting standing walking playing
"""
NOUNS = tuple(_NOUN_TEXT.split())
# Copying letter by letter is learned last: these are sampled more often.
_COPYING_FAMILIES = ("written", "ocr", "options", "choice")
_COPYING_SHARE = 0.3


@dataclass(frozen=True, kw_only=True)
class TextPair:
    """What the language model reads and what it should write.

    Args:
        prompt: what it reads.
        target: what it should write.
        source: the part of the prompt that the target is made from; empty where that is any.
        rejected: the part that a comparison decides against.
    """

    prompt: str
    target: str
    source: str = ""
    rejected: str = ""


def sample_fact(rng: random.Random, split: Split) -> Fact:
    """Samples a fact of a scene of its own, every family as often as any other that the scene allows."""
    scene = sample_scene(rng.getrandbits(40), split=split, fonts=("pillow",))
    possible = facts(scene, rng)
    family = rng.choice(sorted({fact.family for fact in possible}))
    return rng.choice([fact for fact in possible if fact.family == family])


def _foreign(rng: random.Random) -> str:
    def noun() -> str:
        return rng.choice(NOUNS) if rng.random() < 0.4 else sample_text(rng, "train")

    number = str(rng.randint(0, 9999))
    return fill(rng.choice(FOREIGN), noun=noun(), other=noun(), third=noun(), number=number)


def _spoiled(text: str, rng: random.Random) -> str:
    """Adds politeness, or takes capital letter and end mark away."""
    if rng.random() < 0.4:
        text = text[0].lower() + text[1:].rstrip("?.")
    if rng.random() < 0.4:
        text = f"{rng.choice(manners().openings.train)} {text}"
    return f"{text} {rng.choice(manners().closings.train)}" if rng.random() < 0.3 else text


def sample_rewriting(rng: random.Random, split: Split = "train") -> tuple[str, str]:
    """Samples an instruction and what it should become: the canonical one of its family, with the same slots."""
    if rng.random() < 0.35:
        text = _foreign(rng)
        return _spoiled(text, rng), text
    fact = sample_fact(rng, split)
    while rng.random() < _COPYING_SHARE and fact.family not in _COPYING_FAMILIES:
        fact = sample_fact(rng, split)
    best = canonical(fact.family, fact.slots)
    share = rng.random()
    if share < 0.6:
        return poor(fact.family, fact.slots, rng, split), best
    return (clean(fact.family, fact.slots, rng, split) if share < 0.85 else best), best


def rewriting_pair(templates: Templates, rng: random.Random) -> TextPair:
    """Samples a rewriting in the template of appendix B.1."""
    source, target = sample_rewriting(rng)
    return TextPair(prompt=templates.rewrite_prompt(source), target=target)


def scored(text: str, ias: float) -> ScoredInstruction:
    """Gives an instruction a score that no model has computed."""
    return ScoredInstruction(text=text, ias=ias, scores=TokenScores(tokens=("",), token_nll=(ias,)))


def comparison_pair(templates: Templates, fitting: Sequence[Fact], rng: random.Random) -> TextPair:
    """Samples a comparison of two instructions; the lower score decides, wherever it stands and however it is worded.

    Order and wording are independent of the scores, so that nothing but the scores can be learned; of equal scores the
    shorter text counts as the better one, again wherever it stands.

    Args:
        templates: give the prompt.
        fitting: facts of a picture, or of one that might be.
        rng: samples instructions, scores and order.
    """
    first = rng.choice(fitting)
    second = first if rng.random() < 0.3 else rng.choice(fitting)
    worded = [(_worded(fact, rng), fact) for fact in (first, second)]
    low = round(rng.uniform(0.1, 4.0), 4)
    scores = (
        [low, low] if rng.random() < 0.12 else [low, low + rng.choice((rng.uniform(0.01, 1.0), rng.uniform(1.0, 4.0)))]
    )
    rng.shuffle(scores)
    entries = list(zip(scores, worded, strict=True))
    (_, (source, best)), (_, (rejected, _)) = sorted(
        entries, key=lambda entry: (entry[0], len(entry[1][0]), entry[1][0])
    )
    prompt = templates.compare_prompt([scored(text, ias) for ias, (text, _) in entries])
    return TextPair(prompt=prompt, target=canonical(best.family, best.slots), source=source, rejected=rejected)


def _worded(fact: Fact, rng: random.Random) -> str:
    return (poor if rng.random() < 0.25 else clean)(fact.family, fact.slots, rng)
