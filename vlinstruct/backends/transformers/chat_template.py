"""Texts and turns to token ids and back, for models with a chat template and for those without.

What a user types stays text: `<image>` or `<|im_end|>` in a question is spelt out, not the token that steers the
model. transformers' own way (`sanitize_control_tokens`) raises for Idefics3, Gemma 3, InternVL, Mllama and Qwen2.5-Omni
(5.24), whose processors count such words all the same; so the ids are made here, and a processor sees a text of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from vlinstruct.backends.instructblip.conversation import prompt_of
from vlinstruct.backends.instructblip.tokenization import named_failures
from vlinstruct.errors import CheckpointError, TextError, printable, shortened
from vlinstruct.values import Exchange, MediaKind

PARTS: dict[MediaKind, str] = {"picture": "image", "clip": "video", "sound": "audio"}
"""What templates and processors call the kinds of media."""

# Stands in a typed control token while the text is tokenized: a private character, so that nothing is merged with it.
_GUARD = "\ue0f0"
MARKER = "a"
"""A text of ours, in whose place the prompt comes."""
_THINKING = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"))


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What a model reads: a prompt, and what stands before it.

    Args:
        prompt: the last question.
        history: earlier ones with their answers.
        system: what stands in front of all.
        media: the kind of what belongs to the first question; None for text alone.
    """

    prompt: str
    history: tuple[Exchange, ...] = ()
    system: str = ""
    media: MediaKind | None = None


class Thoughts:
    """Tells what is thought from what is answered, token by token.

    Args:
        openings: the ids that open a thought; none where the model has no such tokens.
        closings: the ids that close one.
        prompt_ids: what was read; what a user types is none of these tokens.
    """

    def __init__(self, openings: frozenset[int], closings: frozenset[int], prompt_ids: Sequence[int]) -> None:
        self.openings = openings
        self.closings = closings
        last = next((token for token in reversed(prompt_ids) if token in openings | closings), None)
        self.is_open = last in openings

    def is_answer(self, token: int) -> bool:
        """Says of the next token that is written whether it is a part of the answer."""
        if token in self.openings or token in self.closings:
            self.is_open = token in self.openings
            return False
        return not self.is_open


class ChatTemplate:
    """A processor's tokenizer and chat template.

    Args:
        processor: transformers' own.
        model_ends: the ids at which the model's `generate` stops.
    """

    cleans_up_spaces = False

    def __init__(self, processor: Any, model_ends: Sequence[int]) -> None:
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.template = getattr(processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)
        # Longest first, so that a token which begins like another one is found whole.
        self.control_tokens = sorted(
            (
                token.content
                for token in self.tokenizer.added_tokens_decoder.values()
                if len(token.content) > 1
                and not token.content.isspace()
                # A word that a training added to the vocabulary steers nothing.
                and (token.special or not token.content.isalnum())
            ),
            key=len,
            reverse=True,
        )
        if any(_GUARD in token for token in self.control_tokens):
            raise CheckpointError("its tokenizer has a control token with U+E0F0 in it, which guards them here.")
        self.thought_ids = _thought_ids(self.tokenizer)
        self.special_ids = frozenset(self.tokenizer.all_special_ids)
        self.adds_special_tokens = self._adds_special_tokens()
        ends = [*model_ends, self.tokenizer.eos_token_id]
        ends = [end for end in ends if isinstance(end, int) and 0 <= end < len(self.tokenizer)]
        self.end_id = self._end_id(ends)
        self.stop_ids = tuple(dict.fromkeys((self.end_id, *ends)))

    def render(self, conversation: Conversation, *, think: bool = False) -> str:
        """Returns the text that the model reads, with one placeholder for what it sees.

        Args:
            conversation: its texts may hold guards.
            think: leave the model room to think; else its thoughts are closed before they begin.

        Raises:
            TextError: the template does not take such a conversation, e.g. a system's turn.
        """
        if self.template is None:
            return _untemplated(conversation)
        text = str(self.apply(turns_of(conversation), **self.prompt_options(think=think)))
        for opening, closing in _THINKING:
            # A template without a switch opens the thoughts, and what follows would be scored as one of them.
            if not think and text.rstrip().endswith(opening):
                text = f"{text.rstrip()}\n{closing}\n\n"
        return text

    def prompt_options(self, *, think: bool = False) -> dict[str, bool]:
        """Returns with what `apply` renders a turn that is to be answered."""
        # Said only where the template asks: transformers takes other words for options of the processor, and warns.
        switch = {"enable_thinking": think} if "enable_thinking" in str(self.template) else {}
        return {"add_generation_prompt": True, **switch}

    def guard(self, text: str) -> str:
        """Puts a private character into every control token that a text spells, so that it is tokenized as text.

        Raises:
            TextError: the tokenizer cannot keep it apart.
        """
        guarded = text
        while spelt := next((token for token in self.control_tokens if token in guarded), None):
            # Whether the character is ours or the user's could not be told later.
            if _GUARD in text or not self.tokenizer.is_fast:
                raise _not_literal(spelt)
            guarded = guarded.replace(spelt, spelt[0] + _GUARD + spelt[1:])
        return guarded

    def encode(self, text: str, *, add_special_tokens: bool | None = None, is_guarded: bool = False) -> list[int]:
        """Returns the ids of a rendered text.

        Args:
            text: rendered.
            add_special_tokens: whether the tokenizer puts its own around it; as the processor does if None.
            is_guarded: whether it holds guards, which are left out.

        Raises:
            TextError: the tokenizer cannot keep a typed control token apart.
        """
        if add_special_tokens is None:
            add_special_tokens = self.adds_special_tokens
        with named_failures("the tokenizer failed over this text"):
            encoding = self.tokenizer(
                text, add_special_tokens=add_special_tokens, return_offsets_mapping=is_guarded, verbose=False
            )
        if not is_guarded:
            return list(encoding.input_ids)
        ids = []
        for token, (start, end) in zip(encoding.input_ids, encoding.offset_mapping, strict=True):
            piece = text[start:end]
            if _GUARD not in piece:
                ids.append(token)
            elif piece.strip() != _GUARD:  # it has become one token with its neighbours
                raise _not_literal(piece.replace(_GUARD, ""))
        return ids

    def mistaken_tokens(self) -> list[str]:
        """Returns the control tokens that are not text where a user types them: none, in a sound tokenizer."""
        steering = set(self.tokenizer.convert_tokens_to_ids(self.control_tokens))
        return [token for token in self.control_tokens if steering.intersection(self.target_ids(token, with_end=False))]

    def target_ids(self, text: str, *, with_end: bool = True) -> list[int]:
        """Returns the ids of what the model is to write: a text as it stands, and the end of its turn."""
        guarded = self.guard(text)
        ids = self.encode(guarded, add_special_tokens=False, is_guarded=guarded != text)
        return [*ids, self.end_id] if with_end else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of generated ids, special tokens left out."""
        with named_failures("the tokenizer failed over what was written"):
            return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Returns the vocabulary's spelling of every id."""
        return tuple(token or "" for token in self.tokenizer.convert_ids_to_tokens(list(ids)))

    def is_special(self, token: int) -> bool:
        """Says whether an id is left out of a text."""
        return token in self.special_ids

    def thoughts(self, prompt_ids: Sequence[int]) -> Thoughts:
        """Returns what tells thoughts from the answer to a prompt, in which the template may have opened one."""
        openings, closings = self.thought_ids
        return Thoughts(openings, closings, prompt_ids)

    def guarded(self, conversation: Conversation) -> Conversation:
        """Returns a conversation with every text guarded.

        Raises:
            TextError: the tokenizer cannot keep a typed control token apart.
        """
        return Conversation(
            prompt=self.guard(conversation.prompt),
            history=tuple(
                Exchange(question=self.guard(turn.question), answer=self.guard(turn.answer))
                for turn in conversation.history
            ),
            system=self.guard(conversation.system),
            media=conversation.media,
        )

    def apply(self, turns: list[Any], **options: Any) -> Any:
        """Calls transformers' `apply_chat_template`.

        Raises:
            TextError: the template does not take such turns.
        """
        # Beside the template, a processor works on the medium, and may fail over that.
        with nullcontext() if "tokenize" in options else _said_in_one_line():
            try:
                return self.processor.apply_chat_template(turns, chat_template=self.template, **options)
            except (TypeError, AttributeError):
                # Some templates take what an assistant said as a string.
                plain = [
                    {**turn, "content": turn["content"][0]["text"]} if turn["role"] == "assistant" else turn
                    for turn in turns
                ]
                return self.processor.apply_chat_template(plain, chat_template=self.template, **options)

    def _adds_special_tokens(self) -> bool:
        """Says whether a tokenizer's own beginning stands before a rendered text.

        A processor adds it unless the template has written it already; this is its rule (`ProcessorMixin`).
        """
        if self.template is None:
            return True
        beginning = self.tokenizer.bos_token
        return beginning is None or not self.render(Conversation(prompt=MARKER)).startswith(beginning)

    def _end_id(self, ends: Sequence[int]) -> int:
        """Returns the token that ends an assistant's turn: what the template writes behind one.

        Raises:
            CheckpointError: neither the template nor the model nor its tokenizer names one.
        """
        if self.template is not None:
            marker = "\u2603"
            turns = turns_of(Conversation(prompt=MARKER))
            answered = [*turns, {"role": "assistant", "content": [{"type": "text", "text": marker}]}]
            behind = str(self.apply(answered)).rpartition(marker)[2]
            ids = self.tokenizer(behind, add_special_tokens=False).input_ids
            if ids and (ids[0] in ends or ids[0] in self.tokenizer.added_tokens_decoder):
                return int(ids[0])
        if not ends:
            raise CheckpointError("neither its tokenizer nor generation_config.json names the token that ends a text.")
        return ends[-1]


def can_think(processor: Any) -> bool:
    """Says whether a model has the tokens that thoughts stand between."""
    return all(_thought_ids(getattr(processor, "tokenizer", processor)))


def _thought_ids(tokenizer: Any) -> list[frozenset[int]]:
    """Returns the ids that open a thought, and those that close one."""
    vocabulary = tokenizer.get_vocab()
    return [
        frozenset(vocabulary[token] for token in tokens if token in vocabulary)
        for tokens in zip(*_THINKING, strict=True)
    ]


def _not_literal(spelt: str) -> TextError:
    return TextError(
        f"{shortened(spelt, 40)!r} means something to this model, and its tokenizer cannot keep it apart",
        advice="Leave it out, or spell it otherwise.",
        code="control_token",
    )


def turns_of(conversation: Conversation) -> list[dict[str, Any]]:
    """Returns a conversation as transformers takes one, the medium in front of the first question.

    Content is a list of parts, never a string: templates that loop over parts drop a string without a word.
    """
    turns = []
    if conversation.system:
        turns.append({"role": "system", "content": [{"type": "text", "text": conversation.system}]})
    parts = [{"type": PARTS[conversation.media]}] if conversation.media is not None else []
    for exchange in conversation.history:
        turns.append({"role": "user", "content": [*parts, {"type": "text", "text": exchange.question}]})
        turns.append({"role": "assistant", "content": [{"type": "text", "text": exchange.answer}]})
        parts = []
    turns.append({"role": "user", "content": [*parts, {"type": "text", "text": conversation.prompt}]})
    return turns


def _untemplated(conversation: Conversation) -> str:
    """Returns what a model without a chat template reads; talks are spelt as those of InstructBLIP are."""
    prompt = prompt_of([*((turn.question, turn.answer) for turn in conversation.history), (conversation.prompt, "")])
    return f"{conversation.system} {prompt}" if conversation.system else prompt


@contextmanager
def _said_in_one_line() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # a template is a program: it divides by zero, calls itself, adds a number to a text
        why = (shortened(printable(str(error)), 120) or type(error).__name__).rstrip(".")
        raise TextError(
            f"the model's chat template does not take this conversation: {why}",
            advice="Leave the system's text or earlier turns away.",
            code="chat_template",
        ) from error
