"""Writes TextVQA's files with a picture per colour, and stands for the OCR library: it reads a picture's colour.

Run by torchrun, it evaluates on them:
PYTHONPATH=tests torchrun --nproc-per-node 2 -m evaluation.benchmarks.printed_pictures evaluate textvqa --ocr ...
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vlinstruct.cli.main import run_command
from vlinstruct.media import ocr

from .hub_copies import dump_parquet, stored
from .official_files import draw, dump

COLOURS = {"00a": "red", "00b": "lime", "00c": "blue"}
IMAGES = ("00a", "00b", "00a", "00c")  # of the four questions, in order
LIBRARY = "stand-in 1.0"

Tokens = Mapping[str, Sequence[str]]


def read_colour(image: Image.Image) -> tuple[str, ...]:
    strengths = image.resize((1, 1)).tobytes()
    return (["RED", "LIME", "BLUE"][strengths.index(max(strengths))], "{ink}")


def questions() -> list[dict[str, Any]]:
    return [
        {"question_id": number, "image_id": image, "question": "What?", "answers": ["ink"] * 10}
        for number, image in enumerate(IMAGES)
    ]


def write_files(data: Path, tokens: Tokens | None) -> Path:
    """Writes the authors' files, without those of the tokens where there are none, and returns the folder."""
    folder = data / "textvqa"
    dump(folder / "TextVQA_0.5.1_val.json", {"data": questions()})
    if tokens is not None:
        records = [{"image_id": image, "ocr_tokens": texts} for image, texts in tokens.items()]
        dump(folder / "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": records})
    for image, colour in COLOURS.items():
        draw(folder / "train_images" / f"{image}.jpg", colour)
    return folder


def write_copy(data: Path, tokens: Tokens, *, without: str = "") -> Path:
    """Writes the same as a copy of the hub, perhaps without a column."""
    pictures = write_files(data / "official", None) / "train_images"
    rows = [
        {
            **record,
            "ocr_tokens": list(tokens.get(record["image_id"], [])),
            "image": stored(pictures / f"{record['image_id']}.jpg"),
        }
        for record in questions()
    ]
    kept = [{name: value for name, value in row.items() if name != without} for row in rows]
    dump_parquet(data / "textvqa" / "data" / "validation-00000-of-00001.parquet", kept)
    return data / "textvqa"


def main() -> None:
    ocr.ocr_tokens, ocr.require_ocr, ocr.ocr_library = read_colour, lambda: None, lambda: LIBRARY
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
