"""Rewrite: the language model alone, without the image, rewrites the instruction (section 3.2; template B.1).

Legend: B rows of the batch. In: B instructions I_i. Out: B drafts I_j.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from typing import cast

from vlinstruct.errors import UsageError
from vlinstruct.instruction.draft import Draft, settle
from vlinstruct.instruction.protocol import CertaintyModel, InstructionModel
from vlinstruct.instruction.templates import Templates
from vlinstruct.settings import OptimizationSettings

EMPTY_REWRITING = "the rewriting was empty, so the initial instruction stands in for it"


Rewritings = MutableMapping[tuple[str, int, str], Draft]
"""What has been rewritten already: by the template's text, the most new tokens and the instruction."""


def rewrite(
    model: InstructionModel,
    instructions: Sequence[str],
    templates: Templates,
    config: OptimizationSettings,
    known: Rewritings | None = None,
) -> list[Draft]:
    """Rewrites instructions; equal ones are rewritten once, since a rewriting depends on the text alone.

    Args:
        model: whose language model rewrites.
        instructions: the initial instructions, B.
        templates: whose `rewrite` is asked.
        config: the most tokens of a rewriting, and whether its certainty matters.
        known: is looked up first, and gets what is new.

    Returns:
        The rewritten instructions, B; a blank rewriting becomes the initial instruction, with a notice.

    Raises:
        UsageError: certainties are asked for, and the model does not tell them.
    """
    known = {} if known is None else known
    keys = [(templates.rewrite, config.max_new_tokens, text) for text in instructions]
    new = [key[-1] for key in dict.fromkeys(keys) if key not in known]
    if new:
        prompts = [templates.rewrite_prompt(text) for text in new]
        outputs = model.generate_text(prompts, config.drafted(new))
        for text, output in zip(new, outputs, strict=True):
            draft = settle(output, fallback=text, notice=EMPTY_REWRITING)
            known[templates.rewrite, config.max_new_tokens, text] = draft
    if config.least_certainty:
        _add_certainties(model, [key for key in dict.fromkeys(keys) if known[key].certainty is None], templates, known)
    return [known[key] for key in keys]


def _add_certainties(
    model: InstructionModel, keys: Sequence[tuple[str, int, str]], templates: Templates, known: Rewritings
) -> None:
    """Adds how sure the language model was of each rewriting: the probability of its least likely token."""
    if not hasattr(model, "text_nll"):
        raise UsageError("least_certainty needs a model with text_nll (CertaintyModel)", advice="Set it to 0.")
    prompts = [templates.rewrite_prompt(text) for _, _, text in keys]
    scores = cast(CertaintyModel, model).text_nll(prompts, [known[key].text for key in keys]) if keys else []
    for key, one in zip(keys, scores, strict=True):
        known[key] = replace(known[key], certainty=math.exp(-max(one.token_nll)))
