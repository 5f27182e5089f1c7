"""Turns a benchmark's official files into what our lmms-eval tasks read.

    python -m vlinstruct.integrations.lmms_eval.prepare vsr FOLDER

FOLDER holds the official files and pictures, as the benchmark's file in `vlinstruct/evaluation/benchmarks` lists them.
The rows go to `lmms_data/vsr.jsonl`, which the task reads when lmms-eval runs in the same folder: one JSON object per
item with its id, its picture's path, the instruction of appendix C.2 filled in, the right answer, and the options if it
ranks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlinstruct.errors import DataError, VlinstructError
from vlinstruct.evaluation import benchmarks
from vlinstruct.evaluation.reading.items import PictureFile
from vlinstruct.files import written_atomically

BENCHMARKS = ("vsr", "visdial", "hatefulmemes", "iconqa")
_FOLDER = Path("lmms_data")


def rows(benchmark: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Yields a benchmark's rows.

    Args:
        benchmark: one of BENCHMARKS.
        folder: where its official files lie.

    Raises:
        DataError: they cannot be used, or a picture is not there.
    """
    for item in benchmarks.BENCHMARKS[benchmark].read(folder):
        assert isinstance(item.load_picture, PictureFile)
        path = item.load_picture.path.resolve()
        if not path.is_file():
            raise DataError.at("cannot prepare", path, "this picture is not there", "Get the pictures, too")
        yield {
            "id": item.id,
            "image": str(path),
            "instruction": item.instructions["canonical"],
            "answer": item.references[0],
            "candidates": list(item.candidates),
        }


def write_rows(benchmark: str, folder: Path, output: Path) -> int:
    """Writes a benchmark's rows to a file, and returns how many there are.

    Args:
        benchmark: one of BENCHMARKS.
        folder: where its official files lie.
        output: the file, one JSON object a line; it is there whole or not at all.

    Raises:
        DataError: there are no items, their files cannot be used, or a picture is not there.
    """
    # All rows before the file: a picture that is missing at the end must not leave half of a benchmark behind.
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows(benchmark, folder)]
    if not lines:
        raise DataError.at("cannot prepare", folder, "it holds no items", "Compare it with the official files")
    output.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(output) as path:
        path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line, and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m vlinstruct.integrations.lmms_eval.prepare",
        description="Turn official files into what our lmms-eval tasks read.",
    )
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("folder", type=Path, help="the official files and pictures")
    parser.add_argument("--output", "-o", type=Path, help=f"default: {_FOLDER}/BENCHMARK.jsonl")
    options = parser.parse_args(arguments)
    output = options.output or _FOLDER / f"{options.benchmark}.jsonl"
    try:
        num_items = write_rows(options.benchmark, options.folder, output)
    except VlinstructError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    print(f"done: {num_items} items in {output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
