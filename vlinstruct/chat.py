"""Several questions about one picture, each asked with what was said before it. No torch at import.

    chat = Chat(vlinstruct.load("mini"), "sign.png")
    print(chat.ask("what is written?"))
    for piece in chat.stream("which colour is it?"):
        print(piece, end="")

The vision tower runs once. The language model reads the talk so far and the question; a Q-Former, which looks
into the picture, reads the question alone. So that it knows what "and the square?" asks, what such a question leaves
out is put back first (`instruction/follow_up.py`); chat models, which read a talk in turns, get all of them as typed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vlinstruct.backend import Row, Seen, Written
from vlinstruct.errors import TextError
from vlinstruct.instruction.follow_up import whole_question
from vlinstruct.instruction.judge import Answering
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.text import check_instruction
from vlinstruct.values import Answer, Exchange, Optimization

if TYPE_CHECKING:
    from vlinstruct.media.load import MediaLike
    from vlinstruct.model import Model

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How a chat answers.

    Args:
        generation: how an answer is generated; every turn begins with the same seed.
        optimize: run algorithm 2 on every question, without what was said before it, and ask what it chooses.
        optimization: how it chooses.
        complete: put back what a question leaves out that goes on from the one before it, where the model is no chat
            model.
    """

    generation: GenerationSettings = GenerationSettings()
    optimize: bool = False
    optimization: OptimizationSettings = OptimizationSettings()
    complete: bool = True


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
        model: a loaded model.
        image: the picture, clip or sound, or what the model saw of it.
        settings: how it answers; greedily, as typed, if None.

    Attributes:
        turns: those whose answers came to their end.
        question: the one asked last, whole, also where its answer was stopped; None before the first.
    """

    def __init__(self, model: Model, image: MediaLike | Seen, *, settings: ChatSettings | None = None) -> None:
        self.model = model
        self.seen = model.seen_of(image)
        self.settings = settings or ChatSettings()
        self.turns: tuple[Turn, ...] = ()
        self.question: str | None = None

    def ask(self, question: str) -> Answer:
        """Answers a question as `stream` does, with the same errors, and returns the whole answer."""
        for _ in self.stream(question):
            pass
        return self.turns[-1].answer

    def stream(self, question: str, *, verbatim: bool = False) -> Iterator[str]:
        """Answers a question piece by piece; with more than one beam all comes at the end.

        The turn is kept when the last piece was taken: who stops before leaves the chat as it was.

        Args:
            question: sent verbatim, but for what a follow-up leaves out.
            verbatim: send it as it is: completed and optimized by nobody.

        Yields:
            Pieces of the answer; joined they are its text.

        Raises:
            TextError: the question cannot be used, or has more tokens than the language model takes.
            ScoreError: optimization found no finite score.
            CheckpointError: the model computed values that are not finite.
        """
        check_instruction(question, what="question")
        self.question = instruction = question if verbatim else self._whole(question)
        # Without the turns before it: algorithm 2 judges an instruction against a picture, and knows no conversation.
        optimization = self._optimized(instruction) if self.settings.optimize and not verbatim else None
        if optimization is not None:
            instruction = optimization.instruction
        fitting = self._fitting(instruction)
        pieces, token_nll = [], None
        for piece in self.model.backend.stream(self._row(fitting, instruction), self.settings.generation):
            if isinstance(piece, Written):
                token_nll = piece.token_nll
                break
            pieces.append(piece)
            yield piece
        text = "".join(pieces)
        answer = Answer(text=text, instruction=instruction, token_nll=token_nll, optimization=optimization)
        num_cut = len(self.turns) - len(fitting)
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
        # Who asks for a better way to ask wants to see it, also where the answer is certain as it is.
        optimization = replace(self.settings.optimization, when="always")
        return self.model.optimize(instruction, self.seen, optimization=optimization)

    def _whole(self, question: str) -> str:
        """Returns a question with what it leaves out."""
        if not self.turns or not self.settings.complete or self.model.backend.identity.is_chat_model:
            return question
        return whole_question(question, self.turns[-1].answer.instruction) or question

    def _optimized(self, question: str) -> Optimization:
        """Optimizes a question that is to be answered: one whose answer is certain is left alone."""
        answering = Answering(generation=self.settings.generation)
        return self.model.optimize(question, self.seen, optimization=self.settings.optimization, answering=answering)

    def reset(self) -> None:
        """Forgets what was said; the picture stays."""
        self.turns, self.question = (), None

    def _fitting(self, instruction: str) -> tuple[Turn, ...]:
        """Returns the last turns that have room in the question's prompt, each of them whole.

        The whole prompt is counted each time, as the backend writes it: turns have no length of their own, since a
        template stands around them.
        """
        max_new_tokens = self.settings.generation.max_new_tokens
        start = len(self.turns)
        # Whole turns from the newest on: half a turn would be a question without its answer.
        while start:
            (count,) = self.model.backend.num_tokens([self._row(self.turns[start - 1 :], instruction)])
            if count is not None and not count.has_room(max_new_tokens):
                logger.warning("the prompt has no room for the first turns; left out: %d", start)
                break
            start -= 1
        return self.turns[start:]

    def _row(self, turns: tuple[Turn, ...], instruction: str) -> Row:
        # Of an optimized question the model remembers what it was asked in the end: the answer is the answer to that.
        history = tuple(Exchange(question=turn.answer.instruction, answer=turn.answer.text) for turn in turns)
        return Row(prompt=instruction, seen=(self.seen,), history=history, reads=instruction)
