"""Tells what a file is from its first bytes: one of the six formats we read, or a name for what it is in place of one.

Reads: JPEG, PNG, WebP, GIF, BMP, TIFF. Everything else is refused before a decoder sees it, so that no rarely used one
(and no Ghostscript) ever runs on a stranger's bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

ImageFormat = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
FORMAT_NAMES = "JPEG, PNG, WebP, GIF, BMP or TIFF"

_CONVERT = f"Convert it to {FORMAT_NAMES}"
_LOOK = "Look at the file: a download may have failed"

_FORMATS: tuple[tuple[bytes, ImageFormat], ...] = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"BM", "BMP"),
)

_OTHERS: tuple[tuple[bytes, str, str, str], ...] = (
    (rb"version https://git-lfs", "lfs_pointer", "it is a Git LFS pointer", "Run git lfs pull"),
    (rb"\s*(<!doctype html|<html|<head|<body)", "html", "not an image (looks like HTML)", _LOOK),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", "format", "SVG", _CONVERT),
    (rb"\s*<", "text", "not an image (looks like XML)", _LOOK),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "format", "PostScript", _CONVERT),
    (rb"%PDF", "format", "PDF", _CONVERT),
    (rb"8BPS", "format", "Photoshop", _CONVERT),
    (rb"SIMPLE  =", "format", "FITS", _CONVERT),
    (rb"DDS ", "format", "DDS", _CONVERT),
    (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ", "format", "JPEG 2000", _CONVERT),
    (rb"....ftyp(avif|avis)", "format", "AVIF", _CONVERT),
    (rb"....ftyp(hei|hev|mif|msf)", "format", "HEIF", _CONVERT),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI", "format", "video", "Extract a frame of it"),
    (rb"\0\0[\x01\x02]\0", "format", "icon", _CONVERT),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "format", "JPEG XL", _CONVERT),
    (rb"\xd0\xcf\x11\xe0", "format", "OLE (FlashPix or Office)", _CONVERT),
    (rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf", "format", "an archive", "Unpack it first"),
    (rb"P[1-7]\s", "format", "PNM", _CONVERT),
    (rb"[\t\n\r\x20-\x7e]{16}|[\t\n\r\x20-\x7e]+\Z", "text", "not an image (looks like text)", _LOOK),
)
_UNKNOWN = ("unreadable", "not a readable image", f"Give a {FORMAT_NAMES} file")

_HEAD_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class NoImage:
    """What a file is that is none of our formats: the end of an error's code, the reason and the advice."""

    code: str
    why: str
    advice: str


def identify(content: bytes) -> ImageFormat | NoImage:
    """Returns the format that the first bytes announce, whatever the file's name says.

    >>> identify(b"GIF89a...")
    'GIF'
    >>> identify(b"%PDF-1.7").why
    'its format is PDF'
    """
    head = content[:_HEAD_BYTES]
    for pattern, name in _FORMATS:
        if re.match(pattern, head, re.DOTALL):
            return name
    for pattern, code, why, advice in _OTHERS:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return NoImage(code=code, why=f"its format is {why}" if code == "format" else why, advice=advice)
    code, why, advice = _UNKNOWN
    return NoImage(code=code, why=why, advice=advice)


def lacks_its_end(content: bytes, image_format: ImageFormat) -> bool:
    """Says whether a file that did not decode was cut off: its end marker is missing, or bytes that it announces are.

    TIFF has neither, its parts may lie in any order: False.
    """
    match image_format:
        case "JPEG":
            return b"\xff\xd9" not in content
        case "PNG":
            return b"IEND" not in content
        case "GIF":
            return not content.rstrip(b"\0").endswith(b";")
        case "WEBP":
            return int.from_bytes(content[4:8], "little") + 8 > len(content)
        case "BMP":
            return int.from_bytes(content[2:6], "little") > len(content)
        case "TIFF":
            return False
