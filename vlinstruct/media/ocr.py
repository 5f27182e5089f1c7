"""Reads the text in pictures with an OCR library: how models of this class, which see 224 pixels, read real scenes.

Source: RapidOCR (PP-OCR models as ONNX; they come with the package, nothing is downloaded).
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any

from PIL import Image

from vlinstruct.errors import not_installed

MAX_TOKENS = 30  # LAVIS shows TextVQA's first 30
_LIBRARY, _LIBRARY_LOGGER = "rapidocr", "RapidOCR"


def ocr_tokens(image: Image.Image) -> tuple[str, ...]:
    """Returns the words in a picture, in the order in which they are read, MAX_TOKENS at most.

    Args:
        image: RGB, of any size.

    Raises:
        ResourceError: the library is not installed.
    """
    lines = _reader()(_as_array(image)).txts or ()
    return tuple(word for line in lines for word in line.split())[:MAX_TOKENS]


def require_ocr() -> None:
    """Makes sure that pictures can be read, before a model is loaded.

    Raises:
        ResourceError: the library is not installed.
    """
    _reader()


def ocr_library() -> str:
    """Returns what reads, with its version; it is installed."""
    return f"{_LIBRARY} {version(_LIBRARY)}"


@cache
def _reader() -> Any:
    library = _import(_LIBRARY)
    _import("onnxruntime")  # rapidocr does without until the first picture
    reader = library.RapidOCR(params={"Global.log_level": "error"})
    logging.getLogger(_LIBRARY_LOGGER).setLevel(logging.ERROR)  # it says where its files lie, on every start
    return reader


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise not_installed("--ocr", name, "ocr") from None


def _as_array(image: Image.Image) -> Any:
    import numpy as np

    return np.asarray(image.convert("RGB"))[:, :, ::-1]  # OpenCV's order of colours
