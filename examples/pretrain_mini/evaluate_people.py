"""How well a model understands what people type: `python -m pretrain_mini.evaluate_people [--split dev]`.

Every wording of a part is asked about pictures of its own, and rewritten; what is foreign to mini's world is to stay as
it is. Intervals resample wordings, and with each its pictures. Tune on dev: test is for what is reported.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean

import numpy as np

import vlinstruct as vli
from pretrain_mini.evaluate_answers import text_height
from pretrain_mini.report import Share, share, table
from pretrain_mini.rewriting import as_called, sample_fact
from pretrain_mini.roughening import foreign
from pretrain_mini.rows import UNANSWERABLE
from vlinstruct.backend import Row
from vlinstruct.instruction.templates import fill
from vlinstruct.metrics.bootstrap import Interval, interval, resampled_rows
from vlinstruct.mini import Split
from vlinstruct.mini.draw import draw
from vlinstruct.mini.phrasings import SIDES, Form, Wording, families
from vlinstruct.mini.questions import Fact, facts
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.wording import answer_in, canonical, fields
from vlinstruct.mini.world import sample_scene
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import good

_READ_HEIGHT, _MOST_COUNTED = 1 / 6, 4
_ANSWER, _REWRITING = GenerationSettings(max_new_tokens=48), GenerationSettings(max_new_tokens=128)
_BATCH = 25
_REWRITINGS = 1000
_SIDE = {relation: side for side, relation in SIDES.items()}
REQUIRED = ("reading", "colour", "count", "shape", "exist", *(f"position {side}" for side in SIDES))
"""What people's words are judged by together: each of these counts as much as any other."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A wording about a picture.

    Args:
        scene: what the picture shows.
        text: the wording, its fields filled.
        answer: the right one, in the wording's form.
    """

    scene: Scene
    text: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Understood:
    """How often a kind's wordings were answered rightly.

    Args:
        kind: a family, of positions with their side, or what kinds have together.
        wordings: the share of each wording's pictures.
    """

    kind: str
    wordings: Sequence[float]

    def interval(self) -> Interval:
        """Returns the mean with its interval over resampled wordings."""
        return interval(np.array(self.wordings)[resampled_rows(len(self.wordings), seed=0)].mean(axis=1))


def is_same_answer(answer: str, right: str) -> bool:
    """True for the right answer; yes and true are one, no and false, too.

    >>> is_same_answer("true", "yes"), is_same_answer("Red", "red"), is_same_answer("no", "yes")
    (True, True, False)
    """
    return answer_in("yes_no", answer.strip().lower()) == answer_in("yes_no", right)


def _fits(fact: Fact, wording: Wording, scene: Scene) -> bool:
    """True where a wording can ask for a fact; what must be read is large, what is counted few."""
    if wording.relation not in (None, fact.slots.get("relation")):
        return False
    if fact.family == "reading":
        return text_height(scene) >= _READ_HEIGHT
    return fact.family != "count" or int(fact.answer) <= _MOST_COUNTED


def pictures_for(family: str, wording: Wording, split: Split, seed: int = 0) -> Iterator[Asked]:
    """Yields pictures of a part that a wording can be asked about, one question each; each seed others."""
    rng = random.Random(f"people {split} {seed} {wording.text}")
    for _ in count():
        scene = sample_scene(rng.getrandbits(40), split=split)
        fitting = [f for f in facts(scene, rng) if f.family == family and _fits(f, wording, scene)]
        if fitting:
            fact = as_called(rng.choice(fitting), scene, rng)
            text = fill(wording.text, **fields(fact.slots))
            yield Asked(scene=scene, text=text, answer=answer_in(wording.form, fact.answer))


def _right(model: Model, asked: Sequence[Asked]) -> list[bool]:
    seen = [good(outcome) for outcome in model.see_each([draw(item.scene) for item in asked])]
    outcomes = model.ask_each(seen, [item.text for item in asked], generation=_ANSWER)
    return [is_same_answer(good(o).text, item.answer) for o, item in zip(outcomes, asked, strict=True)]


def understood(model: Model, split: Split, pictures: int, names: Sequence[str]) -> list[Understood]:
    """Asks every wording of some families about pictures of its own.

    Args:
        model: is asked, greedily.
        split: whose wordings, fonts and words are used.
        pictures: for each wording.
        names: the families.
    """
    by_kind: dict[str, list[float]] = defaultdict(list)
    for family in names:
        for wording in families()[family].wordings[split]:
            drawn = pictures_for(family, wording, split)
            share_right = fmean(_right(model, [next(drawn) for _ in range(pictures)]))
            by_kind[family].append(share_right)
            if family == "position" and wording.relation is not None:
                by_kind[f"position {_SIDE[wording.relation]}"].append(share_right)
                by_kind[f"position, {wording.form}"].append(share_right)
    return [Understood(kind=kind, wordings=shares) for kind, shares in by_kind.items()]


def together(kinds: Sequence[Understood]) -> Interval:
    """Returns the mean of the required kinds with its interval: the wordings of each are resampled."""
    required = [kind for kind in kinds if kind.kind in REQUIRED]
    resampled = [np.array(k.wordings)[resampled_rows(len(k.wordings), seed=i)] for i, k in enumerate(required)]
    return interval(np.mean([values.mean(axis=1) for values in resampled], axis=0))


def rewrite_all(model: Model, texts: Sequence[str]) -> list[str]:
    """Rewrites instructions by the template of appendix B.1, greedily."""
    rows = [Row(prompt=model.templates.rewrite_prompt(text), stage="rewrite") for text in texts]
    starts = range(0, len(rows), _BATCH)
    return [good(w).text for start in starts for w in model.backend.write(rows[start : start + _BATCH], _REWRITING)]


@dataclass(frozen=True, kw_only=True)
class Typed:
    """A wording of a part, filled from a fact.

    Args:
        fact: what is asked.
        form: of the answer.
        text: as typed.
    """

    fact: Fact
    form: Form
    text: str


def typed_questions(split: Split, number: int) -> list[Typed]:
    """Samples wordings of a part, every family as often, each filled from a fact of a scene of its own."""
    rng = random.Random(f"rewriting {split}")
    found = []
    for place in range(number):
        family = list(families())[place % len(families())]
        while (fact := sample_fact(rng, split)).family != family:
            pass
        relation = fact.slots.get("relation")
        possible = [w for w in families()[family].wordings[split] if w.relation in (None, relation)]
        wording = rng.choice(possible)
        found.append(Typed(fact=fact, form=wording.form, text=fill(wording.text, **fields(fact.slots))))
    return found


def asks_the_same(text: str, fact: Fact, form: Form) -> bool:
    """True for the family's canonical instruction in the form, or any wording of it, filled with the fact's slots."""
    orders = [fact.slots]
    if fact.family == "same":  # whichever of the two is named first
        orders.append({"first": fact.slots["second"], "second": fact.slots["first"]})
    if text in [canonical(fact.family, slots, form) for slots in orders]:
        return True
    return any(
        wording.form == form
        and wording.relation in (None, fact.slots.get("relation"))
        and text in [fill(wording.text, **fields(slots)) for slots in orders]
        for wordings in families()[fact.family].wordings.values()
        for wording in wordings
    )


def keeps_the_content(text: str, slots: Mapping[str, str], source: str) -> bool:
    """True where everything that fills the source's fields stands in a text, too."""
    lowered, original = text.lower(), source.lower()
    return all(value.lower() in lowered for value in slots.values() if value.lower() in original)


def rewriting_shares(model: Model, split: Split, number: int = _REWRITINGS) -> list[Share]:
    """Returns how often rewriting asks the same and keeps what is named, and leaves what is foreign as it is."""
    asked = typed_questions(split, number)
    rewritten = rewrite_all(model, [question.text for question in asked])
    rng = random.Random(f"foreign {split}")
    strange = [foreign(rng, split) for _ in range(number)]
    pairs = list(zip(rewritten, asked, strict=True))
    return [
        share("rewriting asks the same question", (asks_the_same(t, q.fact, q.form) for t, q in pairs)),
        share("rewriting keeps what is named", (keeps_the_content(t, q.fact.slots, q.text) for t, q in pairs)),
        share("foreign instruction stays", (a == b for a, b in zip(rewrite_all(model, strange), strange, strict=True))),
    ]


def outside_share(model: Model, split: Split, number: int) -> Share:
    """Asks what is foreign to mini's world about its pictures; counts where the answer is "unanswerable"."""
    rng = random.Random(f"outside {split}")
    scenes = [sample_scene(rng.getrandbits(40), split=split) for _ in range(number)]
    asked = [Asked(scene=scene, text=foreign(rng, split), answer=UNANSWERABLE) for scene in scenes]
    starts = range(0, number, _BATCH)
    return share("foreign question is unanswerable", (r for i in starts for r in _right(model, asked[i : i + _BATCH])))


def evaluate(backbone: str, split: Split, pictures: int, names: Sequence[str]) -> str:
    """Returns the report on a model."""
    model = vli.load(backbone)
    kinds = understood(model, split, pictures, names)
    lines = ["| kind | wordings | right | 95 % interval |", "|---|---|---|---|"]
    for kind in kinds:
        found = kind.interval()
        lines.append(
            f"| {kind.kind} | {len(kind.wordings)} | {found.value:.1%} | {found.low:.1%} to {found.high:.1%} |"
        )
    if {kind.kind for kind in kinds} >= {*REQUIRED}:
        mean = together(kinds)
        lines.append(f"| mean of the required | | {mean.value:.1%} | {mean.low:.1%} to {mean.high:.1%} |")
    shares = [*rewriting_shares(model, split), outside_share(model, split, _REWRITINGS)]
    return "\n".join([*lines, "", table(shares)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m pretrain_mini.evaluate_people", description="Measure a model.")
    parser.add_argument("--backbone", default="mini", help="name or folder (default: %(default)s)")
    parser.add_argument("--split", choices=("dev", "test"), default="test", help="part (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=25, help="for each wording (default: %(default)s)")
    parser.add_argument("--families", nargs="*", default=list(families()), help="(default: all)")
    arguments = parser.parse_args()
    print(evaluate(arguments.backbone, arguments.split, arguments.pictures, arguments.families))
