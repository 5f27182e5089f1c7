"""A wrong, truncated or mixed-up table gives one line with its name, its row and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from command_line import vli
from pyarrow import parquet

from vlinstruct.errors import DataError, ImageError, InputError, ResourceError
from vlinstruct.evaluation.benchmarks import BENCHMARKS
from vlinstruct.evaluation.reading.files import check, read_items
from vlinstruct.evaluation.reading.hub_files import shards

from ..hub_copies import COPIES, dump_arrow, dump_parquet, rows_of, write_copy

CONFIGS = {"gqa": "instructions", "scienceqa": "ScienceQA-IMG"}


def path_of(folder: Path) -> Path:
    """The last file that is read of a copy."""
    copy = BENCHMARKS[folder.name].copy
    assert copy is not None
    return shards(folder, copy.split, config=CONFIGS.get(folder.name, ""))[-1]


def draw_all(folder: Path) -> None:
    for item in read_items(BENCHMARKS[folder.name], folder):
        item.load_picture()


def refusal(folder: Path, kind: type[InputError] = DataError) -> InputError:
    """Returns the error of reading and drawing, which holds to the contract of error lines."""
    with pytest.raises(kind) as caught:
        draw_all(folder)
    message = caught.value.message
    assert len(f"error: {message}") <= 300
    assert message.isprintable()
    return caught.value


def changed(folder: Path, **fields: Any) -> None:
    """Changes the first row of a copy's last file."""
    path = path_of(folder)
    rows = rows_of(path.parent, path.name)
    dump_parquet(path, [{**rows[0], **fields}, *rows[1:]])


@pytest.mark.parametrize("name", COPIES)
def test_a_missing_column_is_named_with_the_file(name: str, tmp_path: Path) -> None:
    folder = write_copy(tmp_path, name)
    path = path_of(folder)
    copy = BENCHMARKS[name].copy
    assert copy is not None
    whole = parquet.read_table(path)
    for column in copy.columns:
        parquet.write_table(whole.drop([column]), path)
        error = refusal(folder)
        assert error.code == "missing_field"
        assert f"{path.name}): column '{column}' is missing. Compare the file with" in error.message


@pytest.mark.parametrize("name", COPIES)
def test_a_truncated_file_is_named(name: str, tmp_path: Path) -> None:
    folder = write_copy(tmp_path, name)
    path = path_of(folder)
    for content in (path.read_bytes()[:-9], path.read_bytes()[:20], b"PAR1"):
        path.write_bytes(content)
        assert f"{path.name}): no whole and sound parquet file" in refusal(folder).message


@pytest.mark.parametrize("start", range(4, 1_500, 100))
def test_damage_inside_gives_an_error_or_the_same_words(start: int, tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vizwiz")
    path = path_of(folder)
    expected = {str(item.instructions) for item in read_items(BENCHMARKS["vizwiz"], folder)}
    content = bytearray(path.read_bytes())
    content[start : start + 60] = b"U" * 60
    path.write_bytes(content)
    try:
        found = {str(item.instructions) for item in read_items(BENCHMARKS["vizwiz"], folder)}
        draw_all(folder)
    except InputError:
        assert path.name in refusal(folder, InputError).message
    else:
        assert found <= expected


OTHERS = list(permutations(COPIES, 2))


@pytest.mark.parametrize(("name", "other"), OTHERS)
def test_another_benchmarks_table_is_refused(name: str, other: str, tmp_path: Path) -> None:
    folder = write_copy(tmp_path, name)
    path_of(folder).write_bytes(path_of(write_copy(tmp_path / "other", other)).read_bytes())
    assert path_of(folder).name in refusal(folder).message


BAD_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("flickr30k", {"caption": [], "split": "test"}, "row 1): it has no caption"),
    ("nocaps", {"annotations_captions": []}, "row 1): it has no caption"),
    ("nocaps", {"image_id": None}, "row 1): field 'image_id' is no text"),
    ("vsr", {"label": 2}, "row 1): field 'label' is 2, of 0 to 1"),
    ("vsr", {"caption": None}, "row 1): field 'caption' is no text"),
    ("gqa", {"imageId": "n2"}, "row 1): testdev_balanced_images holds no picture n2"),
    ("gqa", {"id": "202"}, "row 2): its id '202' is that of row 1 too"),
    ("iconqa", {"answer": "9"}, "row 1): field 'answer' is none of 'choices' between the commas"),
    ("iconqa", {"choices": "5", "answer": "5"}, "row 1): field 'choices' holds no 2 to 26 texts"),
    ("vizwiz", {"answers": ["a"]}, "row 1): field 'answers' holds 1 answers, not 10"),
    ("textvqa", {"set_name": "train"}, "row 1): it is of another part than 'val'"),
    ("textvqa", {"answers": ["a"] * 9 + [None]}, "row 1): field 'answers' is no list of texts"),
    ("scienceqa", {"answer": 7}, "row 1): field 'answer' is 7, of 0 to 2"),
    ("scienceqa", {"choices": ["one"]}, "row 1): field 'choices' holds no 2 to 26 texts"),
]


@pytest.mark.parametrize(("name", "fields", "words"), BAD_FIELDS)
def test_a_bad_field_is_named_with_its_row(name: str, fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = write_copy(tmp_path, name)
    changed(folder, **fields)
    assert f"{path_of(folder).name} {words}" in refusal(folder).message


def test_a_column_of_another_type_is_said(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vizwiz")
    path = path_of(folder)
    whole = parquet.read_table(path)
    for name, values, words in (
        ("question", [1, 2], "row 1): field 'question' is no text"),
        ("image", ["a.jpg", "b.jpg"], "column 'image' holds no pictures but values of type string"),
    ):
        parquet.write_table(whole.set_column(whole.schema.get_field_index(name), name, [pa.array(values)]), path)
        assert words in refusal(folder).message


PICTURES: list[tuple[Any, str, str]] = [
    ({"bytes": b"<html>gone</html>", "path": "a.jpg"}, "image_html", "row 1): not an image (looks like HTML)"),
    ({"bytes": b"", "path": "a.jpg"}, "image_empty", "row 1): empty file"),
    ({"bytes": None, "path": "/etc/passwd"}, "image_missing", "row 1): column 'image' holds no picture there"),
    (None, "image_missing", "row 1): column 'image' holds no picture there"),
]


@pytest.mark.parametrize(("picture", "code", "words"), PICTURES)
def test_a_picture_that_is_none_is_named_with_its_row(picture: Any, code: str, words: str, tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vsr")
    changed(folder, image=picture)
    error = refusal(folder, ImageError)
    assert error.code == code
    assert f"{path_of(folder).name} {words}" in error.message
    found = check(BENCHMARKS["vsr"], folder).problems
    assert any(f"{path_of(folder).name} row 1): " in line for line in found)


def test_damage_among_the_pictures_is_found_by_checking(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vsr")
    path = path_of(folder)
    group = parquet.read_metadata(path).row_group(0)
    (start,) = (
        group.column(number).data_page_offset
        for number in range(group.num_columns)
        if group.column(number).path_in_schema == "image.bytes"
    )
    content = path.read_bytes()
    path.write_bytes(content[:start] + b"U" * 40 + content[start + 40 :])
    assert f"{path.name}): no whole and sound parquet file" in refusal(folder).message
    (*_, last) = check(BENCHMARKS["vsr"], folder).problems
    assert f"{path.name}): no whole and sound parquet file" in last


def test_a_picture_past_the_limits_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vsr")
    large = b"BM" + bytes(12) + (40).to_bytes(4, "little") + (8_000).to_bytes(4, "little") * 2 + b"\1\0\x18\0"
    changed(folder, image={"bytes": large + bytes(24), "path": None})
    assert "8000 x 8000 pixels, at most 50,000,000 are decoded" in refusal(folder, ImageError).message


def test_no_rows_are_no_score(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vsr")
    path = path_of(folder)
    parquet.write_table(parquet.read_table(path).slice(0, 0), path)
    assert "its files hold no item of the part test (zero-shot split)" in refusal(folder).message


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "nocaps")
    shards(folder, "validation")[0].unlink()
    assert "data): the file 00000-of-00002 is missing; 1 of 2 are" in refusal(folder).message


def test_another_part_is_no_substitute(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "textvqa")
    path_of(folder).unlink()
    assert "textvqa): no table of the part 'validation'; there is train" in refusal(folder).message


def test_a_part_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vsr")
    dump_parquet(folder / "default" / "test" / "0000.parquet", rows_of(folder, "data/test-00000-of-00001.parquet"))
    assert "the part is there twice, as data/*.parquet and default/test/*.parquet" in refusal(folder).message


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git LFS pointer"), (b"<html>", "looks like HTML")],
)
def test_what_a_failed_download_leaves_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vsr")
    path_of(folder).write_bytes(content)
    assert words in refusal(folder).message


def damaged(content: bytes) -> bytes:
    return content.replace(b"The cat", b"\xff\xff\xff\xff\xff\xff\xff")


@pytest.mark.parametrize("change", [lambda content: content[:-99], lambda content: b"ARROW1" + content, damaged])
def test_a_damaged_arrow_file_is_named(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vsr")
    path = folder / "test" / "data-00000-of-00001.arrow"
    dump_arrow(path, rows_of(folder, "data/test-00000-of-00001.parquet"))
    (folder / "data" / "test-00000-of-00001.parquet").unlink()
    path.write_bytes(change(path.read_bytes()))
    assert "no whole and sound arrow file" in refusal(folder).message


def test_without_the_extra_its_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_copy(tmp_path, "vsr")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ResourceError) as caught:
        read_items(BENCHMARKS["vsr"], folder)
    assert "a parquet file needs pyarrow, which is not installed: pip install 'vlinstruct[parquet]'." in str(
        caught.value
    )
    arguments = ("evaluate", "vsr", "--data", tmp_path, "--backbone", "mini", "-o", tmp_path / "out")
    assert "vlinstruct[parquet]" in vli(*arguments).refusal(6)
