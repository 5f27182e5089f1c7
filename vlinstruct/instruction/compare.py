"""Compare: the model reads the ranked instructions with the image and writes the optimized one (section 3.2, figure).

Legend: B rows of the batch. In: B images with their scored instructions. Out: B drafts.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlinstruct.instruction.draft import Draft, settle
from vlinstruct.instruction.protocol import InstructionModel
from vlinstruct.instruction.rank import best, is_finite, rank
from vlinstruct.instruction.score import check_rows
from vlinstruct.instruction.templates import Templates
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Percept, ScoredInstruction

EMPTY_COMPARISON = "the comparison brought forth nothing, so the better of the compared instructions stands in for it"


def compare(
    model: InstructionModel,
    percept: Percept,
    candidates: Sequence[Sequence[ScoredInstruction]],
    templates: Templates,
    config: OptimizationSettings,
) -> list[Draft]:
    """Lets the model write an optimized instruction after an in-context comparison; the Q-Former reads the initial one.

    Args:
        model: reads the comparison and the image.
        percept: the images, B.
        candidates: the scored instructions of each image, the initial one first, in any order of IAS. One whose IAS is
            not finite is left out of the comparison.
        templates: whose `compare` and `compare_item` make the prompt.
        config: the most tokens of an optimized instruction.

    Returns:
        The optimized instructions, B; a blank one becomes the best candidate, with a notice.

    Raises:
        ScoreError: an image has no candidate with a finite IAS.
    """
    check_rows(percept, candidates)
    if not candidates:
        return []
    fallbacks = [best(row).text for row in candidates]
    prompts = [templates.compare_prompt(rank([one for one in row if is_finite(one)])) for row in candidates]
    outputs = model.generate(percept, prompts, [row[0].text for row in candidates], config.drafted(fallbacks))
    return [
        settle(output, fallback=fallback, notice=EMPTY_COMPARISON)
        for output, fallback in zip(outputs, fallbacks, strict=True)
    ]
