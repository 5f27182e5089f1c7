"""Which instructions take part: the user's own words, the user's others, and what the model proposes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vlinstruct.instruction.propose import after_failures, as_template, filled, rewritings, shortened_rewritings
from vlinstruct.instruction.race import OWN
from vlinstruct.operations import Fields
from vlinstruct.settings import OptimizationSettings
from vlinstruct.tuning.answers import SCHEMA, Answers
from vlinstruct.values import Failed

CANDIDATES = "candidates"
"""The id of the record of all candidates."""

MAX_PROPOSED = 24
"""How many instructions a model may propose: more would cost more answers than a few dozen items can tell apart."""

# How many texts each way of proposing may write; most are equal.
_NUM_QUESTIONS, _NUM_SHORTENED, _NUM_PICTURES, _NUM_AFTER_FAILURES, _MAX_SHOWN_FAILURES = 4, 24, 8, 4, 4


def propose(instruction: str, run: Answers, search: Sequence[int], budget: int | None) -> Fields:
    """Returns the record of all candidates, the user's own words first; an earlier run's where there is one.

    Args:
        instruction: the user's own words.
        run: knows by now the answers to the user's own words on the search part.
        search: all that a proposal may rest on.
        budget: the most texts that the model may write for it; None for as many as it takes.
    """
    if CANDIDATES in run.journal.done:
        return run.journal.done[CANDIDATES]
    began = len(run.spent)

    def affordable(wanted: int, writes_each: int = 1) -> int:
        left = wanted if budget is None else (budget - len(run.spent) + began) // writes_each
        return max(0, min(wanted, left))

    model, seed, abilities = run.model, run.tuning.seed, run.model.backend.abilities
    places = [place for place in search if place not in run.unreadable]
    wrong = [place for place in places if (record := run.record(OWN, place)) is None or record["score"] < 1]
    # Pictures of which the user's own words ask wrongly come first: theirs are the instructions that may help.
    ordered = [*wrong, *(place for place in places if place not in wrong)]
    # In an order that no label has touched: what is proposed most often is the favourite, which all items may judge.
    questions = list(dict.fromkeys(run.items[place].question for place in places))
    proposed: list[tuple[str, str]] = [(text, "yours") for text in run.tuning.tries]
    if abilities.can_write_alone:
        asked = questions[: affordable(_NUM_QUESTIONS)]
        proposed += _named("rewritten", rewritings(model.backend, instruction, asked, model.templates))
        asked = _repeated(questions, affordable(_NUM_SHORTENED))
        shortened = shortened_rewritings(model.backend, instruction, asked, model.templates, seed=seed)
        proposed += _named("shortened", shortened)
    favourite = _favourite([text for text, _ in proposed if text != instruction], run.tuning.tries)
    if abilities.can_write_alone:
        answers = [(run.record(OWN, place), run.items[place].answers[0]) for place in wrong]
        failures = [(record["answer"], right) for record, right in answers if record is not None]
        if failures:
            asked = _repeated(questions, affordable(_NUM_AFTER_FAILURES))
            shown = failures[:_MAX_SHOWN_FAILURES]
            proposed += _named("failures", after_failures(model.backend, instruction, shown, asked, seed=seed))
    if abilities.can_score and abilities.can_write_alone:
        proposed += _named("picture", _per_picture(instruction, run, ordered[: affordable(_NUM_PICTURES, 2)]))
    counts = Counter(text for text, _ in proposed)
    sources: dict[str, str] = {}
    for text, source in proposed:
        sources.setdefault(text, source)
    sources.pop(instruction, None)
    # The favourite, the user's own list, the more popular ones: what a budget has no room for is left out at the end.
    ranked = sorted(sources, key=lambda text: (text != favourite, sources[text] != "yours", -counts[text]))
    kept = ranked[: len(run.tuning.tries) + MAX_PROPOSED]
    spent = run.spent[began:]
    made: Fields = {
        "schema": SCHEMA,
        "id": CANDIDATES,
        "status": "ok",
        "candidates": [
            {"text": instruction, "source": "own"},
            *({"text": text, "source": sources[text], "num_proposed": counts[text]} for text in kept),
        ],
        "has_favourite": favourite is not None,
        "calls": len(spent),
        "tokens": sum(spent),
    }
    run.journal.write(made)
    return made


def _favourite(proposed: Sequence[str], tries: Sequence[str]) -> str | None:
    """Returns the user's first other instruction, else what the model proposed most often, without a label."""
    if tries and tries[0] in proposed:
        return tries[0]
    return Counter(proposed).most_common(1)[0][0] if proposed else None


def _per_picture(instruction: str, run: Answers, places: Sequence[int]) -> list[str]:
    """Returns the instructions that algorithm 2 writes for single pictures."""
    seen = {place: picture for place in places if (picture := run.see(place)) is not None}
    questions = [run.items[place].question for place in seen]
    outcomes = run.model.optimize_each(
        list(seen.values()),
        [filled(instruction, question) for question in questions],
        # No rule has to choose: labels do. The paper's asks for no answers, two texts are written for each picture.
        optimization=OptimizationSettings(select="paper", least_certainty=0.0),
    )
    found: list[str | None] = []
    for outcome, question in zip(outcomes, questions, strict=True):
        if not isinstance(outcome, Failed):
            _, *texts = dict.fromkeys(candidate.text for candidate in outcome.by_role().values())
            found += [as_template(text, question) for text in texts]
    return [template for template in found if template is not None]


def _named(source: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(text, source) for text in texts]


def _repeated(questions: Sequence[str | None], count: int) -> list[str | None]:
    return [questions[index % len(questions)] for index in range(count)] if questions else []
