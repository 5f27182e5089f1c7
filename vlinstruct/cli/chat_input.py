"""What comes into a chat: its picture, and lines that are typed at a prompt or piped in."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING

from vlinstruct.cli.chat_prompt import Prompt
from vlinstruct.cli.options import ModelOptions
from vlinstruct.cli.terminal import Talk, say
from vlinstruct.errors import InputError, TextError
from vlinstruct.text import is_blank

if TYPE_CHECKING:
    from vlinstruct.values import Abilities, Media

_ENDS = "Ctrl-C again, or Ctrl-D, ends the chat."
_LEAVES = ("exit", "quit")  # as other prompts are left; in a pipe these are questions
_MAX_LINE_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ChatLine:
    """A question, or a command with its argument, or a line that cannot be used.

    Args:
        text: the question, or the command's argument.
        command: with its slash; empty where this is none.
        error: why the line cannot be used.
    """

    text: str = ""
    command: str = ""
    error: TextError | None = None


def typed_lines(talk: Talk) -> Iterator[ChatLine]:
    """Yields what is typed, but for blank lines: pressing Enter asks nothing.

    Ctrl-C clears the line, as in a shell. On an empty line it ends the chat when it comes a second time; Ctrl-D ends it
    at once.
    """
    prompt = Prompt()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a question that is no text is refused as one
    was_empty = False
    while True:
        try:
            line = prompt.read()
        except KeyboardInterrupt:
            if was_empty:
                signal.raise_signal(signal.SIGINT)  # what it does everywhere else: the command ends
            was_empty = not prompt.line
            if was_empty and not talk.quiet:
                say("notice", _ENDS)
            continue
        if line is None or line.strip() in _LEAVES:
            return
        was_empty = False
        if not is_blank(line):
            yield parsed_line(line)


def piped_lines() -> Iterator[ChatLine]:
    """Yields the lines of stdin; one of a megabyte or more cannot be used."""
    stream = sys.stdin.buffer if sys.stdin is not None else BytesIO()
    while line := stream.readline(_MAX_LINE_BYTES + 1):
        rest = line  # of a line that is too long: read on to its end, or it would come as further questions
        while not rest.endswith(b"\n") and (rest := stream.readline(65_536)):
            pass
        if len(line) > _MAX_LINE_BYTES:
            why = f"its line has more than {_MAX_LINE_BYTES:,} bytes"
            yield ChatLine(error=TextError.at("cannot use text", "question", why, "Shorten it", code="text_too_long"))
        else:
            yield parsed_line(line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape"))


def parsed_line(line: str) -> ChatLine:
    r"""Tells commands from questions.

    >>> parsed_line("/image a b.png").text, parsed_line("//etc is what?").text
    ('a b.png', '/etc is what?')
    """
    if not line.startswith("/") or line.startswith("//"):
        return ChatLine(text=line.removeprefix("/"))
    command, _, argument = line.partition(" ")
    return ChatLine(command=command.strip(), text=argument.strip())


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The picture, clip or sound that a chat is about.

    Args:
        name: as it was typed.
        medium: it.
    """

    name: str
    medium: Media


def read_picture(
    typed: str,
    options: ModelOptions,
    talk: Talk,
    *,
    abilities: Callable[[], Abilities | None],
    may_fetch: bool = True,
) -> Picture:
    """Reads the one picture, clip or sound that was typed.

    Args:
        typed: a file or a URL.
        options: how it is read.
        talk: says notices.
        abilities: what the model takes, as far as that is known.
        may_fetch: whether it may be a URL.

    Raises:
        InputError: it cannot be read, may be several, or is a URL that must not be fetched.
        NetworkError: it cannot be fetched.
    """
    from vlinstruct.media.fetch import Url
    from vlinstruct.media.inputs import ListingOptions, list_images, load_medium_of
    from vlinstruct.media.load import MediaSettings, require_readers

    if typed == "-":
        raise _no_picture(typed, "stdin brings the questions", "Name a file")
    inputs = list_images([typed], options=ListingOptions(offline=options.offline))
    if inputs.is_batch:
        raise _no_picture(typed, "this may be several pictures", "Name one")
    (item,) = inputs.items
    # Piped lines may come from a file of strangers, and a fetch tells its server about us.
    if isinstance(item.source, Url) and not may_fetch:
        raise _no_picture(
            item.source.short_name, "URLs are fetched only if typed, not from a pipe or a file", "Name a file"
        )
    require_readers([item.id])
    settings = MediaSettings(images=options.image_limits(), clips=options.clip_settings())
    loaded = load_medium_of(item.source, name=item.id, settings=settings, abilities=abilities)
    for notice in loaded.notices:
        talk.notice(notice)
    return Picture(name=item.id, medium=loaded.medium)


def unquoted_path(typed: str) -> str:
    r"""Returns the path that was typed after a command, without quotes and escapes.

    Terminals paste a file's name as a shell needs it. A file that is called what was typed comes first.

    >>> unquoted_path("'two words.jpg'"), unquoted_path("two\\ words.jpg"), unquoted_path("it's.jpg")
    ('two words.jpg', 'two words.jpg', "it's.jpg")
    """
    path = os.path.expanduser(typed)
    if os.path.lexists(path):
        return path
    if path[:1] in ("'", '"') and path[0] == path[-1] and os.path.lexists(os.path.expanduser(path[1:-1])):
        return os.path.expanduser(path[1:-1])  # a name with such a quote in it
    with suppress(ValueError):  # a quote alone
        words = shlex.split(typed)
        if len(words) == 1:
            return os.path.expanduser(words[0])
    return path


def _no_picture(place: str, why: str, advice: str) -> InputError:
    return InputError.at("cannot chat about", place, why, advice, code="no_picture")
