"""Rewrite: the language model alone, without the image, rewrites the instruction (section 3.2; template B.1).

Legend: B rows of the batch. In: B instructions I_i. Out: B drafts I_j.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlinstruct.config import OptimizationConfig
from vlinstruct.instruction.draft import Draft, settle
from vlinstruct.instruction.protocol import InstructionModel
from vlinstruct.instruction.templates import Templates

EMPTY_REWRITING = "the rewriting was empty, so the initial instruction stands in for it"


def rewrite(
    model: InstructionModel, instructions: Sequence[str], templates: Templates, config: OptimizationConfig
) -> list[Draft]:
    """Rewrites instructions; equal ones are rewritten once, since a rewriting depends on the text alone.

    Args:
        model: whose language model rewrites.
        instructions: the initial instructions, B.
        templates: whose `rewrite` is asked.
        config: the most tokens of a rewriting.

    Returns:
        The rewritten instructions, B; a blank rewriting becomes the initial instruction, with a notice.
    """
    unique = list(dict.fromkeys(instructions))
    if not unique:
        return []
    outputs = model.generate_text([templates.rewrite_prompt(text) for text in unique], config.generation(unique))
    drafts = {
        text: settle(output, fallback=text, notice=EMPTY_REWRITING)
        for text, output in zip(unique, outputs, strict=True)
    }
    return [drafts[text] for text in instructions]
