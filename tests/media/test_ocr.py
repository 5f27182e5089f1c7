"""What an OCR library reads becomes tokens; without it, one line says what to install."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, ImageDraw, ImageFont

import vlinstruct.mini
from vlinstruct.errors import ResourceError
from vlinstruct.media import ocr

FONT = Path(vlinstruct.mini.__file__).parent / "test_fonts" / "test-a.ttf"


@pytest.mark.parametrize(
    ("lines", "tokens"),
    [
        (["NO  ENTRY", "here"], ("NO", "ENTRY", "here")),
        ([" ".join("abcdef")] * 6, tuple("abcdef" * 5)),
        ([], ()),
        (None, ()),
    ],
    ids=["words", "30 at most", "none", "no text at all"],
)
def test_lines_become_words(
    lines: Sequence[str] | None, tokens: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ocr, "_reader", lambda: lambda array: SimpleNamespace(txts=lines))
    assert ocr.ocr_tokens(Image.new("RGB", (8, 8))) == tokens


@pytest.mark.parametrize("name", ["rapidocr", "onnxruntime"])
def test_what_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in ("rapidocr", "onnxruntime"):
        monkeypatch.setitem(sys.modules, one, None if one == name else SimpleNamespace())
    ocr._reader.cache_clear()
    with pytest.raises(ResourceError, match=rf"needs {name}, .* pip install 'vlinstruct\[ocr\]'"):
        ocr.require_ocr()


@pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="the extra ocr is not installed")
def test_a_printed_word_is_read() -> None:
    ocr._reader.cache_clear()
    picture = Image.new("RGB", (240, 100), "white")
    ImageDraw.Draw(picture).text((25, 25), "HARBOR", font=ImageFont.truetype(str(FONT), 44), fill="black")
    assert ocr.ocr_tokens(picture) == ("HARBOR",)
    assert ocr.ocr_library().startswith("rapidocr ")
