"""What optimization costs on one's own questions: how often it is needed decides, which no made-up workload knows.

Every question is asked as a command asks it: the picture is seen anew, and a new model remembers no rewriting of an
earlier one. Both write what they mean to write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vlinstruct.backend import Backend
from vlinstruct.bench.timing import Timing, seconds_of, timed_in_turns
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings

QUESTION_ARMS = (
    "transformers, plain",
    "vlinstruct, plain",
    "vlinstruct, -O where unsure",
    "vlinstruct, -O always",
)


@dataclass(frozen=True, kw_only=True)
class QuestionCost:
    """What the questions took.

    Args:
        num_questions: how many were asked in a run.
        num_optimized: of how many the answer was not certain.
        timings: of every arm, all questions together.
    """

    num_questions: int
    num_optimized: int
    timings: tuple[Timing, ...]

    def ratio(self, arm: str) -> float:
        """Returns an arm's median as a multiple of our plain answers'."""
        medians = {timing.arm: timing.median_s for timing in self.timings}
        return medians[arm] / medians[QUESTION_ARMS[1]]


def compare_questions(
    backend: Backend,
    answer: Callable[[Image.Image, str, int], object],
    questions: Sequence[tuple[Image.Image, str]],
    runs: int,
) -> QuestionCost:
    """Asks all questions with every arm in turns.

    Args:
        backend: ours.
        answer: answers with transformers, given picture, question, and the most tokens to write.
        questions: pictures with what is asked of each.
        runs: of every arm, at least 2.
    """
    generation = GenerationSettings()
    left_alone: list[bool] = []

    def transformers() -> None:
        for image, question in questions:
            answer(image, question, generation.max_new_tokens)

    def ours(**settings: Any) -> Callable[[], None]:
        def ask() -> None:
            left_alone.clear()
            for image, question in questions:
                model = Model(backend)
                answer = model.ask(image, question, generation=generation, **settings)
                left_alone.append(answer.optimization is not None and answer.optimization.left_alone)

        return ask

    unsure = ours(optimize=True)
    always = ours(optimize=True, optimization=OptimizationSettings(select="ias", when="always"))
    unsure()
    num_optimized = left_alone.count(False)
    timings = timed_in_turns(dict(zip(QUESTION_ARMS, (transformers, ours(), unsure, always), strict=True)), runs)
    return QuestionCost(num_questions=len(questions), num_optimized=num_optimized, timings=timings)


def questions_table(cost: QuestionCost) -> str:
    """Returns the measurement as lines."""
    lines = [f"{cost.num_questions} questions, {cost.num_optimized} of them optimized where the answer is unsure"]
    for timing in cost.timings:
        low, high = (1e3 * seconds / cost.num_questions for seconds in timing.quartiles_s)
        middle = 1e3 * timing.median_s / cost.num_questions
        spread = f"{middle:7.1f} ms a question  ({low:.1f} to {high:.1f})"
        lines.append(f"  {timing.arm:28} {spread:42} {cost.ratio(timing.arm):.2f} times our plain answer")
    return "\n".join(lines)


def questions_record(backbone: str, cost: QuestionCost, environment: dict[str, Any]) -> dict[str, Any]:
    """Returns a measurement as a record, every run's seconds included."""
    return {
        "schema": "vlinstruct.bench.questions/1",
        "id": backbone,
        "status": "ok",
        "environment": environment,
        "questions": cost.num_questions,
        "optimized": cost.num_optimized,
        "seconds": seconds_of(cost.timings),
        "median_ratio_to_our_plain": {arm: cost.ratio(arm) for arm in QUESTION_ARMS},
    }
