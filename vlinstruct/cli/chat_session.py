"""A chat's turns: lines are taken, questions asked, commands obeyed, and what becomes of them is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlinstruct.cli.chat_lines import COMMANDS, HELP, ChatLine
from vlinstruct.cli.options import ModelOptions
from vlinstruct.cli.terminal import Talk, ctrl_c_interrupts, say, show, show_piece, show_record
from vlinstruct.errors import BatchError, InputError, NetworkError, VlinstructError

if TYPE_CHECKING:
    from PIL import Image

    from vlinstruct.chat import Chat, ChatSettings
    from vlinstruct.model import Model
    from vlinstruct.operations import Fields

_SCHEMA = "vlinstruct.chat/1"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What a chat is about.

    Args:
        name: as it was typed.
        image: RGB.
    """

    name: str
    image: Image.Image


def read_picture(typed: str, options: ModelOptions, talk: Talk, *, may_fetch: bool = True) -> Picture:
    """Reads the one picture that was typed.

    Raises:
        InputError: it cannot be read, may be several, or is a URL that must not be fetched.
        NetworkError: it cannot be fetched.
    """
    from vlinstruct.media.fetch import Url
    from vlinstruct.media.images import ImageLimits
    from vlinstruct.media.inputs import ListingOptions, list_images, load_input

    if typed == "-":
        raise _no_picture(typed, "stdin brings the questions", "Name a file")
    listed = list_images([typed], options=ListingOptions(offline=options.offline))
    if listed.is_batch:
        raise _no_picture(typed, "it may be several pictures", "Name one")
    (item,) = listed.items
    if isinstance(item.source, Url) and not may_fetch:
        raise _no_picture(item.source.short_name, "URLs are fetched where they are typed, not piped in", "Name a file")
    loaded = load_input(item, limits=ImageLimits(max_pixels=options.max_pixels))
    for notice in loaded.notices:
        talk.notice(notice)
    return Picture(name=item.id, image=loaded.image)


def _no_picture(place: str, why: str, advice: str) -> InputError:
    return InputError.at("cannot chat about", place, why, advice, code="no_picture")


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

        self.chat, self.image = Chat(self.model, picture.image, settings=self.settings), picture.name

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
        id, chat, turns = self._next_id(line), self.chat, self.chat.turns
        try:
            with ctrl_c_interrupts() if self.is_typed else nullcontext():
                self._obey(line, id) if line.command else self._ask(line, id)
        except KeyboardInterrupt:
            chat.turns = turns
            print(file=sys.stderr)
            self.talk.notice(f"stopped: {id} is not kept.")
        except (InputError, NetworkError) as error:
            self._fail(error, line, id)

    def _next_id(self, line: ChatLine) -> str:
        if line.command:
            self.num_commands += 1
            return f"command-{self.num_commands}"
        self.num_turns += 1
        return f"turn-{self.num_turns}"

    def _ask(self, line: ChatLine, id: str) -> None:
        if line.error is not None:
            raise line.error
        for piece in self.chat.stream(line.text):
            if self.is_streaming:
                show_piece(piece)
        turn = self.chat.turns[-1]
        if turn.answer.optimization is not None:
            self._say(turn.answer.optimization.notices)
        if self.options.as_json:
            from vlinstruct.operations import turn_fields

            self._write_record(_SCHEMA, id, turn_fields(turn))
        elif self.is_streaming:
            show_piece("\n")
        else:
            show(turn.answer.text.replace("\n", "\\n"))

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
                print(HELP, file=sys.stderr)
            case _:
                typed = f"{line.command} {line.text}".strip()
                raise InputError.at("cannot do", typed, "this is no command", COMMANDS, code="unknown_command")

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
        self.look_at(read_picture(os.path.expanduser(path), self.options, self.talk, may_fetch=self.is_typed))
        self.talk.done(f"the chat is about {self.image} now. Turns forgotten: {num_turns}.")

    def _fail(self, error: VlinstructError, line: ChatLine, id: str) -> None:
        from vlinstruct.records.output import error_record

        self.num_failed += 1
        if self.options.as_json:
            show_record(error_record(_SCHEMA, id, error))
        if line.command == "/image" and not self.is_typed:
            raise error  # the lines that follow would be asked about another picture
        if not self.options.as_json:
            say("error", error.message)
            if not self.is_typed and not line.command:
                show("")

    def _say(self, notices: Iterable[str]) -> None:
        for notice in notices:
            self.talk.notice(notice)

    def _write_record(self, schema: str, id: str, fields: Fields) -> None:
        from vlinstruct.backends.registry import default_backbone

        backbone = self.options.backbone or default_backbone()
        head = {"schema": schema, "id": id, "status": "ok", "image": self.image, "backbone": backbone}
        show_record({**head, **fields})
