"""A table is read as it stands, or refused by what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlinstruct.errors import DataError
from vlinstruct.records.items import read_items


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_two_columns_of_one_name_are_refused(suffix: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)
    from pyarrow.parquet import write_table

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    picture = pyarrow.array([{"bytes": b"x", "path": "a.png"}], kind)
    table = pyarrow.Table.from_arrays([picture, picture, pyarrow.array(["q"])], ["image", "image", "question"])
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        write_table(table, path)
    else:
        with pyarrow.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match="two of its columns are called 'image'"):
        read_items(path)
