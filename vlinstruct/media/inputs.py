"""Turns what a user typed for IMAGE into an ordered list of pictures to read.

Typed is a file, a folder, a quoted glob, `-` (the picture's bytes on stdin) or an http(s) URL, or several of them.
Order: as typed; within a folder or glob by the bytes of the names, which no locale changes. Nothing is decoded here.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

from vlinstruct.errors import InputError, NetworkError, printable
from vlinstruct.files import PathLike, refusal, too_many_bytes
from vlinstruct.media.fetch import Url, fetch
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLimits, LoadedImage, load_image
from vlinstruct.media.kinds import kind_by_name
from vlinstruct.media.load import LoadedMedium, MediaSettings, is_readable, load_medium
from vlinstruct.values import Abilities, MediaKind

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

MAX_STDIN_BYTES = DEFAULT_LIMITS.max_bytes
_NO_MEDIUM = "files without the extension of an image, a clip or a sound"
_EXTRAS = {"clip": "video", "sound": "audio"}
_JUNK = frozenset({"thumbs.db", "desktop.ini"})
_SCHEME = re.compile(r"(data):|([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


class StoredPicture(Protocol):
    """A picture in a file of other things, e.g. a table; its bytes are read when they are needed."""

    @property
    def file(self) -> Path:
        """The file that it is in."""
        ...

    def content(self) -> bytes:
        """Returns its bytes, or raises an InputError."""
        ...


Source: TypeAlias = "Path | str | Url | bytes | StoredPicture | Image.Image | NDArray[Any]"


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """One picture to read.

    Args:
        id: the path as typed, for a folder's pictures joined to it; a URL without its password; `-` for stdin. Unique.
        source: where its bytes are.
    """

    id: str
    source: Source


@dataclass(frozen=True, kw_only=True)
class ImageInputs:
    """All pictures to read, in order.

    Args:
        items: at least one.
        is_batch: more than one picture, or a folder or glob was typed (which may hold only one).
        notices: what was skipped, with counts.
    """

    items: tuple[ImageInput, ...]
    is_batch: bool
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ListingOptions:
    """How typed images are listed.

    Args:
        recursive: enter the subfolders of a folder.
        follow_symlinks: follow links that lead out of a folder.
        offline: refuse URLs.
        kinds: of a folder's files, those that are listed.
    """

    recursive: bool = False
    follow_symlinks: bool = False
    offline: bool = False
    kinds: frozenset[MediaKind] = frozenset({"picture"})


ALL_KINDS: frozenset[MediaKind] = frozenset({"picture", "clip", "sound"})
DEFAULT_LISTING = ListingOptions()


def list_images(
    typed: Sequence[PathLike], *, stdin: BinaryIO | None = None, options: ListingOptions = DEFAULT_LISTING
) -> ImageInputs:
    """Lists the pictures that a user means.

    Args:
        typed: what was typed, in order.
        stdin: the stream that `-` stands for.
        options: how folders, links and URLs are treated.

    Raises:
        InputError: nothing to do (`nothing_to_do`), or a URL of another scheme (`url_scheme`, `data_url`).
        ImageError: a folder cannot be listed, or stdin is empty or too large.
        NetworkError: a URL was typed with `offline`.
    """
    skipped: Counter[str] = Counter()
    items: dict[str, ImageInput] = {}
    for text in [os.fspath(path) for path in typed]:
        expanded = list(_expand(text, stdin, options, skipped))
        if not expanded:
            raise _nothing_to_do(text, skipped)
        for item in expanded:
            skipped["named twice"] += item.id in items
            items.setdefault(item.id, item)
    if not items:
        raise _nothing_to_do("IMAGE", skipped)
    is_batch = len(items) > 1 or any(_is_many(os.fspath(text)) for text in typed)
    return ImageInputs(items=tuple(items.values()), is_batch=is_batch, notices=_notices(skipped))


def load_source(source: Source, *, name: str | None = None, limits: ImageLimits = DEFAULT_LIMITS) -> LoadedImage:
    """Reads a picture from wherever it is, fetching it if it is a URL.

    Args:
        source: a path, a URL, the picture's bytes, what gives them, or the picture itself.
        name: what messages call it; a URL names itself.
        limits: how large it may be.

    Raises:
        ImageError: it cannot be read, or there is nothing at its URL.
        NetworkError: it cannot be fetched.
    """
    if isinstance(source, Url):
        return load_image(fetch(source), name=source.short_name, limits=limits)
    content = source.content() if hasattr(source, "content") else source
    return load_image(content, name=name, limits=limits)


def load_medium_of(
    source: Source,
    *,
    name: str | None = None,
    settings: MediaSettings = MediaSettings(),
    abilities: Callable[[], Abilities | None] = lambda: None,
) -> LoadedMedium:
    """Reads a picture, a clip or a sound from wherever it is; the arguments are those of `load_medium`.

    Raises:
        InputError: it cannot be read, there is nothing at its URL, or it is not taken.
        NetworkError: it cannot be fetched.
        ResourceError: the package that reads it is not installed.
    """
    if isinstance(source, Url):
        return load_medium(fetch(source), name=source.short_name, settings=settings, abilities=abilities)
    content = source.content() if hasattr(source, "content") else source
    return load_medium(content, name=name, settings=settings, abilities=abilities)


def _expand(text: str, stdin: BinaryIO | None, options: ListingOptions, skipped: Counter[str]) -> Iterable[ImageInput]:
    if text == "-":
        return [ImageInput(id="-", source=_read_stdin(stdin))]
    if not text:  # pathlib would take it for the working folder
        raise refusal("image", "IMAGE", "missing", "the path is empty", "Type a file, a folder or a URL")
    if os.path.isdir(text):
        return _in_folder(text, options, skipped)
    if os.path.lexists(text):
        return [ImageInput(id=text, source=Path(text))]
    if match := _SCHEME.match(text):
        return [_from_url(text, (match[1] or match[2]).lower(), options)]
    return _in_glob(text, skipped) if glob.has_magic(text) else [ImageInput(id=text, source=Path(text))]


def _is_many(text: str) -> bool:
    is_glob = glob.has_magic(text) and not os.path.lexists(text) and not _SCHEME.match(text)
    return os.path.isdir(text) or is_glob


def _read_stdin(stdin: BinaryIO | None) -> bytes:
    if stdin is None or stdin.isatty():
        why = "nothing is piped in"
        raise refusal("image", "-", "no_stdin", why, "Pipe an image in, e.g. cat a.jpg | vlinstruct ask - QUESTION")
    content = stdin.read(MAX_STDIN_BYTES + 1)
    if len(content) > MAX_STDIN_BYTES:
        raise too_many_bytes("image", "-", None, MAX_STDIN_BYTES)
    if not content:
        raise refusal("image", "-", "empty", "stdin is empty", "Check the command before the pipe")
    return content


def _from_url(text: str, scheme: str, options: ListingOptions) -> ImageInput:
    if scheme == "data":
        why = "data: URLs are not read"
        raise InputError.at("cannot read image", text[:30], why, "Save it to a file", code="data_url")
    if scheme not in ("http", "https"):
        why = f"{scheme}: URLs are not read"
        raise InputError.at("cannot read image", scheme + "://", why, "Name a file", code="url_scheme")
    url = Url(address=text, is_typed=True)
    if options.offline:
        why = "--offline forbids fetching"
        raise NetworkError.at(
            "cannot fetch image", url.short_name, why, "Download it first and name the file", code="url_offline"
        )
    return ImageInput(id=url.name, source=url)


def _in_glob(pattern: str, skipped: Counter[str]) -> Iterator[ImageInput]:
    # As the shell would: whatever matches, whatever it is called; only folders are left out.
    for path in sorted(set(_matches(pattern)), key=os.fsencode):
        if os.path.isdir(path):
            skipped["folders"] += 1
        else:
            yield ImageInput(id=path, source=Path(path))


def _matches(pattern: str) -> Iterator[str]:
    """Yields what a glob matches, as `glob` does, but `**` enters no folder through a link.

    Two links of a folder to itself have 2^40 paths within forty steps, and glob walks all of them.
    """
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    place = parts.index("**")
    head, rest = os.sep.join(parts[:place]), os.sep.join(parts[place + 1 :]) or "*"
    tops = glob.iglob(head) if head else [os.sep if place else ""]
    for top in tops:
        for folder, names, _ in os.walk(top or os.curdir):
            names[:] = [name for name in names if not name.startswith(".")]
            inside = folder if top else os.path.relpath(folder).removeprefix(os.curdir)
            yield from _matches(os.path.join(glob.escape(inside), rest))


def _in_folder(folder: str, options: ListingOptions, skipped: Counter[str]) -> Iterator[ImageInput]:
    root = os.path.realpath(folder)
    pending, entered = [folder], {root}
    while pending:
        subfolders = []
        for entry in _sorted_entries(pending.pop()):
            if reason := _reason_to_skip(entry, root, options):
                skipped[reason] += 1
            elif not _is_folder(entry):
                yield ImageInput(id=entry.path, source=Path(entry.path))
            elif (real := os.path.realpath(entry.path)) not in entered:  # a link to a folder above would never end
                entered.add(real)
                subfolders.append(entry.path)
        pending.extend(reversed(subfolders))


def _sorted_entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        why = "the folder cannot be listed"
        raise refusal("image", folder, "permission", why, "Check the folder's permissions") from error


def _reason_to_skip(entry: os.DirEntry[str], root: str, options: ListingOptions) -> str:
    if entry.name.startswith(".") or entry.name.lower() in _JUNK:
        return "hidden or system files"
    if entry.is_symlink() and not options.follow_symlinks and not _is_within(entry.path, root):
        return "links that lead out of the folder (--follow-symlinks)"
    if _is_folder(entry):
        return "" if options.recursive else "subfolders (--recursive)"
    kind = kind_by_name(entry.name)
    if kind not in options.kinds:
        return "files without an image extension" if options.kinds == {"picture"} else _NO_MEDIUM
    # Of a folder of pictures a clip is left out where it cannot be read; one that is typed is an error.
    return "" if is_readable(kind) else f"{kind}s, which need vlinstruct[{_EXTRAS[kind]}]"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links: kept as a file, so that reading it names the loop
        return False


def _is_within(path: str, root: str) -> bool:
    return os.path.realpath(path).startswith(os.path.join(root, ""))


def _notices(skipped: Counter[str]) -> tuple[str, ...]:
    return tuple(f"{count} skipped: {reason}" for reason, count in sorted(skipped.items()) if count)


def _nothing_to_do(text: str, skipped: Counter[str]) -> InputError:
    why = "; ".join(("nothing to do, no image found", *_notices(skipped)))
    return InputError.at("cannot list images", printable(text), why, "Check the path", code="nothing_to_do")
