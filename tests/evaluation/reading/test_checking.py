"""What is wrong with a benchmark's folder is found before anything is computed, and each of it is one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vlinstruct.evaluation.benchmark import Benchmark
from vlinstruct.evaluation.benchmarks import BENCHMARKS
from vlinstruct.evaluation.reading.files import check

from ..official_files import WRITERS, flickr30k_of_lavis, iconqa_of_folders, write


def small(name: str) -> Benchmark:
    """The benchmark, as large as it is written here."""
    return replace(BENCHMARKS[name], num_items=3 if name == "hatefulmemes" else 2)


def problems(name: str, data: Path) -> list[str]:
    found = check(small(name), data / name).problems
    assert all(line.isprintable() and len(line) <= 290 for line in found)
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_wrong_with_sound_files(name: str, tmp_path: Path) -> None:
    found = check(small(name), write(tmp_path, name) / name)
    assert not found.problems
    assert found.num_items == small(name).num_items
    assert found.num_pictures == (1 if name == "gqa" else 2)


@pytest.mark.parametrize(("name", "write_form"), [("flickr30k", flickr30k_of_lavis), ("iconqa", iconqa_of_folders)])
def test_another_form_is_as_good(name: str, write_form: Callable[[Path], None], tmp_path: Path) -> None:
    write_form(tmp_path / name)
    assert not problems(name, tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_an_empty_folder_lacks_every_file_of_a_form(name: str, tmp_path: Path) -> None:
    missing = check(BENCHMARKS[name], tmp_path).problems
    assert len(missing) == min(map(len, BENCHMARKS[name].forms))
    assert all("Get it from http" in line for line in missing)


@pytest.mark.parametrize("name", WRITERS)
def test_other_counts_than_the_authors_are_said(name: str, tmp_path: Path) -> None:
    (line,) = check(BENCHMARKS[name], write(tmp_path, name) / name).problems
    assert f"{BENCHMARKS[name].num_items:,} are expected" in line


def test_the_first_bad_record_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, "vsr") / "vsr" / "test.jsonl"
    path.write_text(path.read_text() + "{}\n")
    (line,) = problems("vsr", tmp_path)
    assert "test.jsonl line 3): field 'caption' is missing" in line


def test_missing_pictures_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    for path in (write(tmp_path, "vizwiz") / "vizwiz" / "val").iterdir():
        path.unlink()
    (line,) = problems("vizwiz", tmp_path)
    assert "VizWiz_val_00000007.jpg): no such picture; 2 of 2 are missing. Get them from https://vizwiz.org" in line


def test_without_the_folder_of_pictures_the_annotations_are_still_read(tmp_path: Path) -> None:
    shutil.rmtree(write(tmp_path, "textvqa") / "textvqa" / "train_images")
    path = tmp_path / "textvqa" / "TextVQA_0.5.1_val.json"
    file = json.loads(path.read_text())
    path.write_text(json.dumps({**file, "data": file["data"][:1]}))
    folder, count = problems("textvqa", tmp_path)
    assert "train_images): no such folder; it should hold the pictures, of train_val_images.zip" in folder
    assert "1 items of the part val, 2 are expected" in count


def test_a_picture_that_is_none_is_found_by_its_header(tmp_path: Path) -> None:
    (write(tmp_path, "gqa") / "gqa" / "images" / "n15.jpg").write_text("<html>not found</html>")
    (line,) = problems("gqa", tmp_path)
    assert "n15.jpg): not an image (looks like HTML)" in line
