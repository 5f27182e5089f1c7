"""What a chat makes of follow-ups: "what colour is the circle?", "and the square?", in several spellings of the talk.

    PYTHONPATH=tests:examples python -m tools.follow_ups [--backbone mini] [--scenes 100] [--split dev]

Draws scenes of mini's world, asks a first question (in turn the canonical one, a good and a poor wording of the part)
and goes on from the model's own answer with a question that leaves something out: another thing, something else of the
same thing, another place, a number. The wordings below are written as people type them. Then it asks whole second
questions, every one a wording of the part: those must reach the model as they were typed.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from pretrain_mini.report import share, table
from vlinstruct.backend import Row
from vlinstruct.backends.instructblip.conversation import prompt_of
from vlinstruct.instruction.follow_up import whole_question
from vlinstruct.metrics.vqa_accuracy import is_lavis_match
from vlinstruct.mini import Split
from vlinstruct.mini.draw import draw
from vlinstruct.mini.phrasings import families
from vlinstruct.mini.questions import RELATIONS, Fact, facts
from vlinstruct.mini.questions.fact import unique
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.wording import answer_in, canonical, fields, paraphrased, poor
from vlinstruct.mini.world import sample_scene
from vlinstruct.model import Model, load
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import good

_ANSWER, _WRITTEN = GenerationSettings(max_new_tokens=24), GenerationSettings(max_new_tokens=48)
_BATCH = 25
_MIN_DISTANCE = 0.15
_ASKED_FAMILIES = ("colour", "shape", "count", "exist", "relation", "position", "reading")

ANOTHER_THING = {
    "colour": ("and the {thing}?", "what about the {thing}?", "the {thing}?", "ok and the {thing}"),
    "shape": ("and the {colour} one?", "what about the {colour} one?", "and the {colour} object?", "the {colour} one?"),
    "count": ("and {things}?", "what about {things}?", "{things}?", "and how about {things}"),
    "exist": ("and {a_thing}?", "what about {a_thing}?", "or {a_thing}?", "ok, and {a_thing}?"),
}  # fmt: skip
SAME_THING = {
    "colour": ("what colour is it?", "and its colour?", "what about its color?", "in what colour?", "colour?"),
    "shape": ("what shape is it?", "and its shape?", "what about its shape?", "which shape?"),
}  # fmt: skip
ANOTHER_PLACE = {
    "to the left of": ("and on the left?", "to the left?", "and to the left of it?", "what about left of it?"),
    "to the right of": ("and on the right?", "to the right?", "and to the right of it?", "what about right of it?"),
    "above": ("and above?", "above it?", "and above it?", "what about above it?"),
    "below": ("and below?", "below it?", "and under it?", "what about below it?"),
}
NUMBER = ("how many?", "and how many?", "how many are there?", "ok how many")


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """A question that goes on from another.

    Args:
        scene: what the picture shows.
        first: the question before it.
        second: as it is typed.
        answer: the right one to `second`.
    """

    scene: Scene
    first: str
    second: str
    answer: str


def asked_first(fact: Fact, rng: random.Random, split: Split) -> str:
    """Puts a first question: the canonical way, or well or poorly as people do."""
    return rng.choice(
        (
            lambda: canonical(fact.family, fact.slots),
            lambda: paraphrased(fact.family, fact.slots, rng, split),
            lambda: poor(fact.family, fact.slots, rng, split),
        )
    )()


def another_thing(scene: Scene, rng: random.Random) -> tuple[Fact, str, str] | None:
    """The same question of another thing."""
    by_family: dict[str, list[Fact]] = {}
    for fact in facts(scene, rng):
        if fact.family in ANOTHER_THING and set(fact.slots.values()).isdisjoint({"objects", "text", "background"}):
            by_family.setdefault(fact.family, []).append(fact)
    pairs = [family for family, known in by_family.items() if len(known) > 1]
    if not pairs:
        return None
    first, second = rng.sample(by_family[rng.choice(pairs)], 2)
    return first, rng.choice(ANOTHER_THING[second.family]).format(**fields(second.slots)), second.answer


def same_thing(scene: Scene, rng: random.Random) -> tuple[Fact, str, str] | None:
    """Something else of the same thing."""
    known = [("colour", thing.shape, thing.colour) for thing in unique(scene, "shape")]
    known += [("shape", f"{thing.colour} object", thing.shape) for thing in unique(scene, "colour")]
    known += [("colour", "", text.colour) for text in scene.prints]
    if not known:
        return None
    family, name, answer = rng.choice(known)
    first = (
        Fact(family="exist", slots={"thing": name}, answer="yes")
        if name
        else Fact(family="reading", slots={}, answer="")
    )
    return first, rng.choice(SAME_THING[family]), answer


def another_place(scene: Scene, rng: random.Random) -> tuple[Fact, str, str] | None:
    """The same of another place: what lies there, or whether something does."""
    known = [fact for fact in facts(scene, rng) if fact.family == "relation"]
    pairs = [(a, b) for a in known for b in known if a is not b and a.slots["thing"] == b.slots["thing"]]
    if pairs and rng.random() < 0.5:
        first, second = rng.choice(pairs)
        return first, rng.choice(ANOTHER_PLACE[second.slots["relation"]]), second.answer
    stated = [fact for fact in facts(scene, rng) if fact.family == "position"]
    if not stated:
        return None
    first = rng.choice(stated)
    (one, other) = first.focus
    distances = {name: distance(one, other) for name, distance in RELATIONS.items() if name != first.slots["relation"]}
    clear = [name for name, distance in distances.items() if abs(distance) > _MIN_DISTANCE]
    if not clear:
        return None
    relation = rng.choice(clear)
    return first, rng.choice(ANOTHER_PLACE[relation]), "yes" if distances[relation] > 0 else "no"


def number(scene: Scene, rng: random.Random) -> tuple[Fact, str, str] | None:
    """How many there are of what was asked for."""
    if not scene.things:
        return None
    shape = rng.choice([thing.shape for thing in scene.things])
    count = sum(thing.shape == shape for thing in scene.things)
    return Fact(family="exist", slots={"thing": shape}, answer="yes"), rng.choice(NUMBER), str(count)


KINDS = {"another thing": another_thing, "same thing": same_thing, "another place": another_place, "a number": number}


def follow_ups(kind: str, split: Split) -> Iterator[FollowUp]:
    """Yields follow-ups of a kind, each about a scene of its own."""
    for seed in range(1_000_000):
        rng = random.Random(f"{kind} {seed}")
        scene = sample_scene(seed, split=split)
        found = KINDS[kind](scene, rng)
        if found is not None:
            first, second, answer = found
            yield FollowUp(scene=scene, first=asked_first(first, rng, split), second=second, answer=answer)


def whole_questions(split: Split) -> Iterator[FollowUp]:
    """Yields second questions that leave nothing out: the part's wordings in turn, of all families."""
    for seed in range(1_000_000):
        rng = random.Random(f"whole {seed}")
        scene = sample_scene(seed, split=split)
        known = facts(scene, rng)
        first = rng.choice([fact for fact in known if fact.family in _ASKED_FAMILIES])
        family = rng.choice(sorted({fact.family for fact in known}))
        second = rng.choice([fact for fact in known if fact.family == family])
        wording = rng.choice(families()[second.family].wordings[split])
        if wording.relation not in (None, second.slots.get("relation")):
            continue
        text = wording.text.format(**fields(second.slots))
        yield FollowUp(scene=scene, first=asked_first(first, rng, split), second=text, answer=second.answer)


def _completed(item: FollowUp) -> str:
    return whole_question(item.second, item.first) or item.second


def spellings(model: Model) -> Mapping[str, Callable[[FollowUp, str], tuple[str, str]]]:
    """Returns what the language model and the Q-Former read of a follow-up and the first answer, by name."""

    def written(item: FollowUp, answer: str) -> tuple[str, str]:
        prompt = (
            f"Complete the last question. Question: {item.first} Answer: {answer} Question: {item.second} Complete:"
        )
        (outcome,) = model.backend.write([Row(prompt=prompt)], _WRITTEN)
        text = good(outcome).text or item.second
        return text, text

    return {
        "Question: Answer:": lambda i, a: (prompt_of([(i.first, a), (i.second, "")]), i.second),
        "the same, all read by the Q-Former": lambda i, a: (p := prompt_of([(i.first, a), (i.second, "")]), p),
        "lines": lambda i, a: (f"{i.first}\n{a}\n{i.second}", i.second),
        "as mini's dialogues": lambda i, a: (p := f"{i.first} {a.capitalize()}. {i.second}", p),
        "without": lambda i, a: (i.second, i.second),
        "whole, Question: Answer:": lambda i, a: (prompt_of([(i.first, a), (_completed(i), "")]), _completed(i)),
        "whole, as mini's dialogues": lambda i, a: (p := f"{i.first} {a.capitalize()}. {_completed(i)}", p),
        "whole, alone": lambda i, a: (_completed(i), _completed(i)),
        "written by the language model, alone": written,
    }


def measure(model: Model, items: list[FollowUp], names: list[str]) -> dict[str, list[bool]]:
    """Returns whether each item was answered rightly, by the talk's spelling."""
    right: dict[str, list[bool]] = {name: [] for name in names}
    spelt = spellings(model)
    for start in range(0, len(items), _BATCH):
        part = items[start : start + _BATCH]
        seen = model.see_each([draw(item.scene) for item in part])
        first = model.ask_each([good(s) for s in seen], [item.first for item in part], generation=_ANSWER)
        for name in names:
            rows = [
                Row(prompt=prompt, seen=(good(picture),), reads=reads)
                for item, picture, answer in zip(part, seen, first, strict=True)
                for prompt, reads in [spelt[name](item, good(answer).text)]
            ]
            for item, written in zip(part, model.backend.write(rows, _ANSWER), strict=True):
                given = answer_in("yes_no", good(written).text)
                right[name].append(is_lavis_match(given, answer_in("yes_no", item.answer)))
    return right


def main() -> None:
    """Prints a line for each kind and spelling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--scenes", type=int, default=100, help="of each kind")
    parser.add_argument("--split", choices=("dev", "test"), default="dev", help="test is for what is reported")
    parser.add_argument("--show", type=int, default=0, help="how many follow-ups of a kind to print")
    options = parser.parse_args()
    model = load(options.backbone, device="cpu")
    for kind in KINDS:
        items = list(islice(follow_ups(kind, options.split), options.scenes))
        changed = sum(whole_question(item.second, item.first) is not None for item in items)
        print(f"{kind}: {len(items)} follow-ups, {changed} of them made whole")
        for item in items[: options.show]:
            print(f"    {item.first!r} {item.second!r} -> {whole_question(item.second, item.first)!r} ({item.answer})")
        print(table(share(name, hits) for name, hits in measure(model, items, list(spellings(model))).items()))
    items = list(islice(whole_questions(options.split), 2 * options.scenes))
    changed = [item for item in items if whole_question(item.second, item.first) is not None]
    print(f"whole: {len(items)} second questions, {len(changed)} of them changed")
    for item in changed:
        print(f"    {item.first!r} {item.second!r} -> {whole_question(item.second, item.first)!r}")
    print(table(share(name, hits) for name, hits in measure(model, items, ["Question: Answer:", "without"]).items()))


if __name__ == "__main__":
    main()
