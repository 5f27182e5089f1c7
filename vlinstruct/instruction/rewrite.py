"""Rewrite: the language model alone, without the image, rewrites the instruction (section 3.2; template B.1).

A rewriting depends on the text alone, so it is made once for all images that are asked the same, and remembered.

Legend: B rows of the batch. In: B instructions I_i. Out: B drafts I_j.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace

from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.errors import NON_FINITE_LOGITS, UsageError
from vlinstruct.instruction.templates import Templates
from vlinstruct.settings import OptimizationSettings
from vlinstruct.text import is_blank
from vlinstruct.values import Failed, least_probability

EMPTY_REWRITING = "the rewriting was empty: the initial instruction is used instead"
BROKEN_REWRITING = "the rewriting could not be computed (numbers overflowed): the initial instruction is used instead"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An instruction written by the model.

    Args:
        text: the instruction without white space around it; never blank.
        notice: what a user should know about it, one sentence; None when all went well.
        certainty: the probability of its least likely token when it was written; None where it was not
            needed.
    """

    text: str
    notice: str | None = None
    certainty: float | None = None


Key = tuple[str, int, str]
Rewritings = MutableMapping[Key, Draft]
"""What has been rewritten already: by the template's text, the most new tokens and the instruction."""


def rewrite(
    backend: Backend,
    instructions: Sequence[str],
    templates: Templates,
    settings: OptimizationSettings,
    least_certainty: float = 0.0,
    rewritings: Rewritings | None = None,
) -> list[Draft | Failed]:
    """Rewrites instructions; equal ones are rewritten once.

    Args:
        backend: whose language model rewrites.
        instructions: the initial instructions, B.
        templates: whose `rewrite` makes the prompt.
        settings: the most tokens of a rewriting.
        least_certainty: that a rewriting must have; where it is 0, a certainty that does not come with the text is not
            asked for.
        rewritings: those of earlier calls; gets what is new.

    Returns:
        The rewritten instructions, B; a blank rewriting becomes the initial instruction, with a notice.

    Raises:
        UsageError: `least_certainty` is above 0 and the backend does not tell likelihoods.
    """
    require_certainty(backend, least_certainty)
    rewritings = {} if rewritings is None else rewritings
    keys = [(templates.rewrite, settings.max_new_tokens, text) for text in instructions]
    new = [key for key in dict.fromkeys(keys) if key not in rewritings]
    failed: dict[Key, Failed] = {}
    if new:
        # A rewriting mostly copies the instruction, so the instruction is the guess that speeds decoding.
        rows = [Row(prompt=templates.rewrite_prompt(text), guess=text, stage="rewrite") for *_, text in new]
        for key, written in zip(new, backend.write(rows, settings.generation()), strict=True):
            if isinstance(written, Failed) and written.error.code == NON_FINITE_LOGITS:
                # Numbers overflowed over this prompt; asked as typed, the model may well answer.
                rewritings[key] = Draft(text=key[-1], notice=BROKEN_REWRITING, certainty=0.0)
            elif isinstance(written, Failed):
                failed[key] = written
            else:
                draft = settle(written.text, fallback=key[-1], notice=EMPTY_REWRITING)
                rewritings[key] = replace(draft, certainty=certainty_of(written))
    if least_certainty:
        # Also of those remembered: an earlier call may not have needed their certainty.
        unsure = [key for key in dict.fromkeys(keys) if key in rewritings and rewritings[key].certainty is None]
        failed |= _score_certainties(backend, unsure, templates, rewritings)
    return [failed[key] if key in failed else rewritings[key] for key in keys]


def require_certainty(backend: Backend, least_certainty: float) -> None:
    """Refuses to compare certainties that a backend does not tell.

    Raises:
        UsageError: `least_certainty` is above 0 and the backend does not tell likelihoods.
    """
    # Either way gives the same number: the likelihoods come with the text, or the text is scored afterwards.
    if least_certainty and not (backend.abilities.can_tell_nll or backend.abilities.can_score):
        raise UsageError("least_certainty needs a backend that tells likelihoods", advice="Set it to 0.")


def certainty_of(written: Written) -> float | None:
    """Returns the probability of the least likely token, the end token included; None where the backend cannot tell.

    The least likely token and not the mean: a rewriting that changes the question goes wrong at one word, and the rest
    of it is as likely as ever. A text that was cut is not sure of its end: 0.
    """
    if written.token_nll is None:
        return None
    return least_probability(written.token_nll) if written.is_complete else 0.0


def sample_rewritings(
    backend: Backend,
    pictures: Sequence[tuple[Seen, ...]],
    instructions: Sequence[str],
    templates: Templates,
    settings: OptimizationSettings,
) -> list[tuple[str, ...]]:
    """Returns the sampled rewritings of each instruction, `num_rewritings` less the greedy one; what fails is left out.

    Without pictures, equal instructions get equal samples: which sample a row is stands in its `draw`, and so in the
    seed. With them (after RepARe, Prasad et al. 2024) each picture has its own.

    Args:
        backend: whose language model rewrites.
        pictures: the image that is before the model, or none, B.
        instructions: the initial instructions, B.
        templates: whose `rewrite` makes the prompt, or, with an image, `rewrite_seeing`.
        settings: how many, and the most tokens of each.
    """
    draws = range(settings.num_rewritings - 1)
    asked = list(zip(pictures, instructions, strict=True))
    # Of equal instructions without a picture the first one's samples are all of theirs.
    first = {text: row for row, (seen, text) in reversed(list(enumerate(asked))) if not seen}
    rows_of = [first[text] if not seen else row for row, (seen, text) in enumerate(asked)]
    new = list(dict.fromkeys(rows_of)) if draws else []
    rows = []
    for seen, text in (asked[row] for row in new):
        prompt = templates.rewrite_seeing_prompt(text) if seen else templates.rewrite_prompt(text)
        rows += [
            Row(prompt=prompt, seen=seen, reads=text if seen else "", draw=draw, stage="rewrite") for draw in draws
        ]
    written = iter(backend.write(rows, replace(settings.generation(), do_sample=True)) if rows else [])
    sampled = {
        row: tuple(
            outcome.text.strip()
            for _ in draws
            if not isinstance(outcome := next(written), Failed) and not is_blank(outcome.text)
        )
        for row in new
    }
    return [sampled.get(row, ()) for row in rows_of]


def _score_certainties(
    backend: Backend, keys: Sequence[Key], templates: Templates, rewritings: Rewritings
) -> dict[Key, Failed]:
    """Adds certainties that did not come with the text, by scoring the rewritings once; returns what failed."""
    if not keys:
        return {}
    failed: dict[Key, Failed] = {}
    rows = [Row(prompt=templates.rewrite_prompt(text), stage="rewrite") for *_, text in keys]
    scores = backend.score(rows, [[rewritings[key].text] for key in keys])
    for key, outcome in zip(keys, scores, strict=True):
        if isinstance(outcome, Failed):
            failed[key] = outcome
        else:
            rewritings[key] = replace(rewritings[key], certainty=least_probability(outcome[0].token_nll))
    return failed


def settle(output: str, *, fallback: str, notice: str) -> Draft:
    """Turns the model's output into an instruction, whatever the model wrote.

    Args:
        output: the generated text.
        fallback: the instruction that is used if the output is blank.
        notice: says so.

    Returns:
        The draft; it carries the notice only if the fallback is used.

    >>> settle(" What is it? ", fallback="what", notice="nothing came").text
    'What is it?'
    >>> settle(" ", fallback="what", notice="nothing came").notice
    'nothing came'
    """
    return Draft(text=fallback, notice=notice) if is_blank(output) else Draft(text=output.strip())
