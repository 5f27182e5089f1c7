"""How InstructBLIP reads a conversation: the spelling that its fine-tuning uses."""

from __future__ import annotations

from collections.abc import Sequence


def prompt_of(turns: Sequence[tuple[str, str]]) -> str:
    """Returns the last question, after the earlier ones with their answers.

    >>> prompt_of([("who?", "Ann")]), prompt_of([("who?", "Ann"), ("why?", "")])
    ('who?', 'Question: who? Answer: Ann Question: why? Answer:')
    """
    *earlier, (question, _) = turns
    if not earlier:
        return question
    spelling = [f"Question: {earlier_question} Answer: {answer}" for earlier_question, answer in earlier]
    return " ".join([*spelling, f"Question: {question} Answer:"])
