"""Answer: what the model says to an instruction about a picture, written or ranked.

Legend: B rows of the batch. In: B images with one instruction each. Out: B answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlinstruct.backend import Backend, Row, Seen, Stage
from vlinstruct.errors import ScoreError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Answer, Choice, Failed, TokenScores


def answer(
    backend: Backend,
    seen: Sequence[Seen],
    instructions: Sequence[str],
    generation: GenerationSettings,
    *,
    choices: Sequence[Sequence[str]] | None = None,
    stage: Stage = "answer",
) -> list[Answer | Failed]:
    """Answers one instruction per image.

    Args:
        backend: answers.
        seen: the images, B.
        instructions: sent verbatim, B.
        generation: how the answers are generated.
        choices: per row the answers to rank instead of generating one; None generates.
        stage: what the answers are for.

    Returns:
        One answer per row, or why the row failed.
    """
    if not instructions:
        return []
    # A Q-Former reads the question too (InstructBLIP): what it takes of the picture depends on what is asked.
    rows = [
        Row(prompt=text, seen=(picture,), reads=text, stage=stage)
        for picture, text in zip(seen, instructions, strict=True)
    ]
    if choices is not None:
        scores = backend.score(rows, choices)
        return [_ranked(*row) for row in zip(choices, scores, instructions, strict=True)]
    return [
        written
        if isinstance(written, Failed)
        else Answer(text=written.text, instruction=row.prompt, token_nll=written.token_nll)
        for row, written in zip(rows, backend.write(rows, generation), strict=True)
    ]


def _ranked(choices: Sequence[str], scores: Sequence[TokenScores] | Failed, instruction: str) -> Answer | Failed:
    """Turns likelihoods into probabilities: a softmax over the choices of the mean log-likelihood per token.

    The mean and not the sum, which would favour short choices: a sum falls with every token.
    """
    if isinstance(scores, Failed):
        return scores
    likelihoods = [-score.mean_nll for score in scores]
    if not all(math.isfinite(value) for value in likelihoods):
        return Failed(error=no_finite_score())
    weights = [math.exp(value - max(likelihoods)) for value in likelihoods]
    ranked = tuple(
        Choice(text=text, probability=weight / math.fsum(weights), nll=-value)
        for text, weight, value in zip(choices, weights, likelihoods, strict=True)
    )
    best = max(ranked, key=lambda choice: choice.probability)
    return Answer(text=best.text, instruction=instruction, choices=ranked)


def no_finite_score() -> ScoreError:
    """Returns the error of a row of whose texts none can be compared."""
    return ScoreError("the model gave no finite score", advice="Its weights are damaged or --dtype is too narrow.")
