"""Parquet and Arrow tables as training data: their rows are records, and they hold their pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import ipc, parquet

from vlinstruct.errors import DataError, ImageError, ResourceError, VlinstructError
from vlinstruct.records.tables import TablePicture
from vlinstruct.training.data.conversations import TrainingSample, read_conversations
from vlinstruct.training.data.reading import DataOptions, load_picture

from .checking import problems_of

Refused = Callable[..., VlinstructError]
Dump = Callable[[Path, pa.Table], Path]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(shade: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (3, 2), (shade, 9, 9)).save(stream, "PNG")
    return stream.getvalue()


def as_parquet(folder: Path, table: pa.Table) -> Path:
    path = folder / "train-00000-of-00001.parquet"
    parquet.write_table(table, path, row_group_size=2)
    return path


def as_stream(folder: Path, table: pa.Table) -> Path:
    path = folder / "data-00000-of-00001.arrow"
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def as_file(folder: Path, table: pa.Table) -> Path:
    path = folder / "train.arrow"
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    return path


def table_of(pictures: list[Any], kind: pa.DataType, **more: list[Any]) -> pa.Table:
    name = "images" if pa.types.is_list(kind) else "image"
    texts = {"question": [f"{place}?" for place in range(len(pictures))], "answer": ["a"] * len(pictures)}
    return pa.table({name: pa.array(pictures, kind), **texts, **more})


def shades(samples: list[TrainingSample]) -> Iterator[int]:
    for sample in samples:
        red = load_picture(sample.image).getpixel((0, 0))
        assert isinstance(red, tuple)
        yield int(red[0])


@pytest.fixture(params=[as_parquet, as_stream, as_file])
def dump(request: pytest.FixtureRequest) -> Dump:
    """Writes a table in each of the forms."""
    form: Dump = request.param
    return form


CELLS: dict[str, tuple[pa.DataType, Callable[[int], Any]]] = {
    "struct": (STRUCT, lambda shade: {"bytes": png(shade), "path": f"{shade}.png"}),
    "struct without its path": (STRUCT, lambda shade: {"bytes": png(shade), "path": None}),
    "list of one": (pa.list_(STRUCT), lambda shade: [{"bytes": png(shade), "path": None}]),
    "bytes": (pa.binary(), png),
}


@pytest.mark.parametrize("cell", CELLS)
def test_the_pictures_in_a_table_are_read_in_any_order(cell: str, dump: Dump, tmp_path: Path) -> None:
    kind, make = CELLS[cell]
    path = dump(tmp_path, table_of([make(shade) for shade in range(5)], kind))
    samples = read_conversations(path, image_root=None)
    assert [sample.id for sample in samples] == [f"row-{number}" for number in range(1, 6)]
    assert [sample.instruction for sample in samples] == [f"{place}?" for place in range(5)]
    assert list(shades(samples)) == [0, 1, 2, 3, 4]
    assert list(shades(samples[::-1])) == [4, 3, 2, 1, 0]
    assert problems_of(path, image_root=None, decode=True) == []
    assert read_conversations(tmp_path, image_root=None)[0].answer == "a"


def test_a_table_of_paths_names_files(dump: Dump, tmp_path: Path) -> None:
    path = dump(tmp_path, table_of([{"bytes": None, "path": f"{place}.png"} for place in range(3)], STRUCT))
    assert [sample.image for sample in read_conversations(path, image_root="pictures")] == [
        Path("pictures/0.png"),
        Path("pictures/1.png"),
        Path("pictures/2.png"),
    ]
    path = dump(tmp_path, table_of(["a.png"], pa.string()))
    assert [sample.image for sample in read_conversations(path, image_root=None)] == [tmp_path / "a.png"]


def test_a_null_is_a_field_that_is_not_there(dump: Dump, tmp_path: Path) -> None:
    cells = [{"bytes": png(7), "path": None}, None]
    path = dump(tmp_path, table_of(cells, STRUCT, caption=pa.array([None, None], pa.string())))
    (sample,) = read_conversations(path, image_root=None, options=DataOptions(skip_text_only=True))
    assert isinstance(sample.image, TablePicture)
    with pytest.raises(DataError, match=r"row 2\).*--skip-text-only"):
        read_conversations(path, image_root=None)


def test_chat_messages_beside_a_list_of_pictures_are_read(dump: Dump, tmp_path: Path) -> None:
    user = [{"type": "image", "text": None}, {"type": "text", "text": "which bird?"}]
    messages = [
        {"role": "user", "content": user},
        {"role": "assistant", "content": [{"type": "text", "text": "a wren"}]},
    ]
    table = pa.table(
        {"images": pa.array([[{"bytes": png(3), "path": None}]], pa.list_(STRUCT)), "messages": [messages]}
    )
    (sample,) = read_conversations(dump(tmp_path, table), image_root=None)
    assert (sample.instruction, sample.answer, list(shades([sample]))) == ("which bird?", "a wren", [3])


def test_a_text_alone_is_a_caption(dump: Dump, tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([{"bytes": png(3), "path": None}], STRUCT), "text": ["a wren"]})
    (sample,) = read_conversations(dump(tmp_path, table), image_root=None)
    assert sample.answer == "a wren"


def test_a_picture_in_another_column_is_recognised(dump: Dump, tmp_path: Path) -> None:
    table = table_of([{"bytes": png(3), "path": None}] * 2, STRUCT).rename_columns(["photo", "question", "answer"])
    path = dump(tmp_path, table)
    with pytest.raises(DataError, match="--columns image=photo"):
        read_conversations(path, image_root=None)
    samples = read_conversations(path, image_root=None, options=DataOptions(columns={"image": "photo"}))
    assert list(shades(samples)) == [3, 3]


def test_a_number_that_is_missing_in_a_column_of_numbers_is_no_answer(dump: Dump, tmp_path: Path) -> None:
    answers = pa.array([3.0, float("nan")])
    table = table_of(["a.png", "b.png"], pa.string()).set_column(2, "answer", answers)
    path = dump(tmp_path, table)
    with pytest.raises(DataError, match=r"row 2\): field 'answer' is nan"):
        read_conversations(path, image_root=None)


def test_what_is_wrong_with_a_row_is_said_by_its_number(dump: Dump, tmp_path: Path) -> None:
    cells = [{"bytes": content, "path": None} for content in (png(1), png(2)[:50], b"a plain text, no picture")]
    path = dump(tmp_path, table_of(cells, STRUCT))
    header_only, decoded = (problems_of(path, image_root=None, decode=decode) for decode in (False, True))
    assert [f"row {number})" in line for number, line in zip((3,), header_only, strict=True)] == [True]
    assert ["row 2)" in decoded[0], "truncated" in decoded[0], "row 3)" in decoded[1]] == [True] * 3
    sample = read_conversations(path, image_root=None)[1]
    with pytest.raises(ImageError, match="row 2"):
        load_picture(sample.image)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_table_that_is_not_whole_is_one_message(name: str, tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / name
    path.write_bytes(b"PAR1" + b"\0" * 99 if name.endswith("parquet") else b"\xff\xff\xff\xff" + b"\0" * 9 + b"\n" * 99)
    message = refused(DataError, "bad_table", read_conversations, path, image_root=None).message
    assert f"no whole and sound {name[2:]} file" in message


def test_without_the_library_its_extra_is_named(dump: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dump(tmp_path, table_of(["a.png"], pa.string()))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ResourceError, match=r"vlinstruct\[parquet\]"):
        read_conversations(path, image_root=None)


def test_shards_are_one_table_when_all_are_there(tmp_path: Path, refused: Refused) -> None:
    for number in range(3):
        picture = {"bytes": png(number), "path": None}
        as_parquet(tmp_path, table_of([picture], STRUCT)).rename(tmp_path / f"train-0000{number}-of-00003.parquet")
    samples = read_conversations(tmp_path, image_root=None)
    assert list(shades(samples)) == [0, 1, 2]
    assert samples[2].id == "train-00002-of-00003.parquet-row-1"
    assert problems_of(tmp_path, image_root=None) == []
    (tmp_path / "train-00001-of-00003.parquet").unlink()
    assert (
        "2 of 3 shards" in refused(DataError, "shards_missing", read_conversations, tmp_path, image_root=None).message
    )


def test_several_tables_in_a_folder_are_refused(tmp_path: Path, refused: Refused) -> None:
    table = table_of(["a.png"], pa.string())
    as_parquet(tmp_path, table), as_file(tmp_path, table)
    assert "2 tables" in refused(DataError, "several_tables", read_conversations, tmp_path, image_root=None).message
