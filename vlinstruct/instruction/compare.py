"""Compare: the model reads the ranked instructions with the image and writes the optimized one (section 3.2, figure).

One round over two instructions, as in the paper: more rounds made its results worse (table 5).

Legend: B rows of the batch. In: B images with their scored instructions. Out: B drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlinstruct.backend import Backend, Row, Seen, Written, check_rows
from vlinstruct.errors import NON_FINITE_LOGITS
from vlinstruct.instruction.rewrite import Draft, certainty_of, settle
from vlinstruct.instruction.score import best, is_finite, rank
from vlinstruct.instruction.templates import Templates
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Failed, ScoredInstruction

BROKEN_COMPARISON = (
    "the comparison could not be computed (numbers overflowed): the better of the compared instructions is used instead"
)
EMPTY_COMPARISON = "the comparison returned nothing: the better of the compared instructions is used instead"


def compare(
    backend: Backend,
    seen: Sequence[Seen],
    candidates: Sequence[Sequence[ScoredInstruction]],
    templates: Templates,
    settings: OptimizationSettings,
) -> list[Draft | Failed]:
    """Lets the model write an optimized instruction after an in-context comparison; the Q-Former reads the initial one.

    Args:
        backend: reads the comparison and the image.
        seen: the images, B.
        candidates: the scored instructions of each image, the initial one first, in any order of IAS. One whose IAS is
            not finite is left out of the comparison.
        templates: whose `compare` and `compare_item` make the prompt.
        settings: the most tokens of an optimized instruction.

    Returns:
        The optimized instructions, B; a blank one becomes the best candidate, with a notice.

    Raises:
        ScoreError: an image has no candidate with a finite IAS.
    """
    check_rows(candidates, seen)
    if not candidates:
        return []
    # The comparison mostly copies the winner, so the winner is the guess that speeds decoding.
    fallbacks = [best(row).text for row in candidates]
    # A NaN would stand in the prompt as a score, so what has none is left out; the notices of `optimize` say so.
    rows = [
        Row(
            prompt=templates.compare_prompt(rank([candidate for candidate in row if is_finite(candidate)])),
            seen=(picture,),
            reads=row[0].text,
            guess=fallback,
            stage="compare",
        )
        for picture, row, fallback in zip(seen, candidates, fallbacks, strict=True)
    ]
    return [
        _settled(written, fallback)
        for written, fallback in zip(backend.write(rows, settings.generation()), fallbacks, strict=True)
    ]


def _settled(written: Written | Failed, fallback: str) -> Draft | Failed:
    if not isinstance(written, Failed):
        draft = settle(written.text, fallback=fallback, notice=EMPTY_COMPARISON)
        return replace(draft, certainty=certainty_of(written))
    # Numbers overflowed over the longest prompt of all: the candidates themselves have been scored.
    is_broken = written.error.code == NON_FINITE_LOGITS
    return Draft(text=fallback, notice=BROKEN_COMPARISON) if is_broken else written
