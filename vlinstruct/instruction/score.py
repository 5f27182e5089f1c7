"""Score: how well an instruction fits the image, the Instruction Alignment Score (section 3.2, eq. 3; template B.2).

Legend: B rows of the batch, K instructions of one image. In: images and instructions. Out: instructions with their IAS.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlinstruct.backend import Backend, Row, Seen, Stage, check_rows
from vlinstruct.instruction.templates import Templates
from vlinstruct.values import Failed, ScoredInstruction, TokenScores


def score(
    backend: Backend,
    seen: Sequence[Seen],
    instructions: Sequence[Sequence[str]],
    templates: Templates,
    *,
    stage: Stage = "score",
) -> list[list[ScoredInstruction] | Failed]:
    """Scores K instructions per image: mean of -log P(t_i | image, prompt, t_<i) over its tokens, in nats (eq. 3).

    The instruction is the target, end token included, and also what the Q-Former reads; the prompt is the same for all.
    All of them are one call; equal instructions of an image are scored once.

    Args:
        backend: the judge.
        seen: the images, B.
        instructions: K instructions per image, B sequences; K may differ.
        templates: whose `score` is the prompt.
        stage: what the scores are for.

    Returns:
        The scored instructions of each image in the order given, lower is better. An IAS is NaN where a token's score
        is not finite.

    Raises:
        UsageError: the number of images and of sequences differ.
    """
    check_rows(instructions, seen)
    pairs = [(row, text) for row, texts in enumerate(instructions) for text in dict.fromkeys(texts)]
    if not pairs:
        return [[] for _ in instructions]
    prompt = templates.score_prompt()
    rows = [Row(prompt=prompt, seen=(seen[row],), reads=text, stage=stage) for row, text in pairs]
    scores = backend.score(rows, [[text] for _, text in pairs])
    by_pair = {
        (row, text): outcome if isinstance(outcome, Failed) else _scored(text, outcome[0])
        for (row, text), outcome in zip(pairs, scores, strict=True)
    }
    scored: list[list[ScoredInstruction] | Failed] = []
    for row, texts in enumerate(instructions):
        outcomes = [by_pair[row, text] for text in texts]
        failed = next((outcome for outcome in outcomes if isinstance(outcome, Failed)), None)
        scored.append(failed or [outcome for outcome in outcomes if not isinstance(outcome, Failed)])
    return scored


def _scored(text: str, scores: TokenScores) -> ScoredInstruction:
    return ScoredInstruction(text=text, ias=scores.mean_nll, scores=scores)
