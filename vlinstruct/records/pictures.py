"""Where a record's picture is: a path, a URL or a table's own, in any of the spellings that people's files have.

"image": "a.png"   ["a.png"]   {"path": "a.png", "bytes": null}     LLaVA, LAVIS, lists of one, `datasets`
"images": ["a.png"]   [{"path": "a.png"}]                           ShareGPT, ms-swift, TRL
"file_name": "a.png"                                                an image folder's metadata
"content": [{"type": "image", "image" or "path" or "url": ...}]     messages of transformers
"content": [{"type": "image_url", "image_url": {"url": "a.png"}}]   messages of OpenAI
"video": "a.mp4"   "audio": "a.wav"                                 and lists of one, where all media are taken
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from vlinstruct.errors import DataError
from vlinstruct.files import PathLike
from vlinstruct.media.fetch import Url
from vlinstruct.media.kinds import kind_by_name
from vlinstruct.records.lines import ItemOptions, UserRecord
from vlinstruct.records.tables import TablePicture

Picture = Path | Url | TablePicture

_IN_PARTS = ("image", "path", "url", "image_url")
_CLIPS_AND_SOUNDS = ("video", "videos", "audio", "audios")
_IN_STRUCTS = ("path", "url")
_AS_FILE = "Save it as a file, and name that; or as bytes in a parquet table"
# What JPEG, PNG, GIF, WebP and TIFF begin with; a path may begin so, but no name of a file is that long.
_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkqA", "TU0AK")
_LONGER_THAN_A_NAME = 300


@dataclass(frozen=True, kw_only=True)
class _Naming:
    """What a record names its picture by: the field, and what stands there."""

    field: str
    value: object


def picture_of(
    record: UserRecord, root: PathLike, options: ItemOptions, *, is_metadata: bool, takes_all: bool = False
) -> Picture | None:
    """Returns where a record's picture is; None where it names none, as LLaVA's mix has 40,688.

    Args:
        record: any.
        root: the folder that a path starts from.
        options: whether a URL, or a path that leads out of that folder, is accepted.
        is_metadata: the picture is `file_name` where both it and `image` are there.
        takes_all: a clip or a sound is as good as a picture.

    Raises:
        DataError: it names several, or one that cannot be used.
    """
    naming = _naming(record, is_metadata=is_metadata, takes_all=takes_all)
    value = naming.value
    if isinstance(value, list):
        if len(value) > 1:
            why = f"it is a record of several pictures ({len(value)} in '{naming.field}'), one picture is expected"
            raise record.error(why, advice="Keep one of them, or make a record for each")
        value = value[0] if value else None
    if isinstance(value, dict):
        value = _of_struct(value, naming.field, record)
    if value is None or value == "":
        return None
    if isinstance(value, TablePicture):
        return value
    if not isinstance(value, str):
        raise record.error(f"field '{naming.field}' names no picture, it is {_kind(value)}")
    if value.lower().startswith("data:"):
        why = f"its picture stands in '{naming.field}' as a base64 data: URL, the format of requests to a served model"
        raise record.error(why, code="url_refused", advice=_AS_FILE)
    if len(value) > _LONGER_THAN_A_NAME and value.startswith(_BASE64_STARTS):
        raise record.error(f"its picture stands in '{naming.field}' as base64 text", advice=_AS_FILE)
    return record.image_place(_path(value), root, options)


def no_picture(record: UserRecord, *, is_metadata: bool, advice: str) -> DataError:
    """Returns the error of a record without a picture.

    Args:
        record: the record.
        is_metadata: as in `picture_of`.
        advice: what to do where the picture does not seem to stand in another field.
    """
    field = _naming(record, is_metadata=is_metadata).field
    others = [
        name
        for name, value in record.fields.items()
        if isinstance(value, TablePicture) or (isinstance(value, str) and kind_by_name(value.strip()) is not None)
    ]
    if others and field not in record.fields:
        advice = f"Is it '{others[0][:40]}'? Then add --columns image={others[0][:40]}"
    if field in record.fields:
        return record.error(f"field '{field}' holds no picture", advice=advice)
    return record.error(f"field '{field}' is missing", code="missing_field", advice=advice)


def _naming(record: UserRecord, *, is_metadata: bool, takes_all: bool = False) -> _Naming:
    fields = record.fields
    # `file_name` is Hugging Face's word in metadata; tables that people write have `image` there, too.
    order: tuple[str, ...] = ("file_name", "image", "images") if is_metadata else ("image", "images", "file_name")
    if takes_all:
        order += _CLIPS_AND_SOUNDS
    if name := next((name for name in order if name in fields), None):
        return _Naming(field=name, value=fields[name])
    parts = list(_in_messages(fields, (*_IN_PARTS, *_CLIPS_AND_SOUNDS) if takes_all else _IN_PARTS))
    return (
        _Naming(field=parts[0].field, value=[part.value for part in parts])
        if parts
        else _Naming(field=order[0], value=None)
    )


def _in_messages(fields: Mapping[str, object], names: Sequence[str]) -> Iterator[_Naming]:
    """Yields the pictures that stand in the parts of messages; a part that only marks a place names none."""
    messages = [fields.get(name) for name in ("messages", "conversations", "prompt")]
    for message in [entry for entries in messages if isinstance(entries, list) for entry in entries]:
        content = message.get("content", message.get("value")) if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            for name in names if isinstance(part, dict) else ():
                if part.get(name) is not None:
                    yield _Naming(field=name, value=part[name])
                    break


def _of_struct(struct: Mapping[str, object], field: str, record: UserRecord) -> object:
    if struct.get("bytes") is not None:
        raise record.error(f"'{field}' holds the picture itself as text", advice=_AS_FILE)
    name = next((name for name in _IN_STRUCTS if struct.get(name) is not None), None)
    if name is None and struct.keys() & {"bytes", *_IN_STRUCTS}:
        return None
    if name is None:
        raise record.error(f"field '{field}' names no picture, it has neither 'path' nor 'url'")
    return struct[name]


def _path(text: str) -> str:
    """Returns the path of a file: URL; the text itself where it is none.

    >>> _path("file://img/a%20b.png"), _path("file:///img/0.png"), _path("img/a%20b.png")
    ('img/a b.png', '/img/0.png', 'img/a%20b.png')
    """
    if not text.lower().startswith("file:"):
        return text
    place = text[len("file:") :].removeprefix("//")
    return unquote(place.removeprefix("localhost") if place.startswith("localhost/") else place)


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return kinds.get(type(value), "no text")
