"""Score and rank: how well instructions fit the image (IAS, eq. 3; template B.2), and their order (algorithm 2).

The language model reads the same prompt for every instruction; what differs is the target and what the Q-Former reads
(as in the authors' code, section 3.2). So only the instruction's likelihood given the image decides, not its place in a
prompt.

Legend: B rows of the batch, K instructions of one image. In: images and instructions. Out: instructions with their IAS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlinstruct.backend import Backend, Row, Seen, Stage, check_rows
from vlinstruct.errors import ScoreError, UsageError
from vlinstruct.instruction.templates import Templates
from vlinstruct.values import Failed, ScoredInstruction


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
    require_scores(backend, "an IAS")
    # The model often rewrites nothing: an instruction that equals another of its row is one row of the batch, not two.
    pairs = [(row, text) for row, texts in enumerate(instructions) for text in dict.fromkeys(texts)]
    if not pairs:
        return [[] for _ in instructions]
    prompt = templates.score_prompt()
    rows = [Row(prompt=prompt, seen=(seen[row],), reads=text, stage=stage) for row, text in pairs]
    scores = backend.score(rows, [[text] for _, text in pairs])
    by_pair = {
        (row, text): outcome
        if isinstance(outcome, Failed)
        else ScoredInstruction(text=text, ias=outcome[0].mean_nll, scores=outcome[0])
        for (row, text), outcome in zip(pairs, scores, strict=True)
    }
    scored: list[list[ScoredInstruction] | Failed] = []
    for row, texts in enumerate(instructions):
        outcomes = [by_pair[row, text] for text in texts]
        failed = next((outcome for outcome in outcomes if isinstance(outcome, Failed)), None)
        scored.append(failed or [outcome for outcome in outcomes if not isinstance(outcome, Failed)])
    return scored


def require_scores(backend: Backend, what: str) -> None:
    """Refuses what only likelihoods of given texts can tell.

    Raises:
        UsageError: the backend does not tell them.
    """
    if not backend.abilities.can_score:
        why = "this server scores no given text"
        raise UsageError(f"{what} needs likelihoods, and {why}", advice="Use vLLM, or a model that runs here.")


def is_finite(scored: ScoredInstruction) -> bool:
    """Says whether the instruction's IAS is a number that can be compared."""
    return math.isfinite(scored.ias)


def rank(candidates: Sequence[ScoredInstruction]) -> list[ScoredInstruction]:
    """Orders candidates from worst to best: the better one stands last, next to where the model writes.

    Args:
        candidates: scored instructions, the initial one first.

    Returns:
        Descending IAS; ties keep the order given, and an IAS that is not finite is the worst of all.

    >>> from vlinstruct.values import TokenScores
    >>> scores = TokenScores(tokens=(), token_nll=())
    >>> def scored(text, ias): return ScoredInstruction(text=text, ias=ias, scores=scores)
    >>> [candidate.text for candidate in rank([scored("good", 1.0), scored("bad", 2.0), scored("broken", math.nan)])]
    ['broken', 'bad', 'good']
    """
    return sorted(candidates, key=lambda candidate: -candidate.ias if is_finite(candidate) else -math.inf)


def best(candidates: Sequence[ScoredInstruction]) -> ScoredInstruction:
    """Returns the candidate of the lowest finite IAS, the first of equals.

    Raises:
        ScoreError: no IAS is finite.
    """
    finite = [candidate for candidate in candidates if is_finite(candidate)]
    if not finite:
        raise no_finite_ias()
    return min(finite, key=lambda candidate: candidate.ias)


def no_finite_ias() -> ScoreError:
    """Returns the error of a row of whose instructions none can be compared."""
    return ScoreError(
        "the model gives no usable instruction a finite IAS, so the initial one stays as it is: "
        "check the image, or compute in float32"
    )
