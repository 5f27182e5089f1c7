"""Reads what was said in a record of training data: questions with their answers, in the forms that people have.

    conversations | messages                    turns of LLaVA, ShareGPT, OpenAI, transformers
    question | instruction, answer | answers    questions and answers; of several answers (VQA) the most frequent one
    instruction, input, output                  Alpaca
    query, response, history                    ms-swift
    prompt, completion | response               TRL: texts, or turns
    text_input, text_output                     LAVIS
    texts of user and assistant                 the Cauldron, FineVision
    caption, in metadata and tables also text   an answer to the paper's instruction for captions (section 4)

`<image>` in a question marks the picture's place and is taken out: the picture always stands in front. In an answer,
and in a plain `question` or `instruction`, it is a word like any other. A system turn is left out: models read none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vlinstruct.errors import shortened
from vlinstruct.records.foreign import is_whole
from vlinstruct.records.lines import UserRecord
from vlinstruct.text import check_instruction

CAPTION_INSTRUCTION = "A short image description:"
_USER, _ASSISTANT = ("human", "user"), ("gpt", "assistant")
_MARK = "<image>"
_TEXT_PARTS, _PICTURE_PARTS = ("text", "input_text", "output_text"), ("image", "image_url", "input_image")

Turns = Sequence[tuple[str, str]]
Change = Literal["system", "answers", "numbers", "mark"]
"""What was read otherwise than it stands there, for a notice: a system turn left out, one of several answers taken, a
number taken as a text; or kept where people may expect something else: `<image>` in a plain question."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a record says.

    Args:
        form: what people call records of this form.
        turns: questions with their answers, at least one.
        changes: what was read otherwise than it stands there.
    """

    form: str
    turns: Turns
    changes: frozenset[Change] = frozenset()


@dataclass(frozen=True, kw_only=True)
class _Form:
    """A form of records that hold a question and an answer.

    Args:
        name: what people call it.
        questions: fields that may hold the question.
        answers: fields that may hold the answer; of several that are there the first counts.
    """

    name: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]


_PLAIN = _Form(name="questions and answers", questions=("question", "instruction"), answers=("answer", "answers"))
_ALPACA = _Form(name="Alpaca", questions=("instruction",), answers=("output",))
_FORMS = (
    _PLAIN,
    _ALPACA,
    _Form(name="ms-swift's query and response", questions=("query",), answers=("response",)),
    _Form(name="prompt and completion", questions=("prompt",), answers=("completion", "response")),
    _Form(name="LAVIS' text_input", questions=("text_input",), answers=("text_output", "answer", "answers")),
)


def said_in(record: UserRecord, *, is_caption: bool) -> Said:
    """Returns what a record says.

    Args:
        record: any.
        is_caption: it is of metadata or a table: a `text` alone is a caption.

    Raises:
        DataError: questions or answers are missing or no text, or do not alternate.
        TextError: a model cannot be asked one of the texts.
    """
    fields = record.fields
    if "conversations" in fields:
        return _conversation(record, fields["conversations"], "LLaVA conversations")
    if "messages" in fields:
        return _conversation(record, fields["messages"], "chat messages")
    prompt, completion = fields.get("prompt"), fields.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return _conversation(record, [*prompt, *completion], "prompt and completion")
    if isinstance(texts := fields.get("texts"), list):
        return _conversation(record, _turns_of_texts(texts, record), "the Cauldron's texts")
    is_asked = _any_in(("question", "instruction", "answer"), fields)
    is_captioned = not is_asked and _any_in(("caption", "text") if is_caption else ("caption",), fields)
    whole = [form for form in _FORMS if _any_in(form.questions, fields) and _any_in(form.answers, fields)]
    if whole and not (is_captioned and is_caption):  # tables have all sorts of columns beside a caption
        return _question_and_answer(record, whole[0])
    # A form of which half is there is told what it lacks.
    half = [form for form in _FORMS if _any_in((*form.questions, *form.answers), fields)]
    if half and not is_captioned:
        return _question_and_answer(record, half[0])
    return _caption(record, is_caption=is_caption)


def _turns_of_texts(texts: Sequence[Any], record: UserRecord) -> list[dict[str, object]]:
    if not all(isinstance(text, dict) and {"user", "assistant"} <= text.keys() for text in texts):
        raise record.error("field 'texts' is no list of objects with 'user' and 'assistant' (the Cauldron's texts)")
    return [{"role": role, "content": text[role]} for text in texts for role in ("user", "assistant")]


def _any_in(names: Sequence[str], fields: Mapping[str, object]) -> bool:
    return any(name in fields for name in names)


def _question_and_answer(record: UserRecord, form: _Form) -> Said:
    fields = record.fields
    changes: set[Change] = set()
    for ours, names in (("question", form.questions), ("answer", form.answers)):
        if not _any_in(names, fields):
            advice = f"Add it, or say which it is: --columns {ours}=NAME"
            raise record.error(f"field '{names[0]}' is missing ({form.name})", code="missing_field", advice=advice)
    if form is _PLAIN:
        question = record.question()
        changes |= {"mark"} if _MARK in question else set()
    else:
        name = next(name for name in form.questions if name in fields)
        question = record.raw_text(name).replace(_MARK, "").strip()
        if form is _ALPACA and fields.get("input") is not None:
            more = record.raw_text("input", may_be_empty=True).replace(_MARK, "")
            question = f"{question}\n{more}".strip()
        check_instruction(question, what=record.place)
    answer, change = _answer(record, next(name for name in form.answers if name in fields))
    changes |= {change} if change else set()
    if isinstance(fields.get("system"), str) and fields["system"]:
        changes.add("system")
    earlier = _history(record) if form is not _PLAIN else []
    return Said(form=form.name, turns=[*earlier, (question, answer)], changes=frozenset(changes))


def _history(record: UserRecord) -> list[tuple[str, str]]:
    """Returns the earlier turns that ms-swift and LLaMA-Factory write beside the last: [["question", "answer"]]."""
    history = record.fields.get("history") or []
    pairs: list[Any] = history if isinstance(history, list) else [history]
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise record.error("field 'history' is no list of pairs of texts")
    texts = [(question.replace(_MARK, "").strip(), answer.strip()) for question, answer in pairs]
    return [(check_instruction(q, what=record.place), check_instruction(a, what=record.place)) for q, a in texts]


def _answer(record: UserRecord, name: str) -> tuple[str, Change | None]:
    """Returns an answer's text, and what it was made of."""
    value: Any = record.fields.get(name)
    change: Change | None = None
    if isinstance(value, list):
        if not value:
            raise record.error(f"field '{name}' is an empty list")
        # VQA's, with one entry per person that was asked: a text, or an object that holds one.
        texts = [entry.get("answer") if isinstance(entry, dict) else entry for entry in value]
        if not all(isinstance(text, str | int | float) for text in texts):
            raise record.error(f"field '{name}' is no list of texts")
        # Python keeps the order of equals: of these the first one.
        value, change = Counter(texts).most_common(1)[0][0], "answers" if len(texts) > 1 else None
    if isinstance(value, bool):
        spelled = str(value).lower()
        raise record.error(f"field '{name}' is no text but {spelled}", advice='Write what is learned, e.g. "yes"')
    if isinstance(value, float) and not math.isfinite(value):
        raise record.error(f"field '{name}' is {value}, no number that can be learned")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas makes 3.0 of 3 where another row has none
    if is_whole(value) or isinstance(value, float):
        value, change = str(value), change or "numbers"
    elif not isinstance(value, str) or not value:
        value = record.raw_text(name)  # which says what is wrong
    return check_instruction(value, what=record.place), change


def _caption(record: UserRecord, *, is_caption: bool) -> Said:
    """Returns a caption as the answer to the instruction that the paper gives for captions."""
    fields = record.fields
    captions = [name for name in ("text", "caption")[not is_caption :] if name in fields]
    if len(captions) > 1:
        raise record.error("both 'text' and 'caption' are given", advice="Keep one of them")
    if captions:
        answer, change = _answer(record, captions[0])
        changes: frozenset[Change] = frozenset([change] if change else [])
        return Said(form="captions", turns=[(CAPTION_INSTRUCTION, answer)], changes=changes)
    advice = "Add {}, or say which they are: --columns question=NAME,answer=NAME"
    if is_caption:
        why, fitting = "it has no answer and no caption", advice.format("'instruction' and 'answer', or 'caption'")
    else:
        why, fitting = "fields 'question' and 'answer' are missing", advice.format("them")
    raise record.error(f"{why}; it has {_names(fields)}", code="missing_field", advice=fitting)


def _names(fields: Mapping[str, object]) -> str:
    return shortened(", ".join(fields), 60) if fields else "no field"


def _conversation(record: UserRecord, messages: object, form: str) -> Said:
    """Returns the questions and answers of a list of messages, a system message in front of them left out."""
    if not isinstance(messages, list) or not messages:
        raise record.error(f"its conversation is no list of turns ({form})")
    spoken = [_spoken(message, number, form, record) for number, message in enumerate(messages, start=1)]
    has_system = spoken[0][0] == "system"
    if has_system:
        spoken = spoken[1:]
    roles = [speaker for speaker, _ in spoken]
    alternate = all(speaker in (_ASSISTANT if turn % 2 else _USER) for turn, speaker in enumerate(roles))
    if not spoken or len(spoken) % 2 or not alternate:
        shown = shortened(", ".join(roles), 60) or "none"
        raise record.error(f"its turns do not alternate between a question and an answer ({form}: {shown})")
    texts = [check_instruction(text, what=record.place) for _, text in spoken]
    turns = list(zip(texts[::2], texts[1::2], strict=True))
    # A system text may also stand beside the turns.
    has_system |= isinstance(record.fields.get("system"), str) and bool(record.fields["system"])
    return Said(form=form, turns=turns, changes=frozenset(["system"] if has_system else []))


def _spoken(message: Any, number: int, form: str, record: UserRecord) -> tuple[str, str]:
    """Returns who speaks in a turn, and what: LLaVA writes `from` and `value`, OpenAI `role` and `content`."""
    fields = message if isinstance(message, dict) else {}
    role, text = fields.get("from", fields.get("role")), fields.get("value", fields.get("content"))
    if isinstance(text, list):
        text = " ".join(_texts_of_parts(text, number, record))
    if not isinstance(text, str) or not isinstance(role, str):
        keys = "'from' and 'value'" if form.startswith("LLaVA") else "'role' and 'content'"
        raise record.error(f"a turn has no text: turn {number} needs {keys} ({form})")
    return role, (text if role in _ASSISTANT else text.replace(_MARK, "")).strip()


def _texts_of_parts(parts: Sequence[Any], number: int, record: UserRecord) -> list[str]:
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str) or (isinstance(part, dict) and isinstance(part.get("text"), str)):
            texts.append(part if isinstance(part, str) else part["text"])
        elif kind in _TEXT_PARTS:
            raise record.error(f"turn {number} holds a part of type '{kind}' without text")
        elif kind not in _PICTURE_PARTS and not (isinstance(part, dict) and {"image", "image_url"} & part.keys()):
            raise record.error(f"turn {number} holds a part of type '{shortened(str(kind), 20)}', not text or image")
    return texts
