"""Score: how well an instruction fits the image, the Instruction Alignment Score (section 3.2, eq. 3; template B.2).

Legend: B rows of the batch, K instructions of one image. In: images and instructions. Out: instructions with their IAS.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlinstruct.errors import UsageError
from vlinstruct.instruction.protocol import InstructionModel
from vlinstruct.instruction.templates import Templates
from vlinstruct.values import Percept, ScoredInstruction


def score(
    model: InstructionModel, percept: Percept, instructions: Sequence[str], templates: Templates
) -> list[ScoredInstruction]:
    """Scores one instruction per image: mean of -log P(t_i | image, prompt, t_<i) over its tokens, in nats (eq. 3).

    The instruction is the target, end token included, and also what the Q-Former reads; the prompt is the same for all.

    Args:
        model: the judge.
        percept: the images, B.
        instructions: one per image, B.
        templates: whose `score` is the prompt.

    Returns:
        The scored instructions, B, from one batch; lower is better. An IAS is NaN where a token's score is not finite.

    Raises:
        UsageError: the numbers of images and instructions differ.
    """
    check_rows(percept, instructions)
    if not instructions:
        return []
    prompts = [templates.score_prompt()] * len(instructions)
    scores = model.token_nll(percept, prompts, instructions, instructions)
    return [
        ScoredInstruction(text=text, ias=one.mean_nll, scores=one)
        for text, one in zip(instructions, scores, strict=True)
    ]


def score_per_image(
    model: InstructionModel, percept: Percept, instructions: Sequence[Sequence[str]], templates: Templates
) -> list[list[ScoredInstruction]]:
    """Scores several instructions per image, all in one batch; equal instructions of an image are scored once.

    Args:
        model: the judge.
        percept: the images, B.
        instructions: K instructions per image, B lists; K may differ.
        templates: whose `score` is the prompt.

    Returns:
        The scored instructions of each image in the order given, B lists of K.

    Raises:
        UsageError: the number of images and of lists differ.
    """
    check_rows(percept, instructions)
    pairs = [(row, text) for row, texts in enumerate(instructions) for text in dict.fromkeys(texts)]
    scored = score(model, percept.select([row for row, _ in pairs]), [text for _, text in pairs], templates)
    by_pair = dict(zip(pairs, scored, strict=True))
    return [[by_pair[row, text] for text in texts] for row, texts in enumerate(instructions)]


def check_rows(percept: Percept, rows: Sequence[object]) -> None:
    """Refuses a batch whose images and instructions do not go together."""
    if len(percept) != len(rows):
        raise UsageError(f"one row of instructions per image is expected, got {len(rows)} for {len(percept)} images")
