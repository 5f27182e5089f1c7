"""What ask, optimize and score do with items, and what of it goes into a record. No torch at import.

An operation is data and not a function, so that it can be hashed: an output is resumed only by an equal one. A record's
fields are a contract (cli/README.md lists them): fields may be added, none may change its meaning.

Legend: B rows, one picture each.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from PIL import Image

from vlinstruct.doubts import doubts
from vlinstruct.errors import VlinstructError
from vlinstruct.instruction.templates import QUESTION_FIELD
from vlinstruct.media.fetch import Url
from vlinstruct.media.images import is_array
from vlinstruct.media.inputs import Source, StoredPicture
from vlinstruct.media.kinds import kind_by_name
from vlinstruct.settings import ClipSettings, GenerationSettings, OptimizationSettings
from vlinstruct.text import is_blank
from vlinstruct.values import Answer, Failed, Optimization, ScoredInstruction

if TYPE_CHECKING:
    from vlinstruct.backend import Seen
    from vlinstruct.chat import Turn
    from vlinstruct.model import Model

Fields = dict[str, Any]
Observe = Callable[[int, "Answer | Optimization | Failed"], None]
"""Is told a row's place and its result, which holds more than the record does: the nats of every token."""

TOKENS_FIELD = "{tokens}"
"""Where what OCR has read goes in a template."""

# Not in instruction/templates.yaml: users' copies of that file have its four keys, and would lack a fifth. Here it is
# the default of `ask --template`.
OCR_TEMPLATE = f"OCR tokens: {TOKENS_FIELD} Question: {QUESTION_FIELD} \n Short answer:"
"""The paper's for TextVQA (appendix C.2)."""

EMPTY_ANSWER = "the answer is empty, the model ended it at once; ask in other words"
"""The notice in a record whose answer has no characters to see."""
UNFINISHED_THOUGHT = "the answer is empty, the model thought until its tokens ran out; ask without --think"
"""The same where the model was still thinking."""

# Scores of one item computed alone and in a batch differ in the last bits of float32: far below what is written.
_DECIMALS = 5


@dataclass(frozen=True, kw_only=True)
class BatchItem:
    """One item to work on.

    Args:
        id: unique in the batch.
        source: the picture: its path, bytes or pixels, or what gives them.
        image: what the record calls the picture.
        texts: what was typed for it: the question, the instruction, or several instructions to score.
        choices: answers to rank in place of the operation's; empty where it has none of its own.
    """

    id: str | int
    source: Source
    image: str
    texts: tuple[str, ...]
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BadItem:
    """An item that cannot be worked on, as known before the run."""

    id: str | int
    error: VlinstructError


class Operation(Protocol):
    """One of the commands, as data: equal operations on equal items give equal records."""

    @property
    def schema(self) -> str:
        """The `schema` of its records."""
        ...

    @property
    def ocr(self) -> bool:
        """Whether a picture's words are read and follow an item's texts."""
        ...

    def settings(self) -> Fields:
        """Everything that changes its results, as JSON, for the resume key."""
        ...

    def run(
        self,
        model: Model,
        seen: Sequence[Seen],
        texts: Sequence[Sequence[str]],
        choices: Sequence[Sequence[str]] | None = None,
        observe: Observe = lambda place, result: None,
    ) -> list[Fields | Failed]:
        """Returns every row's fields, or why it failed.

        Args:
            model: the loaded model.
            seen: the pictures, B.
            texts: per row what was typed for it, B: the question, the instruction, or several instructions to score.
            choices: per row answers of its own to rank, B, which `ask` alone does; empty for none.
            observe: is told every row's result, of ask and optimize.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Answers a question about every picture.

    Args:
        template: what is asked, with the question for `{question}` and, under `ocr`, what was read in the picture for
            `{tokens}`.
        ocr: whether every row's texts are the question and what was read.
        choices: answers to rank instead of generating one.
        optimize: run algorithm 2 first.
        optimization: how it chooses.
        generation: how the answer is generated.
    """

    template: str = QUESTION_FIELD
    ocr: bool = False
    choices: tuple[str, ...] = ()
    optimize: bool = False
    optimization: OptimizationSettings = OptimizationSettings()
    generation: GenerationSettings = GenerationSettings()

    schema = "vlinstruct.ask/1"

    def settings(self) -> Fields:
        return asdict(self)

    def _sent(self, tokens: Sequence[str], question: str) -> str:
        """Fills the template in one pass: what stands in a question or a picture is no field."""
        names = (QUESTION_FIELD, TOKENS_FIELD) if self.ocr else (QUESTION_FIELD,)
        values = dict(zip(names, (question, *tokens), strict=True))
        return re.sub("|".join(map(re.escape, values)), lambda field: values[field[0]], self.template)

    def run(
        self,
        model: Model,
        seen: Sequence[Seen],
        texts: Sequence[Sequence[str]],
        choices: Sequence[Sequence[str]] | None = None,
        observe: Observe = lambda place, result: None,
    ) -> list[Fields | Failed]:
        offered = [tuple(own) or self.choices for own in choices or [()] * len(texts)]
        answers: dict[int, Answer | Failed] = {}
        # Ranking and generating are two calls: in a file some items may have choices.
        for ranks in (True, False):
            places = [place for place, row in enumerate(offered) if bool(row) is ranks]
            if places:
                asked = model.ask_each(
                    [seen[place] for place in places],
                    [texts[place][0] for place in places],
                    choices=[offered[place] for place in places] if ranks else None,
                    # Around what is chosen, so that no rewriting can lose the template.
                    wraps=[partial(self._sent, tuple(texts[place][1:])) for place in places],
                    optimize=self.optimize,
                    optimization=self.optimization,
                    generation=self.generation,
                )
                answers.update(zip(places, asked, strict=True))
        for place, answer in answers.items():
            observe(place, answer)
        # What was typed, and what OCR read, come first: the instruction that was asked follows from them.
        names = ("question", "ocr_tokens") if self.ocr else ("question",)
        return [
            answer
            if isinstance(answer, Failed)
            else {**dict(zip(names, row, strict=True)), **_answer_fields(answer, doubts(model, picture, answer))}
            for row, picture, answer in zip(texts, seen, [answers[place] for place in range(len(texts))], strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Optimize:
    """Optimizes an instruction for every picture.

    Args:
        optimization: how the instruction is chosen.
        answer: whether the initial and the chosen instruction are answered too.
        generation: how the answers are generated.
    """

    optimization: OptimizationSettings = OptimizationSettings()
    answer: bool = False
    generation: GenerationSettings = GenerationSettings()

    schema = "vlinstruct.optimize/1"
    ocr = False

    def settings(self) -> Fields:
        return asdict(self)

    def run(
        self,
        model: Model,
        seen: Sequence[Seen],
        texts: Sequence[Sequence[str]],
        choices: Sequence[Sequence[str]] | None = None,
        observe: Observe = lambda place, result: None,
    ) -> list[Fields | Failed]:
        instructions = [row[0] for row in texts]
        if not self.answer:
            outcomes = model.optimize_each(seen, instructions, optimization=self.optimization)
            for place, outcome in enumerate(outcomes):
                observe(place, outcome)
            return [
                outcome
                if isinstance(outcome, Failed)
                else _with_notice(optimization_fields(outcome), notices=doubts(model, picture))
                for picture, outcome in zip(seen, outcomes, strict=True)
            ]
        chosen = model.ask_each(
            seen, instructions, optimize=True, optimization=self.optimization, generation=self.generation
        )
        for place, answer in enumerate(chosen):
            observe(place, answer)
        # What was judged is not answered again, where it was judged by the answer that a user gets.
        initial = dict(enumerate(chosen))
        unanswered = [
            place
            for place, answer in enumerate(chosen)
            if isinstance(answer, Answer) and answer.optimization and answer.optimization.chosen != "initial"
        ]
        answers = model.ask_each(
            [seen[place] for place in unanswered],
            [instructions[place] for place in unanswered],
            generation=self.generation,
        )
        initial.update(zip(unanswered, answers, strict=True))
        return [
            _with_answers(
                initial[place], answer, () if isinstance(answer, Failed) else doubts(model, seen[place], answer)
            )
            for place, answer in enumerate(chosen)
        ]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores instructions for every picture."""

    schema = "vlinstruct.score/1"
    ocr = False

    def settings(self) -> Fields:
        return {}

    def run(
        self,
        model: Model,
        seen: Sequence[Seen],
        texts: Sequence[Sequence[str]],
        choices: Sequence[Sequence[str]] | None = None,
        observe: Observe = lambda place, result: None,
    ) -> list[Fields | Failed]:
        records: list[Fields | Failed] = []
        for picture, row in zip(seen, model.score_each(seen, texts), strict=True):
            if isinstance(row, Failed):
                records.append(row)
                continue
            fields = {"scores": [scored_fields(scored) for scored in row]}
            records.append(_with_notice(fields, notices=doubts(model, picture)))
        return records


def scored_fields(scored: ScoredInstruction) -> Fields:
    """Returns what a record says of an instruction's IAS, token by token."""
    return {
        "instruction": scored.text,
        "ias": _rounded(scored.ias),
        "tokens": list(scored.scores.tokens),
        "token_nll": [_rounded(nll) for nll in scored.scores.token_nll],
    }


def _answer_fields(answer: Answer, doubtful: Sequence[str]) -> Fields:
    fields: Fields = {"instruction": answer.instruction, "answer": answer.text}
    if answer.choices:
        fields["choices"] = [
            {"text": choice.text, "probability": _rounded(choice.probability), "nll": _rounded(choice.nll)}
            for choice in answer.choices
        ]
    if answer.optimization is not None:
        fields["optimization"] = optimization_fields(answer.optimization)
    return _with_notice(fields, answer, notices=doubtful)


def optimization_fields(outcome: Optimization) -> Fields:
    """Returns what a record says of an optimization."""
    versions = {role.replace(" ", "_"): _candidate_fields(scored) for role, scored in outcome.by_role().items()}
    chosen = {"chosen": outcome.chosen.replace(" ", "_"), "instruction": outcome.instruction, "reason": outcome.reason}
    return {**versions, **chosen, **({"notices": list(outcome.notices)} if outcome.notices else {})}


def _candidate_fields(scored: ScoredInstruction) -> Fields:
    fields: Fields = {"text": scored.text, "ias": _rounded(scored.ias)}
    if scored.judgement is None:
        return fields
    answer, cross_nll = scored.judgement.answer, scored.judgement.cross_nll
    fields |= {"answer": answer.text, "certainty": _certainty(answer)}
    return fields if cross_nll is None else {**fields, "cross_nll": _rounded(cross_nll)}


def turn_fields(turn: Turn, doubtful: Sequence[str] = ()) -> Fields:
    """Returns what a record says of a chat's turn, what speaks against its answer included."""
    optimization = turn.answer.optimization
    fields: Fields = {"question": turn.question, "answer": turn.answer.text, "turns_cut": turn.num_turns_cut}
    if turn.answer.instruction != turn.question:
        fields["instruction"] = turn.answer.instruction
    if optimization is not None:
        fields["optimization"] = optimization_fields(optimization)
    return _with_notice(fields, turn.answer, notices=doubtful)


def _with_answers(initial: Answer | Failed, chosen: Answer | Failed, doubtful: Sequence[str]) -> Fields | Failed:
    if isinstance(chosen, Failed):
        return chosen
    if isinstance(initial, Failed):
        return initial
    assert chosen.optimization is not None
    answers = {
        "initial_answer": initial.text,
        "initial_certainty": _certainty(initial),
        "answer": chosen.text,
        "certainty": _certainty(chosen),
    }
    return _with_notice({**optimization_fields(chosen.optimization), **answers}, initial, chosen, notices=doubtful)


def _certainty(answer: Answer) -> float | None:
    return None if answer.certainty is None else _rounded(answer.certainty)


def _with_notice(fields: Fields, *answers: Answer, notices: Sequence[str] = ()) -> Fields:
    """Adds notices, one where an answer is empty: a line without characters is easily taken for a terminal's fault."""
    empty = [empty_answer_notice(answer) for answer in answers if is_blank(answer.text)]
    added = [*notices, *empty[:1]]
    return {**fields, "notices": [*fields.get("notices", ()), *added]} if added else fields


def empty_answer_notice(answer: Answer) -> str:
    """Says why an answer has no characters to see."""
    # One that the model ended has its end token's likelihood at least.
    return UNFINISHED_THOUGHT if answer.token_nll == () else EMPTY_ANSWER


def _rounded(value: float) -> float | None:
    """Rounds a number for a record; JSON has no NaN, so one that is not finite is null."""
    return round(value, _DECIMALS) if abs(value) < float("inf") else None


def _state_of(source: Source) -> object:
    """Returns what tells a picture's content from another one under the same name."""
    if isinstance(source, bytes):  # pictures of stdin are all called `-`
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, Url):
        return None
    if isinstance(source, Image.Image):
        return [*source.size, hashlib.sha256(source.convert("RGBA").tobytes()).hexdigest()]
    if is_array(source):
        return [*source.shape, hashlib.sha256(source.tobytes()).hexdigest()]
    # Size and time: to read a million pictures would take as long as asking about them. In whole seconds, since not
    # every file system, and not every copy, keeps more.
    try:
        status = os.stat(source if isinstance(source, str | Path) else cast("StoredPicture", source).file)
    except (OSError, ValueError):  # it is told when its turn comes
        return None
    return [status.st_size, int(status.st_mtime)]


def resume_key(
    operation: Operation,
    item: BatchItem | BadItem,
    model: Sequence[object],
    *,
    clips: ClipSettings = ClipSettings(),
) -> str:
    """Identifies an item's result: it is done again only when its id, arguments, picture or the model changed.

    Args:
        operation: with everything that changes its results.
        item: with its id, picture and texts.
        model: JSON values that stand for the model: its weights' fingerprint, its adapter, its templates.
        clips: which frames of clips are used.

    Returns:
        16 hex digits.
    """
    arguments = None
    if isinstance(item, BatchItem):
        arguments = [item.image, _state_of(item.source), item.texts, item.choices]
    parts = [operation.schema, operation.settings(), str(item.id), arguments, *model]
    # What is named as a picture is read as one, whatever is in it.
    if isinstance(item, BatchItem) and clips != ClipSettings() and kind_by_name(item.image) != "picture":
        parts.append(asdict(clips))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
