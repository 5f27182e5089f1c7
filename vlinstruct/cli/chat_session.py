"""A chat's turns: takes lines, asks questions, runs commands and prints what becomes of them.

What is typed is a conversation: an error is said and the chat goes on. What is piped in is data, so stdout has one line
for each question whatever happens, and the command fails at the end if a line failed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from vlinstruct.cli.asked import asked
from vlinstruct.cli.chat_input import ChatLine, Picture, read_picture, unquoted_path
from vlinstruct.cli.options import ModelOptions
from vlinstruct.cli.terminal import Talk, ctrl_c_interrupts, print_to_stderr, say, show, show_piece, show_record
from vlinstruct.doubts import doubts
from vlinstruct.errors import BatchError, InputError, NetworkError, VlinstructError
from vlinstruct.operations import empty_answer_notice, turn_fields
from vlinstruct.text import is_blank

if TYPE_CHECKING:
    from vlinstruct.chat import Chat, ChatSettings
    from vlinstruct.model import Model
    from vlinstruct.operations import Fields

_SCHEMA = "vlinstruct.chat/1"
_COMMANDS = (
    "Commands are /optimize [TEXT], /image PATH, /reset, /help, /quit; a question that begins with / is typed with //"
)
_HELP = """\
/optimize [TEXT]  show a better way to ask TEXT, or the last question
/image PATH       switch to another picture and start over
/reset            forget the conversation so far
/help             show this
/quit             end the chat, as Ctrl-D does; Ctrl-C stops an answer
//...             a question that begins with /"""


class Session:
    """Takes lines, questions and commands, and prints what becomes of them.

    Attributes:
        is_typed: somebody types the lines and sees what becomes of each; else they are piped in.
        is_streaming: answers are shown while they are written.
    """

    chat: Chat
    image: str

    def __init__(self, model: Model, settings: ChatSettings, *, options: ModelOptions, talk: Talk) -> None:
        self.model = model
        self.settings = settings
        self.options = options
        self.talk = talk
        self.is_typed = sys.stdin is not None and sys.stdin.isatty()
        self.is_streaming = sys.stdout.isatty() and not options.as_json
        self.num_turns = self.num_commands = self.num_failed = 0

    def look_at(self, picture: Picture) -> None:
        """Begins a chat about a picture."""
        from vlinstruct.chat import Chat

        self.chat, self.image = Chat(self.model, picture.medium, settings=self.settings), picture.name

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
        if line.command:
            self.num_commands += 1
            id = f"command-{self.num_commands}"
        else:
            self.num_turns += 1
            id = f"turn-{self.num_turns}"
        chat, turns = self.chat, self.chat.turns
        try:
            with ctrl_c_interrupts() if self.is_typed else nullcontext():
                if line.command:
                    self._obey(line, id)
                else:
                    self._ask(line, id)
        except KeyboardInterrupt:
            # Ctrl-C may come when the turn is kept already and only its printing was stopped.
            chat.turns = turns
            print_to_stderr()
            self.talk.notice(f"stopped: {id} is not kept.")
        except (InputError, NetworkError) as error:
            self._fail(error, line, id)

    def _ask(self, line: ChatLine, id: str) -> None:
        if line.error is not None:
            raise line.error
        for piece in self.chat.stream(line.text):
            if self.is_streaming:
                show_piece(piece)
        if self.is_streaming:
            show_piece("\n")  # before what is said of the answer, which would stand in its line
        turn = self.chat.turns[-1]
        doubtful = doubts(self.model, self.chat.seen, turn.answer)
        fields = turn_fields(turn, doubtful)
        self._say(doubtful)
        if turn.answer.optimization is not None:
            self._say(turn.answer.optimization.notices)
        if is_blank(turn.answer.text):
            self.talk.notice(f"{id}: {empty_answer_notice(turn.answer)}")
        if "optimization" in fields and not self.options.as_json:
            self.talk.asked(asked(fields["optimization"]))
        if self.options.as_json:
            self._write_record(_SCHEMA, id, fields)
        elif not self.is_streaming:
            show(turn.answer.text.replace("\n", "\\n"))  # one line of stdout per line of stdin

    def _obey(self, line: ChatLine, id: str) -> None:
        match line.command, bool(line.text):
            case "/optimize", _:
                self._optimize(line.text or None, id)
            case "/image", True:
                self._change_picture(line.text)
            case "/reset", False:
                self.talk.done(f"turns forgotten: {len(self.chat.turns)}.")
                self.chat.reset()
            case "/help", False:
                print_to_stderr(_HELP)
            case _:
                typed = f"{line.command} {line.text}".strip()
                raise InputError.at("cannot do", typed, "there is no such command", _COMMANDS, code="unknown_command")

    def _optimize(self, text: str | None, id: str) -> None:
        from vlinstruct.cli.optimize import render_optimization
        from vlinstruct.operations import Optimize, optimization_fields

        fields = optimization_fields(self.chat.optimize(text))
        self._say(fields.get("notices", ()))
        if self.options.as_json:
            self._write_record(Optimize.schema, id, fields)
        else:
            show(render_optimization(fields))

    def _change_picture(self, path: str) -> None:
        num_turns = len(self.chat.turns)
        self.look_at(
            read_picture(
                unquoted_path(path),
                self.options,
                self.talk,
                abilities=lambda: self.model.backend.abilities,
                may_fetch=self.is_typed,
            )
        )
        self.talk.done(f"now talking about {self.image}. Turns forgotten: {num_turns}.")

    def _fail(self, error: VlinstructError, line: ChatLine, id: str) -> None:
        from vlinstruct.records.output import error_record

        self.num_failed += 1
        if self.options.as_json:
            show_record(error_record(_SCHEMA, id, error))
        if line.command == "/image" and not self.is_typed:
            raise error  # the questions that follow mean the picture that cannot be read
        if not self.options.as_json:
            say("error", error.message)
            if not self.is_typed and not line.command:
                show("")  # keeps the lines of stdout beside those of stdin

    def _say(self, notices: Iterable[str]) -> None:
        for notice in notices:
            self.talk.notice(notice)

    def _write_record(self, schema: str, id: str, fields: Fields) -> None:
        from vlinstruct.backends.registry import default_backbone

        backbone = self.options.backbone or default_backbone()
        # The backbone as it was typed, not the folder that it was found in: records name it as a batch's do.
        head = {"schema": schema, "id": id, "status": "ok", "image": self.image, "backbone": backbone}
        show_record({**head, **fields})
