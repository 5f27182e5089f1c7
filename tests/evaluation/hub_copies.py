"""Writes the same records as `official_files`, as the hub's copies of every benchmark that is read from one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import ipc, parquet

from .official_files import write

Rows = list[dict[str, Any]]
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PICTURE_COLUMNS = ("image", "query_image")


def table(rows: Rows) -> pa.Table:
    """Makes a table as `datasets` does: its pictures are structs."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pa.table(
        {name: pa.array(values, PICTURE if name in PICTURE_COLUMNS else None) for name, values in columns.items()}
    )


def dump_parquet(path: Path, rows: Rows, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table(rows), path, **options)


def dump_arrow(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = table(rows)
    with ipc.new_stream(str(path), content.schema) as stream:
        stream.write_table(content, max_chunksize=1)


def stored(path: Path) -> dict[str, Any]:
    return {"bytes": path.read_bytes(), "path": path.name}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def lines(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]


def flickr30k(official: Path) -> Iterator[tuple[str, Rows]]:
    rows = [
        {
            "image": stored(picture) if picture.exists() else stored(official / "flickr30k-images" / "31.jpg"),
            "caption": [sentence["raw"] for sentence in one["sentences"]],
            "split": one["split"],
            "filename": one["filename"],
        }
        for one in read(official / "dataset_flickr30k.json")["images"]
        if (picture := official / "flickr30k-images" / one["filename"])
    ]
    yield "TEST/test/0000.parquet", rows


def nocaps(official: Path) -> Iterator[tuple[str, Rows]]:
    file = read(official / "nocaps_val_4500_captions.json")
    rows = [
        {
            "image": stored(official / "val" / one["file_name"]),
            "image_file_name": one["file_name"],
            "image_id": one["id"],
            "annotations_captions": [said["caption"] for said in file["annotations"] if said["image_id"] == one["id"]],
        }
        for one in file["images"]
    ]
    for number, row in enumerate(rows):
        yield f"data/validation-{number:05}-of-00002-55b5edbf01d47b39.parquet", [row]


def vsr(official: Path) -> Iterator[tuple[str, Rows]]:
    rows = [{**one, "image": stored(official / "images" / one["image"])} for one in lines(official / "test.jsonl")]
    yield "data/test-00000-of-00001.parquet", rows


def gqa(official: Path) -> Iterator[tuple[str, Rows]]:
    file = read(official / "testdev_balanced_questions.json")
    pictures = [{"id": "n1", "image": stored(official / "images" / "n15.jpg")}]
    pictures.append({"id": "n15", "image": pictures[0]["image"]})
    yield "testdev_balanced_images/testdev-00000-of-00001.parquet", pictures
    yield "testdev_balanced_instructions/testdev-00000-of-00001.parquet", [{"id": key, **file[key]} for key in file]


def iconqa(official: Path) -> Iterator[tuple[str, Rows]]:
    problems, rows = read(official / "problems.json"), []
    for name in read(official / "pid_splits.json")["choose_txt_test"]:
        one = problems[name]
        picture = stored(official / "iconqa" / "test" / "choose_txt" / name / "image.png")
        answer = one["choices"][one["answer"]]
        choices = ",".join(one["choices"])
        rows.append({**one, "question_id": name, "choices": choices, "answer": answer, "query_image": picture})
    rows.insert(1, {**rows[0], "question_id": "13", "ques_type": "choose_img"})
    yield "data/test-00000-of-00001-e3c690d531807508.parquet", rows


def vizwiz(official: Path) -> Iterator[tuple[str, Rows]]:
    rows = [
        {
            "question_id": Path(one["image"]).stem,
            "image": stored(official / "val" / one["image"]),
            "question": one["question"],
            "answers": [said["answer"] for said in one["answers"]],
        }
        for one in read(official / "val.json")
    ]
    yield "data/val-00000-of-00001.parquet", rows
    yield "data/test-00000-of-00001.parquet", [{**rows[0], "answers": []}]


def textvqa(official: Path) -> Iterator[tuple[str, Rows]]:
    tokens = {
        one["image_id"]: one["ocr_tokens"] for one in read(official / "TextVQA_Rosetta_OCR_v0.2_val.json")["data"]
    }
    rows = [
        {
            **one,
            "set_name": "val",
            "image": stored(official / "train_images" / f"{one['image_id']}.jpg"),
            "ocr_tokens": tokens[one["image_id"]],
        }
        for one in read(official / "TextVQA_0.5.1_val.json")["data"]
    ]
    yield "data/validation-00000-of-00001.parquet", rows
    yield "data/train-00000-of-00002.parquet", [{**rows[0], "set_name": "train"}]


def scienceqa(official: Path) -> Iterator[tuple[str, Rows]]:
    problems, rows = read(official / "problems.json"), []
    for name in read(official / "pid_splits.json")["test"]:
        picture = official / "images" / "test" / name / "image.png"
        rows.append({**problems[name], "image": stored(picture) if picture.exists() else None})
    yield "ScienceQA-FULL/test-00000-of-00001.parquet", rows
    yield "ScienceQA-IMG/test-00000-of-00001.parquet", [row for row in rows if row["image"]]


COPIES: Mapping[str, Callable[[Path], Iterator[tuple[str, Rows]]]] = {
    "flickr30k": flickr30k,
    "nocaps": nocaps,
    "vsr": vsr,
    "gqa": gqa,
    "iconqa": iconqa,
    "vizwiz": vizwiz,
    "textvqa": textvqa,
    "scienceqa": scienceqa,
}


def write_copy(data: Path, name: str) -> Path:
    """Writes a benchmark's copy and returns its folder, which holds nothing else."""
    official = write(data / "official", name) / name
    for path, rows in COPIES[name](official):
        dump_parquet(data / name / path, rows)
    return data / name


def rows_of(folder: Path, path: str) -> Rows:
    found: Rows = parquet.read_table(folder / path).to_pylist()
    return found
