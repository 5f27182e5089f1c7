"""Propose: other instructions than the user's own words, for `tune` to try.

An instruction of data with a question per item is a template: `{question}` stands where an item's question goes. Models
cannot rewrite a template, so they rewrite what it becomes for a few questions, and the question is taken out again.

Legend: In: a text or a template. Out: texts or templates, equal ones as often as they were proposed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from vlinstruct.backend import Backend, Row
from vlinstruct.errors import shortened
from vlinstruct.instruction.rewrite import rewrite
from vlinstruct.instruction.templates import QUESTION_FIELD, Templates, fill
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.text import is_blank
from vlinstruct.values import Failed

# No fifth key of templates.yaml: users' copies of that file have its four, and would lack it.
FAILURES_TEMPLATE = (
    "The instruction {instruction} was given to a model that looks at pictures. These of its answers were wrong: "
    "{failures} Write a better instruction."
)
"""Shows a language model what went wrong, as ProTeGi does (Pryzant et al. 2023); the wording is ours."""
FAILURE_TEMPLATE = "It answered {answer} where {right} is right."

_MAX_FAILURE_CHARACTERS = 80
_TOP_P = 0.95  # samples from the tail are other questions


def filled(template: str, question: str | None) -> str:
    """Puts a question into a template; without a question the template is the instruction itself.

    >>> filled("Look. {question}", "What {question}?"), filled("Look.", None)
    ('Look. What {question}?', 'Look.')
    """
    return template if question is None else template.replace(QUESTION_FIELD, question)


def as_template(text: str, question: str | None) -> str | None:
    """Takes a question out of what a model wrote; None where it is not in there as a whole.

    >>> as_template("What colour is the star?", "star"), as_template("Which stars?", "star")
    ('What colour is the {question}?', None)
    """
    if is_blank(text) or QUESTION_FIELD in text:
        return None
    if question is None:
        return text.strip()
    template, count = re.subn(rf"(?<!\w){re.escape(question)}(?!\w)", lambda _: QUESTION_FIELD, text.strip())
    return template if count else None


def rewritings(backend: Backend, template: str, questions: Sequence[str | None], templates: Templates) -> list[str]:
    """Returns the model's rewritings of an instruction, for each of some questions."""
    texts = [filled(template, question) for question in questions]
    drafts = rewrite(backend, texts, templates, OptimizationSettings(least_certainty=0.0))
    written = [None if isinstance(draft, Failed) else draft.text for draft in drafts]
    return _templates_of(written, questions)


def shortened_rewritings(
    backend: Backend, template: str, questions: Sequence[str | None], templates: Templates, *, seed: int
) -> list[str]:
    """Returns sampled rewritings of parts of an instruction, one for each of some questions, which may repeat.

    Of the whole text a model that is sure of itself writes one rewriting however often it is sampled, a wrong one as
    well; with a few words left out it comes to others (GrIPS, Prasad et al. 2023, deletes phrases to search with).
    """
    prompts = [
        templates.rewrite_prompt(filled(_with_words_left_out(template, random.Random(f"{seed}/{draw}")), question))
        for draw, question in enumerate(questions)
    ]
    return _sampled(backend, prompts, questions, seed=seed)


def _with_words_left_out(template: str, rng: random.Random) -> str:
    """Leaves some neighbouring words out of a template, never its question, and never all words."""
    words = template.split()
    start, stop = sorted(rng.sample(range(len(words) + 1), 2))
    kept = [word for place, word in enumerate(words) if not start <= place < stop or QUESTION_FIELD in word]
    return " ".join(kept) or template


def after_failures(
    backend: Backend,
    template: str,
    failures: Sequence[tuple[str, str]],
    questions: Sequence[str | None],
    *,
    seed: int,
) -> list[str]:
    """Returns what the model writes when it is shown wrong answers, one text for each of some questions.

    Args:
        backend: whose language model writes.
        template: the user's own words.
        failures: pairs of a wrong answer and the right one.
        questions: which the instruction is filled with; they may repeat.
        seed: of the sampling.
    """
    shown = " ".join(
        fill(FAILURE_TEMPLATE, **{name: shortened(text, _MAX_FAILURE_CHARACTERS) for name, text in pair.items()})
        for pair in ({"answer": answer, "right": right} for answer, right in failures)
    )
    prompts = [
        fill(FAILURES_TEMPLATE, instruction=filled(template, question), failures=shown) for question in questions
    ]
    return _sampled(backend, prompts, questions, seed=seed)


def _sampled(backend: Backend, prompts: Sequence[str], questions: Sequence[str | None], *, seed: int) -> list[str]:
    settings = GenerationSettings(
        max_new_tokens=OptimizationSettings().max_new_tokens, do_sample=True, top_p=_TOP_P, seed=seed
    )
    rows = [Row(prompt=prompt, draw=draw, stage="rewrite") for draw, prompt in enumerate(prompts)]
    outcomes = backend.write(rows, settings) if rows else []
    return _templates_of([None if isinstance(row, Failed) else row.text for row in outcomes], questions)


def _templates_of(texts: Sequence[str | None], questions: Sequence[str | None]) -> list[str]:
    found = [
        None if text is None else as_template(text, question) for text, question in zip(texts, questions, strict=True)
    ]
    return [template for template in found if template is not None]
