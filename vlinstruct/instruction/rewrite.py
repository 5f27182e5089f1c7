"""Rewrite: the language model alone, without the image, rewrites the instruction (section 3.2; template B.1).

Legend: B rows of the batch. In: B instructions I_i. Out: B drafts I_j.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from vlinstruct.config import OptimizationConfig
from vlinstruct.instruction.draft import Draft, settle
from vlinstruct.instruction.protocol import InstructionModel
from vlinstruct.instruction.templates import Templates

EMPTY_REWRITING = "the rewriting was empty, so the initial instruction stands in for it"


Rewritings = MutableMapping[tuple[str, int, str], Draft]
"""What has been rewritten already: by the template's text, the most new tokens and the instruction."""


def rewrite(
    model: InstructionModel,
    instructions: Sequence[str],
    templates: Templates,
    config: OptimizationConfig,
    known: Rewritings | None = None,
) -> list[Draft]:
    """Rewrites instructions; equal ones are rewritten once, since a rewriting depends on the text alone.

    Args:
        model: whose language model rewrites.
        instructions: the initial instructions, B.
        templates: whose `rewrite` is asked.
        config: the most tokens of a rewriting.
        known: is looked up first, and gets what is new.

    Returns:
        The rewritten instructions, B; a blank rewriting becomes the initial instruction, with a notice.
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
    return [known[key] for key in keys]
