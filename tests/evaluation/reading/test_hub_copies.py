"""A benchmark read from a copy on the hub is the one read from its authors' files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from command_line import Result, vli
from pyarrow import parquet

from vlinstruct.errors import ImageError
from vlinstruct.evaluation.benchmark import Item
from vlinstruct.evaluation.benchmarks import BENCHMARKS
from vlinstruct.evaluation.reading.files import check, read_items
from vlinstruct.evaluation.reading.hub_files import shards
from vlinstruct.evaluation.reading.hub_tables import open_table
from vlinstruct.evaluation.reading.items import with_limits
from vlinstruct.media.images import ImageLimits

from ..hub_copies import COPIES, dump_arrow, dump_parquet, rows_of, write_copy
from ..official_files import write


def said(item: Item) -> tuple[object, ...]:
    """All of an item but its picture."""
    return item.id, item.task, dict(item.instructions), item.references, item.candidates


def pixels(item: Item) -> tuple[tuple[int, int], bytes]:
    image = item.load_picture()
    return image.size, image.tobytes()


def with_official_ids(items: list[Item], official: list[Item]) -> list[Item]:
    """ScienceQA's copies have no numbers; its items are told by their places."""
    if items[0].task != "scienceqa":
        return items
    assert [item.id for item in items] == ["scienceqa-row1", "scienceqa-row2"]
    return [replace(item, id=one.id) for item, one in zip(items, official, strict=True)]


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_gives_the_authors_items_and_pictures(name: str, tmp_path: Path) -> None:
    folder = write_copy(tmp_path, name)
    official = read_items(BENCHMARKS[name], tmp_path / "official" / name)
    items = with_official_ids(read_items(BENCHMARKS[name], folder), official)
    assert [said(item) for item in items] == [said(item) for item in official]
    assert [pixels(item) for item in items] == [pixels(item) for item in official]
    assert [pixels(item) for item in reversed(items)] == [pixels(item) for item in reversed(official)]


@pytest.mark.parametrize("name", COPIES)
def test_a_saved_arrow_folder_is_as_good(name: str, tmp_path: Path) -> None:
    folder = write_copy(tmp_path, name)
    items = read_items(BENCHMARKS[name], folder)
    expected = [(said(item), pixels(item)) for item in items]
    for path in list(folder.rglob("*.parquet")):
        dump_arrow(path.with_suffix(".arrow"), rows_of(path.parent, path.name))
        path.unlink()
    assert [(said(item), pixels(item)) for item in read_items(BENCHMARKS[name], folder)] == expected


@pytest.mark.parametrize("name", COPIES)
def test_nothing_is_wrong_with_a_sound_copy(name: str, tmp_path: Path) -> None:
    found = check(replace(BENCHMARKS[name], num_items=2), write_copy(tmp_path, name))
    assert not found.problems
    assert (found.num_items, found.num_pictures) == (2, 1 if name == "gqa" else 2)


def answers(names: tuple[object, ...], output: Path) -> tuple[Result, bytes]:
    quick = ("--backbone", "mini", "--device", "cpu", "--batch-size", "4", "--max-new-tokens", "4", "-o", output)
    return vli("evaluate", *names, *quick), (output / "records.jsonl").read_bytes()


@pytest.mark.slow
def test_a_run_on_copies_leaves_the_answers_of_one_on_the_authors_files(tmp_path: Path) -> None:
    for name in COPIES:
        write_copy(tmp_path, name)
    result, copied = answers((*COPIES, "--data", tmp_path), tmp_path / "a")
    assert result.exit_code == 0, result.stderr
    _, official = answers((*COPIES, "--data", tmp_path / "official"), tmp_path / "b")
    (*copied, first, second), (*expected, third, fifth) = copied.splitlines(), official.splitlines()
    assert copied == expected
    assert [without_id(one) for one in (first, second)] == [without_id(one) for one in (third, fifth)]


def without_id(line: bytes) -> dict[str, object]:
    """A record of ScienceQA, which has no number in a copy."""
    record: dict[str, object] = json.loads(line)
    assert record["task"] == "scienceqa"
    return {name: value for name, value in record.items() if name not in ("id", "key")}


def test_a_download_may_be_named_itself(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "textvqa")
    _, direct = answers(("textvqa", "--data", folder), tmp_path / "a")
    _, inner = answers(("textvqa", "--data", tmp_path), tmp_path / "b")
    assert direct == inner
    assert vli("evaluate", "textvqa", "--data", folder, "--check-data").stdout.count(b"5,000 are expected") == 1


def test_the_authors_files_come_first_and_that_is_said(tmp_path: Path) -> None:
    folder = write(tmp_path, "vsr") / "vsr"
    shutil.copytree(write_copy(tmp_path / "copy", "vsr"), folder, dirs_exist_ok=True)
    dump_parquet(folder / "data" / "test-00000-of-00001.parquet", [{"caption": "Not read."}])
    result, _ = answers(("vsr", "--data", tmp_path), tmp_path / "out")
    assert f"vsr: its authors' files are read, the tables in {folder} are not" in result.stderr


def test_without_the_authors_pictures_the_copy_is_read(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vizwiz")
    shutil.copy(tmp_path / "official" / "vizwiz" / "val.json", folder)
    assert len(read_items(BENCHMARKS["vizwiz"], folder)) == 2


@pytest.mark.parametrize("name", ["visdial", "hatefulmemes"])
def test_what_no_table_is_read_of_needs_the_authors_files(name: str, tmp_path: Path) -> None:
    dump_parquet(tmp_path / name / "data" / "validation-00000-of-00001.parquet", [{"id": 1}])
    (problem, *_) = check(BENCHMARKS[name], tmp_path / name).problems
    assert "no such file" in problem


def test_a_split_of_another_name_or_none_is_found(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "nocaps")
    rows = [row for path in shards(folder, "validation") for row in rows_of(path.parent, path.name)]
    expected = [said(item) for item in read_items(BENCHMARKS["nocaps"], folder)]
    for path in ("val.parquet", "default/validation/0000.parquet", "my-validation.parquet", "x.parquet"):
        shutil.rmtree(folder)
        dump_parquet(folder / path, rows)
        assert [said(item) for item in read_items(BENCHMARKS["nocaps"], folder)] == expected


def test_a_copy_that_keeps_no_split_is_read_whole(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "flickr30k")
    (path,) = shards(folder, "test")
    parquet.write_table(parquet.read_table(path).drop(["split"]), path)
    assert len(read_items(BENCHMARKS["flickr30k"], folder)) == 3


def test_pictures_that_are_bytes_alone_are_read(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vsr")
    (path,) = shards(folder, "test")
    whole = parquet.read_table(path)
    place = whole.schema.get_field_index("image")
    bare = whole.set_column(place, "image", whole["image"].combine_chunks().field("bytes"))
    expected = [pixels(item) for item in read_items(BENCHMARKS["vsr"], folder)]
    parquet.write_table(bare, path)
    assert [pixels(item) for item in read_items(BENCHMARKS["vsr"], folder)] == expected


@pytest.mark.parametrize("size", [100, 400])
def test_pictures_are_read_a_few_at_a_time(size: int, tmp_path: Path) -> None:
    rows = [{"image": {"bytes": number.to_bytes(2) * 25_000, "path": None}} for number in range(400)]
    dump_parquet(tmp_path / "a.parquet", rows, row_group_size=size, write_batch_size=20, compression="none")
    table, before, most = open_table(tmp_path / "a.parquet"), pa.total_allocated_bytes(), 0
    for row in range(400):
        content = table.picture("image", row)
        assert content is not None
        assert content[:2] == row.to_bytes(2)
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < 8_000_000  # of 20 MB
    assert pa.total_allocated_bytes() == before


@pytest.mark.parametrize("size", [1, 3, 100])
def test_any_order_of_drawing_gives_the_rows_own_picture(size: int, tmp_path: Path) -> None:
    rows = [{"id": number, "image": {"bytes": b"picture %d" % number, "path": None}} for number in range(30)]
    dump_parquet(tmp_path / "a.parquet", rows, row_group_size=size)
    table = open_table(tmp_path / "a.parquet")
    for row in [*range(30), 7, 7, 8, 29, 0, 15, *reversed(range(30))]:
        assert table.picture("image", row) == b"picture %d" % row


def test_nocaps_pictures_may_lie_in_images(tmp_path: Path) -> None:
    folder = write(tmp_path, "nocaps") / "nocaps"
    expected = [(said(item), pixels(item)) for item in read_items(BENCHMARKS["nocaps"], folder)]
    (folder / "val").rename(folder / "images")
    assert [(said(item), pixels(item)) for item in read_items(BENCHMARKS["nocaps"], folder)] == expected


def test_a_hub_cache_of_links_is_read(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "vizwiz")
    expected = [said(item) for item in read_items(BENCHMARKS["vizwiz"], folder)]
    snapshot = tmp_path / "snapshots" / "0a1b" / "data"
    snapshot.mkdir(parents=True)
    for number, path in enumerate((folder / "data").iterdir()):
        blob = path.rename(tmp_path / f"blob{number}")
        (snapshot / path.name).symlink_to(blob)
    assert [said(item) for item in read_items(BENCHMARKS["vizwiz"], snapshot.parent)] == expected


def test_the_copies_are_listed() -> None:
    text = vli("evaluate", "--list").text
    assert all(benchmark.hub in text for benchmark in BENCHMARKS.values())
    listed = {one["id"]: one["hub_columns"] for one in vli("evaluate", "--list", "--json").records}
    assert {name for name, columns in listed.items() if columns} == set(COPIES)
    assert json.dumps(listed["vizwiz"]) == '["question_id", "question", "answers"]'


def test_limits_hold_for_pictures_in_files_and_in_tables(tmp_path: Path) -> None:
    folder = write_copy(tmp_path, "gqa")
    for place in (folder, tmp_path / "official" / "gqa"):
        item = read_items(BENCHMARKS["gqa"], place)[0]
        width, height = item.load_picture().size
        within, outside = (ImageLimits(max_pixels=width * height - less) for less in (0, 1))
        assert with_limits(item.load_picture, within)().size == (width, height)
        with pytest.raises(ImageError, match="--max-pixels"):
            with_limits(item.load_picture, outside)()


def iconqa_copy(folder: Path, *rows: tuple[str, str]) -> Path:
    """A copy with these choices and answers, one row each, of the same picture."""
    path = next(write_copy(folder, "iconqa").rglob("*.parquet"))
    first = rows_of(path.parent, path.name)[0]
    texts = [{"question_id": str(n), "choices": choices, "answer": answer} for n, (choices, answer) in enumerate(rows)]
    dump_parquet(path, [{**first, **text} for text in texts])
    return path.parent.parent


def offered(folder: Path) -> list[tuple[str, ...]]:
    return [item.candidates for item in read_items(BENCHMARKS["iconqa"], folder)]


JOINED = {
    ("one, two", "two"): ("one", "two"),
    ("red,blue,green", "blue"): ("red", "blue", "green"),
    ("1,000,2,000", "1,000"): ("1,000", "2,000"),
    ("1,000, 2,000", "2,000"): ("1,000", "2,000"),
    ("red, then blue,green", "green"): ("red, then blue", "green"),
    ("(1,2),(3,4)", "(3,4)"): ("(1,2)", "(3,4)"),
    # A choice with a comma, or one more choice? Nothing in the row tells.
    ("a, b, c", "c"): (),
    ("1,200,3", "3"): (),
}


@pytest.mark.parametrize(("row", "choices"), JOINED.items())
def test_choices_are_divided_at_commas_where_that_is_sure(
    row: tuple[str, str], choices: tuple[str, ...], tmp_path: Path
) -> None:
    others = [("(0,1),(1,0)", "(1,0)")] if "(" in row[0] else []
    assert offered(iconqa_copy(tmp_path, row, *others))[0] == choices


def test_many_answers_without_a_comma_show_that_no_choice_has_one(tmp_path: Path) -> None:
    rows = [("a, b, c", "c"), *[("red, blue", "blue")] * 49]
    assert offered(iconqa_copy(tmp_path / "none", *rows))[0] == ("a", "b", "c")
    assert offered(iconqa_copy(tmp_path / "one", *rows[:-1], ("red, blue, pink", "red, blue")))[0] == ()


def test_rows_whose_choices_are_not_sure_are_counted_and_never_ranked(tmp_path: Path) -> None:
    data = iconqa_copy(tmp_path, ("a, b, c", "c"), ("one, two", "two"))
    result = vli("evaluate", "iconqa", "--data", data, "--device", "cpu", "-o", tmp_path / "out", "--json")
    assert result.exit_code == 3
    assert (result.records[0]["items"], result.records[0]["skipped"]) == ({"iconqa": 1}, {"iconqa": 1})
    assert "its choices 'a, b, c' can be divided at the commas in 2 ways" in result.stderr
    checked = vli("evaluate", "iconqa", "--data", data, "--check-data")
    assert b"1 of 2 items cannot be used; the first: cannot use annotations" in checked.stdout


def cache(hub: Path, hub_id: str, copy: Path) -> None:
    """Puts a copy where a download leaves it."""
    repository = hub / f"datasets--{hub_id.replace('/', '--')}"
    shutil.copytree(copy, repository / "snapshots" / "c0ffee")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")


def test_a_copy_in_the_hubs_cache_is_read_under_its_new_name_then_its_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "need --data" in vli("evaluate", "textvqa", "vizwiz", "-o", tmp_path / "out").refusal(2)
    copies = {name: write_copy(tmp_path / "copies", name) for name in ("textvqa", "vizwiz")}
    cache(tmp_path / "hub", "lmms-lab/textvqa", copies["textvqa"])
    cache(tmp_path / "hub", "lmms-lab-encoder/VizWiz-VQA", copies["vizwiz"])
    result, cached = answers(("textvqa", "vizwiz"), tmp_path / "out")
    assert "textvqa: read from lmms-lab/textvqa in the hub's cache" in result.stderr
    assert "vizwiz: read from lmms-lab-encoder/VizWiz-VQA in the hub's cache" in result.stderr
    assert cached == answers(("textvqa", "vizwiz", "--data", tmp_path / "copies"), tmp_path / "b")[1]
    cache(tmp_path / "hub", "lmms-lab-encoder/textvqa", copies["textvqa"])
    newer, _ = answers(("textvqa", "--data", tmp_path / "nothing"), tmp_path / "c")
    assert "textvqa: read from lmms-lab-encoder/textvqa in" in newer.stderr


def test_every_name_that_is_looked_up_is_one_that_is_listed() -> None:
    for benchmark in BENCHMARKS.values():
        for hub_id in () if benchmark.copy is None else benchmark.copy.hub_ids:
            assert hub_id in benchmark.hub
