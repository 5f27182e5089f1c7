"""What every arm of a comparison does: the same instruction, and the same tokens written in answer.

Random weights write noise and trained ones stop early, so the written tokens are laid down: every arm computes its
logits as ever, and then writes the workload's next token in place of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

INSTRUCTION = "Tell me what is the number of all the objects in the picture, if there are some."
REWRITTEN = "What is the number of the objects that you can see in the picture, if there are some?"
OPTIMIZED = "Count the objects in the picture and say what the number of them is, one number as answer."
ANSWER = "the picture shows a red star on the left and a blue ring in the middle of it"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One question about one picture, or the same about several.

    Args:
        answer_tokens: how long the answer is; it never ends before.
        batch: how many pictures are asked about at once.
        acceptance: share of the tokens of instructions that drafts give, 0 to 1 (`drafts.py`).
    """

    answer_tokens: int = 2
    batch: int = 1
    acceptance: float = 1.0
