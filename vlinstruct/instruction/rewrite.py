"""Rewrite: the language model alone, without the image, rewrites the instruction (section 3.2; template B.1).

Legend: B rows of the batch. In: B instructions I_i. Out: B drafts I_j.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from dataclasses import replace

from vlinstruct.backend import Backend, Row, Written
from vlinstruct.errors import UsageError
from vlinstruct.instruction.draft import Draft, settle
from vlinstruct.instruction.templates import Templates
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Failed

EMPTY_REWRITING = "the rewriting was empty, so the initial instruction stands in for it"

Rewritings = MutableMapping[tuple[str, int, str], Draft]
"""What has been rewritten already: by the template's text, the most new tokens and the instruction."""


def rewrite(
    backend: Backend,
    instructions: Sequence[str],
    templates: Templates,
    settings: OptimizationSettings,
    known: Rewritings | None = None,
) -> list[Draft | Failed]:
    """Rewrites instructions; equal ones are rewritten once, since a rewriting depends on the text alone.

    Args:
        backend: whose language model rewrites.
        instructions: the initial instructions, B.
        templates: whose `rewrite` is asked.
        settings: the most tokens of a rewriting, and whether its certainty matters.
        known: is looked up first, and gets what is new.

    Returns:
        The rewritten instructions, B; a blank rewriting becomes the initial instruction, with a notice.

    Raises:
        UsageError: certainties are asked for, and the backend does not tell them.
    """
    tells_certainty = backend.abilities.can_tell_nll or backend.abilities.can_score
    if settings.least_certainty and not tells_certainty:
        raise UsageError("least_certainty needs a backend that tells likelihoods. Set it to 0.")
    known = {} if known is None else known
    keys = [(templates.rewrite, settings.max_new_tokens, text) for text in instructions]
    new = [key for key in dict.fromkeys(keys) if key not in known]
    failed: dict[tuple[str, int, str], Failed] = {}
    if new:
        # A rewriting mostly copies the instruction, hence the guess.
        rows = [Row(prompt=templates.rewrite_prompt(text), guess=text, stage="rewrite") for *_, text in new]
        for key, written in zip(new, backend.write(rows, settings.generation()), strict=True):
            if isinstance(written, Failed):
                failed[key] = written
            else:
                draft = settle(written.text, fallback=key[-1], notice=EMPTY_REWRITING)
                known[key] = replace(draft, certainty=_certainty(written))
    if settings.least_certainty:
        failed |= _score_certainties(backend, [key for key in dict.fromkeys(keys) if key in known], templates, known)
    return [failed[key] if key in failed else known[key] for key in keys]


def _certainty(written: Written) -> float | None:
    """Returns the probability of the least likely token, the end token included; None where the backend cannot tell.

    A text that was cut is not sure of its end: 0.
    """
    if written.token_nll is None:
        return None
    return math.exp(-max(written.token_nll, default=math.inf)) if written.is_complete else 0.0


def _score_certainties(
    backend: Backend, keys: Sequence[tuple[str, int, str]], templates: Templates, known: Rewritings
) -> dict[tuple[str, int, str], Failed]:
    """Adds certainties that did not come with the text, by scoring the rewritings once; returns what failed."""
    unsure = [key for key in keys if known[key].certainty is None]
    if not unsure:
        return {}
    failed: dict[tuple[str, int, str], Failed] = {}
    rows = [Row(prompt=templates.rewrite_prompt(text), stage="rewrite") for *_, text in unsure]
    scores = backend.score(rows, [[known[key].text] for key in unsure])
    for key, outcome in zip(unsure, scores, strict=True):
        if isinstance(outcome, Failed):
            failed[key] = outcome
        else:
            known[key] = replace(known[key], certainty=math.exp(-max(outcome[0].token_nll)))
    return failed
