"""Several questions about one picture, each asked with what was said before it. No torch at import.

    chat = Chat(vlinstruct.load("mini"), "sign.png")
    print(chat.ask("what is written?"))
    for piece in chat.stream("which colour is it?"):
        print(piece, end="")

The vision tower runs once. The language model reads the talk so far and the question, spelled as conversations are in
training (`data.turns.prompt_of`); the Q-Former, which looks into the picture, reads the question alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlinstruct.errors import TextError
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.text import check_instruction
from vlinstruct.training.data.turns import prompt_of
from vlinstruct.values import Answer, Optimization, Percept

if TYPE_CHECKING:
    from vlinstruct.model import ImageLike, Model

logger = logging.getLogger(__name__)

# Each question leaves its view of the picture in the percept's memory, 0.1 to 0.7 MB with the paper's backbones.
_MOST_REMEMBERED = 256


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How a chat answers.

    Args:
        generation: how an answer is generated; every turn begins with the same seed.
        optimize: run algorithm 2 on every question, without what was said before it, and ask what it chooses.
        optimization: how it chooses.
    """

    generation: GenerationSettings = GenerationSettings()
    optimize: bool = False
    optimization: OptimizationSettings = OptimizationSettings()


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question with its answer.

    Args:
        question: as typed; `answer.instruction` is what was asked in the end, and what later turns read of it.
        answer: what the model said.
        num_turns_cut: earlier turns, the first ones, that its prompt had no room for.
    """

    question: str
    answer: Answer
    num_turns_cut: int = 0


class Chat:
    """A talk about one picture.

    Args:
        pipeline: a loaded model.
        image: the picture, or a percept of one.
        config: how it answers; greedily, as typed, if None.

    Attributes:
        turns: those whose answers came to their end.
        question: the one asked last, also where its answer was stopped; None before the first.
    """

    def __init__(self, pipeline: Model, image: ImageLike | Percept, *, config: ChatSettings | None = None) -> None:
        self.pipeline = pipeline
        self.percept = image if isinstance(image, Percept) else pipeline.see(image)
        self.config = config or ChatSettings()
        self.turns: tuple[Turn, ...] = ()
        self.question: str | None = None

    def ask(self, question: str) -> Answer:
        """Answers a question; raises as `stream`."""
        for _ in self.stream(question):
            pass
        return self.turns[-1].answer

    def stream(self, question: str) -> Iterator[str]:
        """Answers a question piece by piece; with more than one beam all comes at the end.

        The turn is kept when the last piece was taken: who stops before leaves the chat as it was.

        Args:
            question: sent verbatim.

        Yields:
            Pieces of the answer; joined they are its text.

        Raises:
            TextError: the question cannot be used, or has more tokens than the language model takes.
            ScoreError: optimization found no finite score.
            CheckpointError: the model computed values that are not finite.
        """
        self.question = check_instruction(question, what="question")
        optimization = self.optimize(question) if self.config.optimize else None
        asked = optimization.instruction if optimization else question
        kept = self._fitting(asked)
        self._forget_views()
        pieces = []
        for piece in self.pipeline.backend.stream(self.percept, _prompt(kept, asked), asked, self.config.generation):
            pieces.append(piece)
            yield piece
        answer = Answer(text="".join(pieces), instruction=asked, optimization=optimization)
        num_cut = len(self.turns) - len(kept)
        self.turns = (*self.turns, Turn(question=question, answer=answer, num_turns_cut=num_cut))

    def optimize(self, instruction: str | None = None) -> Optimization:
        """Optimizes an instruction for the picture, or the question asked last; this is no turn.

        Raises:
            TextError: it cannot be used, or nothing was asked yet.
            ScoreError: none of its scores is finite.
        """
        if instruction is None:
            instruction = self.question
        if instruction is None:
            raise TextError(
                "there is no question to optimize yet", advice="Ask one first, or give a text.", code="no_question"
            )
        return self.pipeline.optimize(instruction, self.percept, optimization=self.config.optimization)

    def reset(self) -> None:
        """Forgets what was said; the picture stays."""
        self.turns, self.question = (), None

    def _fitting(self, asked: str) -> tuple[Turn, ...]:
        """Returns the last turns that have room in the question's prompt, each of them whole."""
        model = self.pipeline.backend
        room = model.num_prompt_tokens(self.config.generation.max_new_tokens)
        start = len(self.turns)
        while start and len(model.tokenizer.prompt_ids(_prompt(self.turns[start - 1 :], asked))) <= room:
            start -= 1
        if start:
            logger.warning("the prompt has no room for the first turns, they are left out: %d", start)
        return self.turns[start:]

    def _forget_views(self) -> None:
        (views,) = self.percept.prefixes
        if len(views) > _MOST_REMEMBERED:
            views.clear()


def _prompt(turns: tuple[Turn, ...], asked: str) -> str:
    return prompt_of([*((turn.answer.instruction, turn.answer.text) for turn in turns), (asked, "")])
