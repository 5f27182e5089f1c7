"""A chat's turns: takes lines, asks questions, runs commands and prints what becomes of them.

What is typed is a conversation: an error is said and the chat goes on. What is piped in is data, so stdout has one line
for each question whatever happens, and the command fails at the end if a line failed.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from vlinstruct.cli.asked import asked
from vlinstruct.cli.chat_file import SCHEMA, Conversation, read_conversations, save, turn_record
from vlinstruct.cli.chat_input import ChatLine, Picture, read_picture, unquoted_path
from vlinstruct.cli.options import ModelOptions
from vlinstruct.cli.terminal import Talk, ctrl_c_interrupts, print_to_stderr, say, show, show_piece, show_record
from vlinstruct.doubts import doubts
from vlinstruct.errors import (
    BatchError,
    InputError,
    NetworkError,
    ResourceError,
    VlinstructError,
    counted,
    printable,
    shortened,
)
from vlinstruct.operations import empty_answer_notice, turn_fields
from vlinstruct.text import is_blank

if TYPE_CHECKING:
    from vlinstruct.chat import Chat, ChatSettings
    from vlinstruct.model import Model
    from vlinstruct.operations import Fields

_COMMANDS = (
    "Commands are /optimize [TEXT], /use, /image [PATH], /save FILE, /load FILE, /reset, /help, /quit; a question that "
    "begins with / is typed with //"
)
_HELP = (
    ("/optimize [TEXT]", "show a better way to ask TEXT, or the last question"),
    ("/use", "ask what /optimize found"),
    ("/image PATH", "talk about another picture, from the start"),
    ("/image", "list the pictures and their conversations"),
    ("/image NUMBER", "go back to one of them"),
    ("/save FILE", "write all conversations to a file; /save --overwrite FILE replaces one"),
    ("/load FILE", "bring back conversations that were saved"),
    ("/reset", "forget this conversation"),
    ("/help", "show this"),
    ("/quit", "end the chat, as exit, Ctrl-D and Ctrl-C twice do"),
    ("Ctrl-C", "stop an answer; clear the line"),
    ("Tab", "complete a command or a path"),
    ("//...", "a question that begins with /"),
)
_OVERWRITE = "--overwrite "
_MAX_QUOTED = 200
_WIDE_COLUMNS = 60  # from here on help stands in two columns


class Session:
    """Takes lines, questions and commands, and prints what becomes of them.

    Attributes:
        is_typed: somebody types the lines and sees what becomes of each; else they are piped in.
        is_streaming: answers are shown while they are written.
        conversations: one for each picture that was looked at, in order.
        number: which of them goes on, from 1.
    """

    def __init__(self, model: Model, settings: ChatSettings, *, options: ModelOptions, talk: Talk) -> None:
        self.model = model
        self.settings = settings
        self.options = options
        self.talk = talk
        self.is_typed = sys.stdin is not None and sys.stdin.isatty()
        self.is_streaming = sys.stdout.isatty() and not options.as_json
        self.conversations: list[Conversation] = []
        self.number = 0
        self.num_turns = self.num_commands = self.num_failed = 0
        self.own_files: set[str] = set()  # written or read here: writing them again loses nothing

    @property
    def current(self) -> Conversation:
        """The conversation that goes on."""
        return self.conversations[self.number - 1]

    @property
    def backbone(self) -> str:
        """The model as it was typed, not the folder that it was found in."""
        from vlinstruct.backends.registry import default_backbone

        return self.options.backbone or default_backbone()

    def look_at(self, picture: Picture) -> None:
        """Begins a conversation about a picture."""
        self._go_on_with([Conversation(image=picture.name, chat=self._chat(picture))])

    def run(self, lines: Iterable[ChatLine]) -> None:
        """Takes lines until they end or one says `/quit`.

        Raises:
            BatchError: lines were piped in and some of them failed.
        """
        for line in lines:
            if line == ChatLine(command="/quit"):
                break
            self._take(line)
        if self.num_failed and not self.is_typed:
            raise BatchError(f"{self.num_failed} of {self.num_turns + self.num_commands} lines failed.")

    def _take(self, line: ChatLine) -> None:
        # Commands are counted apart: turn-2 is the second question, whatever was looked up between.
        if _is_asked(line):
            self.num_turns += 1
            id = f"turn-{self.num_turns}"
        else:
            self.num_commands += 1
            id = f"command-{self.num_commands}"
        chat, turns = self.current.chat, self.current.chat.turns
        try:
            with ctrl_c_interrupts() if self.is_typed else nullcontext():
                if line.command:
                    self._obey(line, id)
                elif line.error is not None:
                    raise line.error
                else:
                    self._ask(line.text, id)
        except KeyboardInterrupt:
            # Ctrl-C may come when the turn is kept already and only its printing was stopped.
            chat.turns = turns
            print_to_stderr()
            self.talk.notice(f"stopped: {id} is not kept.")
        except (InputError, NetworkError, ResourceError) as error:
            self._fail(error, line, id)

    def _ask(self, question: str, id: str, *, verbatim: bool = False) -> None:
        chat = self.current.chat
        for piece in chat.stream(question, verbatim=verbatim):
            if self.is_streaming:
                show_piece(piece)
        if self.is_streaming:
            show_piece("\n")  # before what is said of the answer, which would stand in its line
        turn = chat.turns[-1]
        doubtful = doubts(self.model, chat.seen, turn.answer)
        fields = turn_fields(turn, doubtful)
        self._say(doubtful)
        if turn.answer.optimization is not None:
            self._say(turn.answer.optimization.notices)
        if is_blank(turn.answer.text):
            self.talk.notice(f"{id}: {empty_answer_notice(turn.answer)}")
        if not self.options.as_json and (verbatim or "instruction" in fields or "optimization" in fields):
            self.talk.asked(_asked(fields))
        if self.options.as_json:
            show_record(turn_record(id, self.current.image, self.backbone, fields))
        elif not self.is_streaming:
            show(turn.answer.text.replace("\n", "\\n"))  # one line of stdout per line of stdin

    def _obey(self, line: ChatLine, id: str) -> None:
        match line.command, bool(line.text):
            case "/optimize", _:
                self._optimize(line.text or None, id)
            case "/use", False:
                if self.current.found is None:
                    why = "nothing was optimized yet"
                    raise InputError.at("cannot do", "/use", why, "Type /optimize first", code="no_optimization")
                self._ask(self.current.found, id, verbatim=True)
            case "/image", True:
                self._change_picture(line.text)
            case "/image", False:
                for number, conversation in enumerate(self.conversations, start=1):
                    mark = "*" if number == self.number else " "
                    print_to_stderr(printable(f"{mark} {number}  {conversation}"))
            case "/save", True:
                self._save(line.text)
            case "/load", True:
                self._load(unquoted_path(line.text))
            case "/reset", False:
                chat = self.current.chat
                self.talk.done(f"turns forgotten: {len(chat.turns)}.")
                chat.reset()
                self.current.found = None
            case "/help", False:
                print_to_stderr(_help())
            case ("/save" | "/load") as command, False:
                why = "a file's name is missing"
                raise InputError.at("cannot do", command, why, f"Type {command} FILE", code="missing_argument")
            case _:
                typed = f"{line.command} {line.text}".strip()
                raise InputError.at("cannot do", typed, "there is no such command", _COMMANDS, code="unknown_command")

    def _optimize(self, text: str | None, id: str) -> None:
        from vlinstruct.cli.optimize import render_optimization
        from vlinstruct.operations import Optimize, optimization_fields

        optimization = self.current.chat.optimize(text)
        self.current.found = optimization.instruction
        fields = optimization_fields(optimization)
        self._say(fields.get("notices", ()))
        if self.options.as_json:
            show_record(turn_record(id, self.current.image, self.backbone, fields, schema=Optimize.schema))
        else:
            show(render_optimization(fields))

    def _change_picture(self, typed: str) -> None:
        if typed.isdecimal() and typed.isascii() and int(typed) in range(1, len(self.conversations) + 1):
            self.number = int(typed)
            self.talk.done(f"back at {self.current}.")
            return
        before = self.number
        self.look_at(self._read(unquoted_path(typed), may_fetch=self.is_typed))
        self.talk.done(f"now talking about {self.current.image}. /image {before} goes back.")

    def _save(self, typed: str) -> None:
        is_forced = typed.startswith(_OVERWRITE)
        name = unquoted_path(typed.removeprefix(_OVERWRITE).strip())
        is_there, place = os.path.exists(name), os.path.realpath(name)
        # Piped lines may come from a file of strangers.
        if is_forced and not self.is_typed:
            why = "files are replaced only if that is typed, not if it is piped in"
            raise InputError.at("cannot save", name, why, "Name another file", code="output_exists")
        may_replace = is_forced or place in self.own_files
        num_turns = save(name, self.conversations, backbone=self.backbone, may_replace=may_replace)
        self.own_files.add(place)
        self.talk.done(f"{counted(num_turns, 'turn')} saved to {name}{', which was replaced' if is_there else ''}.")

    def _load(self, name: str) -> None:
        saved = read_conversations(name)
        others = sorted({backbone for conversation in saved for backbone in conversation.backbones} - {self.backbone})
        conversations = []
        for conversation in saved:
            image = conversation.image
            beside = os.path.join(os.path.dirname(name), image)
            if not os.path.exists(image) and os.path.exists(beside):
                image = beside
            # A file may be a stranger's, as piped lines may: nothing that it names is fetched.
            chat = self._chat(self._read(image, may_fetch=False))
            chat.turns = tuple(conversation.turns)
            chat.question = chat.turns[-1].answer.instruction
            conversations.append(Conversation(image=image, chat=chat))
        self._go_on_with(conversations)
        if self.is_typed:
            self.own_files.add(os.path.realpath(name))
        if others:
            self.talk.notice(f"it was held with {', '.join(others)} and goes on with {self.backbone}.")
        more = f" and {counted(len(saved) - 1, 'more conversation')} (/image lists them)" if len(saved) > 1 else ""
        self.talk.done(f"loaded {self.current}{more}.")

    def _read(self, name: str, *, may_fetch: bool) -> Picture:
        return read_picture(
            name, self.options, self.talk, abilities=lambda: self.model.backend.abilities, may_fetch=may_fetch
        )

    def _chat(self, picture: Picture) -> Chat:
        from vlinstruct.chat import Chat

        return Chat(self.model, picture.medium, settings=self.settings)

    def _go_on_with(self, conversations: list[Conversation]) -> None:
        self.conversations += conversations
        self.number = len(self.conversations)

    def _fail(self, error: VlinstructError, line: ChatLine, id: str) -> None:
        from vlinstruct.records.output import error_record

        self.num_failed += 1
        if self.options.as_json:
            show_record(error_record(SCHEMA, id, error))
        if line.command in ("/image", "/load") and not self.is_typed:
            raise error  # the questions that follow mean the picture that cannot be read
        if not self.options.as_json:
            say("error", error.message)
            if not self.is_typed and _is_asked(line):
                show("")  # keeps the lines of stdout beside those of stdin

    def _say(self, notices: Iterable[str]) -> None:
        for notice in notices:
            self.talk.notice(notice)


def _asked(fields: Fields) -> str:
    """Says what was asked where that is not what was typed, or why it is."""
    if "optimization" not in fields:
        return f'"{fields.get("instruction", fields["question"])}"'
    # Of a follow-up that was made whole before it was optimized, it is these words that were left alone.
    initial = fields["optimization"]["initial"]["text"]
    whole = None if initial == fields["question"] else f'"{shortened(initial, _MAX_QUOTED)}"'
    return asked(fields["optimization"], typed=whole or "your words")


def _is_asked(line: ChatLine) -> bool:
    """Says whether a line is to be answered."""
    return not line.command or line == ChatLine(command="/use")


def _help() -> str:
    """Returns what the commands do, in two columns; on a narrow terminal the words stand below their command."""
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 100
    column = 2 + max(len(usage) for usage, _ in _HELP)
    lines = []
    for usage, words in _HELP:
        if width >= _WIDE_COLUMNS:
            head, indent = usage.ljust(column), " " * column
        else:
            head, indent = f"{usage}\n  ", "  "
        lines.append(head + f"\n{indent}".join(textwrap.wrap(words, max(width - len(indent) - 1, 20))))
    return "\n".join(lines)
