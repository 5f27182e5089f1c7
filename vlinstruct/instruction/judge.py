"""Judge: what the answers to the candidates tell of them; an instruction's own likelihood tells its fluency alone.

An IAS prefers fluent instructions whatever they ask: of rewritings into another question that hurt, it takes 95 of 100.
But an answer to another question is implausible as an answer to the user's own: "red" to "is the circle red?". So every
candidate is answered, and its answer is scored as the continuation of the initial instruction (the cross check).

Only first tokens are looked at (`values.NUM_JUDGED_TOKENS`), without the end token: two captions that begin alike and
differ in their twentieth token answer the same question.

Legend: B rows of the batch, K candidates of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from vlinstruct.backend import Backend, Row, Seen
from vlinstruct.instruction.answer import answer
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import NUM_JUDGED_TOKENS, Answer, Failed, Judgement


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How instructions are answered: once for judging them, and, where that is the same, for good.

    Args:
        generation: how the answers that a user gets are generated.
        choices: per row the answers to rank instead, B; None generates.
        wraps: per row what puts an instruction into what is sent, B; None sends it as it is.
    """

    generation: GenerationSettings = GenerationSettings()
    choices: Sequence[Sequence[str]] | None = None
    wraps: Sequence[Callable[[str], str]] | None = None

    @property
    def is_final(self) -> bool:
        """Whether the answer that is judged is the one that a user gets."""
        return self.choices is not None or self.judged_generation == self.generation

    @property
    def judged_generation(self) -> GenerationSettings:
        """How answers are generated to be judged: greedily; a few tokens where they are not the user's anyway."""
        is_greedy = self.generation.num_beams == 1 and not self.generation.do_sample
        if is_greedy and self.generation.repetition_penalty == 1:
            return self.generation
        return GenerationSettings(max_new_tokens=min(NUM_JUDGED_TOKENS, self.generation.max_new_tokens))

    def rows(self, places: Sequence[int]) -> Answering:
        """Returns the same for some of the rows."""
        return replace(
            self,
            choices=None if self.choices is None else [self.choices[place] for place in places],
            wraps=None if self.wraps is None else [self.wraps[place] for place in places],
        )


def answers_to_judge(
    backend: Backend, seen: Sequence[Seen], instructions: Sequence[str], answering: Answering
) -> list[Answer | Failed]:
    """Answers one instruction per image, B, with likelihoods wherever the backend can tell them.

    Returns:
        Answers, whose `instruction` is what was sent.
    """
    texts = wrapped(instructions, answering)
    answers = answer(backend, seen, texts, answering.judged_generation, choices=answering.choices, stage="judge")
    # A backend that does not tell the likelihoods of what it wrote may still score it.
    unknown = [
        row
        for row, given in enumerate(answers)
        if isinstance(given, Answer) and not given.choices and given.token_nll is None
    ]
    if unknown and backend.abilities.can_score:
        rows = [Row(prompt=texts[row], seen=(seen[row],), reads=texts[row], stage="judge") for row in unknown]
        targets = [[given.text] for row in unknown if isinstance(given := answers[row], Answer)]
        for row, outcome in zip(unknown, backend.score(rows, targets), strict=True):
            given = answers[row]
            assert isinstance(given, Answer)
            answers[row] = outcome if isinstance(outcome, Failed) else replace(given, token_nll=outcome[0].token_nll)
    return answers


def judge(
    backend: Backend,
    seen: Sequence[Seen],
    initial_answers: Sequence[Answer],
    candidates: Sequence[Sequence[str]],
    answering: Answering,
) -> list[list[Judgement | Failed]]:
    """Answers the candidates, and scores their answers as answers to the initial instruction.

    All answers are one call of the backend, all cross checks another: a row of it reads its picture and instruction
    once for all of its answers.

    Args:
        backend: answers and scores.
        seen: the images, B.
        initial_answers: to the user's own words, B.
        candidates: per image K instructions, B; K may differ; what is sent to the user's own words costs nothing.
        answering: how they are answered.

    Returns:
        Per row a judgement of each candidate, or why it failed: a candidate whose answer fails costs itself alone.
    """
    places = [(row, text) for row, texts in enumerate(candidates) for text in dict.fromkeys(texts)]
    of_places = answering.rows([row for row, _ in places])
    sent = dict(zip(places, wrapped([text for _, text in places], of_places), strict=True))
    given: dict[tuple[int, str], Answer | Failed] = {
        place: initial_answers[place[0]] for place in places if sent[place] == initial_answers[place[0]].instruction
    }
    new = [place for place in places if place not in given]
    rows = [row for row, _ in new]
    answered = answers_to_judge(backend, [seen[row] for row in rows], [text for _, text in new], answering.rows(rows))
    given.update(zip(new, answered, strict=True))
    cross = cross_nlls(backend, seen, initial_answers, {place: given[place] for place in new})
    return [
        [_judgement(given[row, text], cross.get((row, text))) for text in texts] for row, texts in enumerate(candidates)
    ]


def _judgement(given: Answer | Failed, cross_nll: float | Failed | None) -> Judgement | Failed:
    if isinstance(given, Failed):
        return given
    return cross_nll if isinstance(cross_nll, Failed) else Judgement(answer=given, cross_nll=cross_nll)


def cross_nlls(
    backend: Backend,
    seen: Sequence[Seen],
    initial_answers: Sequence[Answer],
    answers: Mapping[tuple[int, str], Answer | Failed],
) -> dict[tuple[int, str], float | Failed]:
    """Scores answers to other instructions as answers to the initial one (the cross check).

    Args:
        backend: scores.
        seen: the images, B.
        initial_answers: to the user's own words, B.
        answers: by row and instruction.

    Returns:
        Every answer's implausibility, where it can be told: mean nats of its first tokens.
    """
    cross: dict[tuple[int, str], float | Failed] = {}
    targets: dict[int, list[str]] = {}
    for (row, text), given in answers.items():
        if isinstance(given, Failed):
            continue
        if given.choices:
            offered = initial_answers[row].choices
            probability = next(choice.probability for choice in offered if choice.text == given.text)
            cross[row, text] = -math.log(probability) if probability else math.inf
        elif not given.text:
            cross[row, text] = math.inf  # no answer is none to any question
        elif given.text not in targets.setdefault(row, []):
            targets[row].append(given.text)
    targets = {row: texts for row, texts in targets.items() if texts}
    if not targets or not backend.abilities.can_score:
        return cross
    sent = {row: initial_answers[row].instruction for row in targets}
    rows = [Row(prompt=text, seen=(seen[row],), reads=text, stage="judge") for row, text in sent.items()]
    scores = backend.score(rows, list(targets.values()), with_end=False, num_first=NUM_JUDGED_TOKENS)
    by_answer = {
        (row, text): outcome if isinstance(outcome, Failed) else outcome[place].mean_nll
        for (row, texts), outcome in zip(targets.items(), scores, strict=True)
        for place, text in enumerate(texts)
    }
    for (row, text), given in answers.items():
        nll = by_answer.get((row, given.text)) if isinstance(given, Answer) else None
        if nll is not None and (isinstance(nll, Failed) or math.isfinite(nll)):  # one that is not tells nothing
            cross[row, text] = nll
    return cross


def wrapped(instructions: Sequence[str], answering: Answering) -> list[str]:
    """Returns what is sent of each instruction, B."""
    if answering.wraps is None:
        return list(instructions)
    return [wrap(text) for wrap, text in zip(answering.wraps, instructions, strict=True)]
