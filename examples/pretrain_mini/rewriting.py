"""Text-only training pairs: instructions as people type them with their canonical form, and comparisons of two.

What asks for something else than mini's world knows is to be copied as it stands, so the language model learns to carry
over words, numbers and quoted strings that it has never seen, and to tell an unknown noun from a known one.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from pretrain_mini.roughening import foreign, typed
from pretrain_mini.vocabulary import written_words
from vlinstruct.instruction.templates import Templates
from vlinstruct.mini import Split
from vlinstruct.mini.phrasings import families, foreign_wordings, nouns
from vlinstruct.mini.questions import Fact, caption, description, facts
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.wording import canonical, plural_noun
from vlinstruct.mini.words import sample_text
from vlinstruct.mini.world import sample_scene
from vlinstruct.values import ScoredInstruction, TokenScores

_FOREIGN_SHARE, _CANONICAL_SHARE = 0.34, 0.08
# Copying letter by letter is learned last: these are sampled more often.
_COPYING_FAMILIES = ("written", "ocr", "options", "choice")
_COPYING_SHARE = 0.2
# Families that may ask about any noun, and the slot that names it.
_NAMING_SLOTS = {"colour": "thing", "count": "things", "exist": "thing", "relation": "thing", "position": "first"}
_UNKNOWN_SHARE, _STRANGE_SHARE, _STRANGE_WORD = 0.25, 0.25, 0.3
_OFFERED_OTHERWISE = 0.4
_KNOWN_SCENES = 3000
_SALAD_SHARE, _PIECES_SHARE = 0.15, 0.6
_FULL_NAME_SHARE = 0.5


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
    """Samples a fact that has no picture, every family as often as any other."""
    known = _known(split)
    scene, fact = rng.choice(known[rng.choice(list(known))])
    slots = dict(fact.slots)
    if fact.family == "written":
        slots["quote"] = sample_text(rng, split)
    if fact.family == "ocr":
        slots["tokens"] = ", ".join(sample_text(rng, split) for _ in range(rng.randint(2, 3)))
    return as_called(replace(fact, slots=slots), scene, rng)


@cache
def _known(split: Split) -> Mapping[str, Sequence[tuple[Scene, Fact]]]:
    """Returns facts by family: of single scenes few allow for some of them."""
    by_family: dict[str, list[tuple[Scene, Fact]]] = {name: [] for name in families()}
    for seed in range(_KNOWN_SCENES):
        scene = sample_scene(seed, split=split, fonts=("pillow",))
        for fact in facts(scene, random.Random(f"known {split} {seed}")):
            by_family[fact.family].append((scene, fact))
    return by_family


def as_called(fact: Fact, scene: Scene, rng: random.Random) -> Fact:
    """Calls things by their shape alone at times, where that is as clear: people say "the star", not "the red star"."""
    if fact.family not in ("position", "relation", "exist") or rng.random() < _FULL_NAME_SHARE:
        return fact
    shapes = Counter(thing.shape for thing in scene.things)

    def called(name: str) -> str:
        shape = name.split(" ")[-1]
        # Whether something is there stays as true by its shape alone where it is there, or where its shape is not.
        is_clear = (fact.answer == "yes") == (shapes[shape] > 0) if fact.family == "exist" else shapes[shape] == 1
        return shape if is_clear else name

    return replace(fact, slots={slot: called(v) if slot != "relation" else v for slot, v in fact.slots.items()})


def _about_the_unknown(rng: random.Random) -> str:
    """Asks one of the world's questions about a thing that it does not have."""
    _, fact = rng.choice(_known("train")[rng.choice(list(_NAMING_SLOTS))])
    noun = rng.choice(nouns()["train"]) if rng.random() < 0.6 else sample_text(rng, "train")
    slot = _NAMING_SLOTS[fact.family]
    return typed(fact.family, {**fact.slots, slot: plural_noun(noun) if slot == "things" else noun}, rng).text


def _made_strange(text: str, rng: random.Random) -> str:
    """Puts words that nobody knows in the places of some."""
    return re.sub(
        r"[A-Za-z]+", lambda match: sample_text(rng, "train") if rng.random() < _STRANGE_WORD else match[0], text
    )


@cache
def _typed_words() -> Sequence[str]:
    """Returns every word that people type in training's wordings, as they type it."""
    texts = [wording.text for family in families().values() for wording in family.wordings["train"]]
    texts += [wording.text for wording in foreign_wordings()["train"]]
    return sorted({word for text in texts for word in re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", " ", text))})


def sample_foreign(rng: random.Random) -> str:
    """Samples an instruction that mini can neither follow nor rewrite, or words without any meaning together."""
    share = rng.random()
    if share < _SALAD_SHARE:  # to be copied word by word, so that every word can be
        words = written_words() if rng.random() < _PIECES_SHARE else _typed_words()
        return " ".join(rng.choice(words) for _ in range(rng.randint(3, 9)))
    if share < _SALAD_SHARE + _UNKNOWN_SHARE:
        return _about_the_unknown(rng)
    text = foreign(rng)
    return _made_strange(text, rng) if rng.random() < _STRANGE_SHARE else text


def offered(fact: Fact, rng: random.Random) -> Mapping[str, str]:
    """Returns a fact's slots, its options listed in another way at times."""
    if "options" not in fact.slots or rng.random() >= _OFFERED_OTHERWISE:
        return fact.slots
    *others, last = fact.candidates
    lists = (
        f"{', '.join(others)} or {last}",
        f"{', '.join(others)}, {last}",
        "/".join(fact.candidates),
        " ".join(f"{letter}) {option}" for letter, option in zip("ABC", fact.candidates, strict=False)),
        " ".join(f"{number}. {option}" for number, option in enumerate(fact.candidates, start=1)),
    )
    return {**fact.slots, "options": rng.choice(lists)}


def sample_rewriting(rng: random.Random) -> tuple[str, str]:
    """Samples an instruction and what it should become: the canonical one of its family and form, or itself."""
    share = rng.random()
    if share < _FOREIGN_SHARE:
        text = sample_foreign(rng)
        return text, text
    fact = sample_fact(rng, "train")
    while rng.random() < _COPYING_SHARE and fact.family not in _COPYING_FAMILIES:
        fact = sample_fact(rng, "train")
    slots = offered(fact, rng)
    worded = typed(fact.family, slots, rng)
    best = canonical(fact.family, slots, worded.form)
    return (best if share > 1 - _CANONICAL_SHARE else worded.text), best


def scene_pair(templates: Templates, rng: random.Random) -> TextPair:
    """Samples an instruction that fits a scene, to be predicted from the scene in words in place of a picture."""
    scene = sample_scene(rng.getrandbits(40), fonts=("pillow",))
    while not (possible := [fact for fact in facts(scene, rng) if fact.is_fitting and (scene.things or scene.prints)]):
        scene = sample_scene(rng.getrandbits(40), fonts=("pillow",))
    seen = rng.choice((caption, description))(scene)
    fact = rng.choice(possible)
    return TextPair(prompt=f"{seen}. {templates.score_prompt()}", target=typed(fact.family, fact.slots, rng).text)


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
    worded = [(typed(fact.family, fact.slots, rng), fact) for fact in (first, second)]
    low = round(rng.uniform(0.1, 4.0), 4)
    scores = (
        [low, low] if rng.random() < 0.12 else [low, low + rng.choice((rng.uniform(0.01, 1.0), rng.uniform(1.0, 4.0)))]
    )
    rng.shuffle(scores)
    entries = list(zip(scores, worded, strict=True))
    (_, (source, best)), (_, (rejected, _)) = sorted(
        entries, key=lambda entry: (entry[0], len(entry[1][0].text), entry[1][0].text)
    )
    return TextPair(
        prompt=templates.compare_prompt([scored(words.text, ias) for ias, (words, _) in entries]),
        target=canonical(best.family, best.slots, source.form),
        source=source.text,
        rejected=rejected.text,
    )
