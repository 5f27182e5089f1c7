"""`evaluate textvqa --ocr`: pictures without tokens are read, once, by as many processes as there are."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, vli
from PIL import Image, ImageDraw, ImageFont

import vlinstruct.mini
from vlinstruct.errors import ImageError, InputError
from vlinstruct.evaluation.benchmarks import BENCHMARKS
from vlinstruct.evaluation.parts import ALONE, Processes
from vlinstruct.evaluation.reading.files import check
from vlinstruct.evaluation.reading.ocr_tokens import CompleteItems, Ocr, read_completed
from vlinstruct.media import ocr

from .. import hub_copies
from ..official_files import dump, write
from ..printed_pictures import LIBRARY, Tokens, read_colour, write_copy, write_files

TEXTVQA = BENCHMARKS["textvqa"]
TESTS = Path(__file__).parents[2]
QUICK = ("--backbone", "mini", "--device", "cpu", "--batch-size", "2", "--max-new-tokens", "4")
READ = ["RED, {ink}", "LIME, {ink}", "RED, {ink}", "BLUE, {ink}"]  # of the four questions


@dataclass
class Reader:
    """Stands for the library, and keeps what it read."""

    seen: list[str] = field(default_factory=list)
    library: str = LIBRARY

    def read(self, image: Image.Image) -> Sequence[str]:
        tokens = read_colour(image)
        self.seen.append(tokens[0])
        return tokens

    def into(self, folder: Path, processes: Processes = ALONE, said: list[str] | None = None) -> Ocr:
        return Ocr(
            read=self.read,
            library=self.library,
            folder=folder,
            processes=processes,
            progress=lambda count: nullcontext(lambda: None),
            notify=[].append if said is None else said.append,
        )


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    """What the command reads with."""
    found = Reader()
    monkeypatch.setattr(ocr, "ocr_tokens", found.read)
    monkeypatch.setattr(ocr, "require_ocr", lambda: None)
    monkeypatch.setattr(ocr, "ocr_library", lambda: found.library)
    return found


def shown(completed: CompleteItems) -> list[str]:
    """The tokens of every item's instruction."""
    said = [item.instructions["canonical"] for item in completed.items]
    return [one.removeprefix("OCR tokens: ").split(" Question: ")[0] for one in said]


def evaluate(data: Path, output: Path, *more: object) -> Result:
    return vli("evaluate", "textvqa", "--data", data, *QUICK, "-o", output, *more)


def asked(output: Path) -> list[str]:
    lines = (output / "records.jsonl").read_text().splitlines()
    return [json.loads(line)["initial"]["text"].removeprefix("OCR tokens: ").split(" Question: ")[0] for line in lines]


def kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


NOTHING: list[Tokens | None] = [None, {}, {"00a": [], "00b": [], "00c": []}, {"00b": []}]


@pytest.mark.parametrize("tokens", NOTHING, ids=["no file", "no records", "empty lists", "some of each"])
def test_pictures_without_tokens_are_read_once_each(tokens: Tokens | None, tmp_path: Path) -> None:
    reader = Reader()
    found = read_completed(TEXTVQA, write_files(tmp_path, tokens), reader.into(tmp_path / "ocr"))
    assert shown(found) == READ
    assert reader.seen == ["RED", "LIME", "BLUE"]
    assert (found.num_pictures, found.libraries) == (3, [LIBRARY])
    assert [(one["id"], one["tokens"], one["library"]) for one in kept(tmp_path / "ocr")] == [
        (name, [colour, "{ink}"], LIBRARY) for name, colour in (("00a", "RED"), ("00b", "LIME"), ("00c", "BLUE"))
    ]


def test_tokens_of_the_annotations_stay(tmp_path: Path) -> None:
    reader = Reader()
    folder = write_files(tmp_path, {"00a": ["STOP"], "00c": ["GO"]})
    found = read_completed(TEXTVQA, folder, reader.into(tmp_path / "ocr"))
    assert shown(found) == ["STOP", "LIME, {ink}", "STOP", "GO"]
    assert (reader.seen, found.num_pictures) == (["LIME"], 1)


def test_where_none_is_missing_nothing_is_read_or_kept(tmp_path: Path) -> None:
    folder = write_files(tmp_path, {"00a": ["STOP"], "00b": ["SLOW"], "00c": ["GO"]})
    found = read_completed(TEXTVQA, folder, Reader().into(tmp_path / "ocr"))
    assert shown(found) == ["STOP", "SLOW", "STOP", "GO"]
    assert (found.num_pictures, found.libraries) == (0, [])
    assert not (tmp_path / "ocr").exists()


def test_a_picture_in_which_nothing_is_read_counts_as_read(tmp_path: Path) -> None:
    reader, folder = Reader(), write_files(tmp_path, None)
    blind = replace(reader.into(tmp_path / "ocr"), read=lambda image: ())
    assert shown(read_completed(TEXTVQA, folder, blind)) == [""] * 4
    assert shown(read_completed(TEXTVQA, folder, reader.into(tmp_path / "ocr"))) == [""] * 4
    assert not reader.seen


def test_empty_lists_of_a_copy_are_read(tmp_path: Path) -> None:
    reader = Reader()
    found = read_completed(TEXTVQA, write_copy(tmp_path, {"00b": ["STOP"]}), reader.into(tmp_path / "ocr"))
    assert shown(found) == [READ[0], "STOP", READ[2], READ[3]]
    assert reader.seen == ["RED", "BLUE"]
    assert [one["id"] for one in kept(tmp_path / "ocr")] == ["00a", "00c"]


def test_a_copy_that_names_no_pictures_has_one_per_question(tmp_path: Path) -> None:
    reader = Reader()
    found = read_completed(TEXTVQA, write_copy(tmp_path, {}, without="image_id"), reader.into(tmp_path / "ocr"))
    assert shown(found) == READ
    assert [one["id"] for one in kept(tmp_path / "ocr")] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("write_form", [lambda data: write_files(data, None), lambda data: write_copy(data, {})])
def test_only_pictures_of_the_items_that_are_used_are_read(write_form: Any, tmp_path: Path) -> None:
    reader = Reader()
    found = read_completed(TEXTVQA, write_form(tmp_path), reader.into(tmp_path / "ocr"), limit=3)
    assert shown(found) == READ[:3]
    assert reader.seen == ["RED", "LIME"]


def test_a_killed_run_goes_on_where_its_last_line_is_torn(tmp_path: Path) -> None:
    folder, said = write_files(tmp_path, None), list[str]()
    read_completed(TEXTVQA, folder, Reader().into(tmp_path / "ocr"))
    path = tmp_path / "ocr" / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    reader = Reader()
    assert shown(read_completed(TEXTVQA, folder, reader.into(tmp_path / "ocr", said=said))) == READ
    assert reader.seen == ["BLUE"]
    assert path.read_bytes() == whole
    assert said == [f"{path}: 2 done before, half a last line dropped"]


def test_another_version_keeps_what_was_read_and_both_are_named(tmp_path: Path) -> None:
    folder, older = write_files(tmp_path, None), Reader(library="stand-in 0.9")
    read_completed(TEXTVQA, folder, older.into(tmp_path / "ocr"), limit=1)
    reader = Reader()
    found = read_completed(TEXTVQA, folder, reader.into(tmp_path / "ocr"))
    assert reader.seen == ["LIME", "BLUE"]
    assert found.libraries == ["stand-in 0.9", LIBRARY]


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    folder = write_files(tmp_path, None)
    (tmp_path / "ocr").mkdir()
    (tmp_path / "ocr" / "records.jsonl").write_text('{"schema": "mine", "id": 1, "status": "ok"}\n')
    with pytest.raises(InputError, match=r"line 1 is no vlinstruct\.ocr/1 record"):
        read_completed(TEXTVQA, folder, Reader().into(tmp_path / "ocr"))


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    folder = write_files(tmp_path, None)
    (folder / "train_images" / "00b.jpg").write_text("<html>")
    with pytest.raises(ImageError, match=r"00b\.jpg"):
        read_completed(TEXTVQA, folder, Reader().into(tmp_path / "ocr"))
    assert [one["id"] for one in kept(tmp_path / "ocr")] == ["00a"]


class Killed(Exception):
    """Stands for a signal."""


def together(folder: Path, output: Path, readers: Sequence[Reader]) -> dict[int, list[str]]:
    """Runs as many threads as there would be processes, and returns what each shows in the end."""
    barrier, found = threading.Barrier(len(readers)), dict[int, list[str]]()

    def work(rank: int) -> None:
        processes = Processes(rank=rank, count=len(readers), wait=lambda: wait(barrier))
        try:
            found[rank] = shown(read_completed(TEXTVQA, folder, readers[rank].into(output, processes)))
        except (Killed, threading.BrokenBarrierError):
            barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(readers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def wait(barrier: threading.Barrier) -> None:
    barrier.wait(timeout=60)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_processes_share_the_pictures_and_end_with_the_tokens_of_all(count: int, tmp_path: Path) -> None:
    folder = write_files(tmp_path, None)
    read_completed(TEXTVQA, folder, Reader().into(tmp_path / "alone"))
    readers = [Reader() for _ in range(count)]
    assert together(folder, tmp_path / "ocr", readers) == dict.fromkeys(range(count), READ)
    assert sorted(one for reader in readers for one in reader.seen) == ["BLUE", "LIME", "RED"]
    assert [path.name for path in (tmp_path / "ocr").iterdir()] == ["records.jsonl"]
    whole = (tmp_path / "alone" / "records.jsonl").read_bytes()
    assert (tmp_path / "ocr" / "records.jsonl").read_bytes() == whole


def test_what_killed_processes_read_is_not_read_again(tmp_path: Path) -> None:
    folder = write_files(tmp_path, None)
    other, has_read = Reader(), threading.Event()

    def read_two(image: Image.Image) -> Sequence[str]:
        tokens = Reader.read(other, image)
        if len(other.seen) == 2:
            has_read.set()
        return tokens

    def die(image: Image.Image) -> Sequence[str]:
        has_read.wait(timeout=60)  # before, the other one would be waiting for this one to begin
        raise Killed

    killed = Reader()
    other.read, killed.read = read_two, die  # type: ignore[method-assign]
    assert together(folder, tmp_path / "ocr", [other, killed]) == {}
    part = tmp_path / "ocr" / "records-1.part.jsonl"
    part.write_bytes(b'{"schema": "vlinstruct.o')  # half a line
    reader = Reader()
    assert shown(read_completed(TEXTVQA, folder, reader.into(tmp_path / "ocr"))) == READ
    assert reader.seen == ["LIME"]


@pytest.mark.slow
def test_two_real_processes_leave_the_records_of_one(tmp_path: Path, reader: Reader) -> None:
    write_files(tmp_path, None)
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    words = ["evaluate", "textvqa", "--data", str(tmp_path), *QUICK, "-o", str(tmp_path / "two"), "--ocr", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", *launch, "evaluation.printed_pictures", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"ocr_pictures": 3' in done.stdout
    assert evaluate(tmp_path, tmp_path / "one", "--ocr").exit_code == 0
    for name in ("records.jsonl", "ocr/records.jsonl"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_the_table_and_the_page_say_what_read_how_many_pictures(tmp_path: Path, reader: Reader) -> None:
    write_files(tmp_path, {"00a": ["STOP"]})
    result = evaluate(tmp_path, tmp_path / "out", "--ocr", "--json")
    (table,) = result.records
    assert (table["ocr_pictures"], table["ocr_library"]) == (2, LIBRARY)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<dt>pictures whose text was read here</dt><dd>2</dd>" in page
    assert f"<dt>read by</dt><dd>{LIBRARY}</dd>" in page
    assert asked(tmp_path / "out") == ["STOP", READ[1], "STOP", READ[3]]
    expected = f"{LIBRARY} read the tokens of 2 pictures: the figures cannot be compared with those on the annotations'"
    assert f"notice: textvqa: {expected} Rosetta tokens" in result.stderr


def test_a_resumed_run_asks_the_same_and_reads_nothing(tmp_path: Path, reader: Reader) -> None:
    write_files(tmp_path, None)
    evaluate(tmp_path, tmp_path / "out", "--ocr")
    path = tmp_path / "out" / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    reader.seen.clear()
    assert evaluate(tmp_path, tmp_path / "out", "--ocr").exit_code == 0
    assert not reader.seen
    assert path.read_bytes() == whole


def test_nothing_is_said_of_a_library_that_read_nothing(tmp_path: Path, reader: Reader) -> None:
    write_files(tmp_path, {"00a": ["STOP"], "00b": ["SLOW"], "00c": ["GO"]})
    result = evaluate(tmp_path, tmp_path / "out", "--ocr", "--json")
    (table,) = result.records
    assert (table["ocr_pictures"], table["ocr_library"]) == (0, LIBRARY)
    assert "Rosetta" not in result.stderr
    assert "ocr_pictures" not in evaluate(tmp_path, tmp_path / "out", "--json").records[0]


def test_beside_minis_tasks_tokens_lie_with_the_official_records(tmp_path: Path, reader: Reader) -> None:
    write_files(tmp_path, None)
    assert evaluate(tmp_path, tmp_path / "out", "mini/vsr", "--limit", "2", "--ocr").exit_code == 0
    assert len(kept(tmp_path / "out" / "official" / "ocr")) == 2


def test_without_the_option_a_missing_file_or_record_names_it(tmp_path: Path) -> None:
    folder = write_files(tmp_path, None)
    line = evaluate(tmp_path, tmp_path / "out").refusal(4)
    assert "TextVQA_Rosetta_OCR_v0.2_val.json): no such file" in line
    assert "--ocr" in line
    write_files(tmp_path, {"00a": ["STOP"]})
    assert "no tokens of its image 00b; --ocr reads them" in evaluate(tmp_path, tmp_path / "out").refusal(4)
    assert "--ocr" in check(TEXTVQA, folder).problems[0]


def test_the_check_of_the_data_does_without_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlinstruct.evaluation.benchmarks.textvqa.BENCHMARK", replace(TEXTVQA, num_items=4))
    good = "textvqa: nothing is wrong: 4 items, 3 pictures, some headers read (--decode reads pictures whole)\n"
    for tokens in NOTHING:
        shutil.rmtree(tmp_path / "textvqa", ignore_errors=True)
        write_files(tmp_path, tokens)
        assert vli("evaluate", "textvqa", "--data", tmp_path, "--check-data", "--ocr").text == good
    (tmp_path / "textvqa" / "train_images" / "00b.jpg").unlink()
    assert "1 of 3 are missing" in check(TEXTVQA.without_tokens(), tmp_path / "textvqa").problems[0]


def test_tokens_that_are_wrong_stay_wrong(tmp_path: Path, reader: Reader) -> None:
    folder = write_files(tmp_path, {})
    dump(folder / "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": [{"image_id": "00a", "ocr_tokens": "STOP"}]})
    assert "field 'ocr_tokens' is no list" in evaluate(tmp_path, tmp_path / "out", "--ocr").refusal(4)


def test_the_authors_files_come_before_tables_that_have_tokens_and_that_is_said(tmp_path: Path, reader: Reader) -> None:
    folder = write_copy(tmp_path, {"00a": ["STOP"]})
    shutil.copytree(tmp_path / "official" / "textvqa", folder, dirs_exist_ok=True)
    result = evaluate(tmp_path, tmp_path / "out", "--ocr")
    assert f"textvqa: its authors' files are read, the tables in {folder} are not" in result.stderr
    assert asked(tmp_path / "out") == READ


def test_benchmarks_that_show_no_tokens_have_no_use_for_it(tmp_path: Path, reader: Reader) -> None:
    for names in (("gqa",), ("gqa", "mini/textvqa"), ("mini",)):
        for more in ((), ("--check-data",)):
            line = vli("evaluate", *names, "--data", tmp_path, "--ocr", *more, "-o", tmp_path / "out").refusal(2)
            assert f"the tokens that textvqa shows; of {', '.join(names)} none does" in line
    write(tmp_path, "gqa")
    write_files(tmp_path, None)
    assert evaluate(tmp_path, tmp_path / "out", "gqa", "--ocr").exit_code == 0


def test_a_missing_library_is_named_as_ask_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, None)
    for name in ("rapidocr", "onnxruntime"):
        ocr._reader.cache_clear()
        with monkeypatch.context() as without:
            without.setitem(sys.modules, name, None)
            line = evaluate(tmp_path, tmp_path / "out", "--ocr").refusal(6)
            assert line == vli("ask", tmp_path / "a.png", "what?", "--ocr").refusal(6)
        assert "which is not installed: pip install 'vlinstruct[ocr]'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="the extra ocr is not installed")
def test_a_printed_word_reaches_the_instruction(tmp_path: Path) -> None:
    folder = write_files(tmp_path, None)
    (font,) = (Path(vlinstruct.mini.__file__).parent / "test_fonts").glob("test-a.ttf")
    for image, word in (("00a", "HARBOR"), ("00b", "BAKERY")):
        picture = Image.new("RGB", (240, 100), "white")
        ImageDraw.Draw(picture).text((25, 25), word, font=ImageFont.truetype(str(font), 44), fill="black")
        picture.save(folder / "train_images" / f"{image}.jpg")
    (table,) = evaluate(tmp_path, tmp_path / "out", "--ocr", "--limit", "3", "--json").records
    assert asked(tmp_path / "out") == ["HARBOR", "BAKERY", "HARBOR"]
    assert (table["ocr_pictures"], table["ocr_library"]) == (2, ocr.ocr_library())


def without_tokens(folder: Path, form: str) -> Path:
    """Textvqa's files, or a copy of them, without any token."""
    if form == "files":
        (write(folder, "textvqa") / "textvqa" / "TextVQA_Rosetta_OCR_v0.2_val.json").unlink()
        return folder
    path = next(hub_copies.write_copy(folder, "textvqa").rglob("validation*.parquet"))
    rows = hub_copies.rows_of(path.parent, path.name)
    if form == "no column":
        rows = [{name: value for name, value in row.items() if name != "ocr_tokens"} for row in rows]
    else:
        rows = [{**row, "ocr_tokens": None} for row in rows]
    hub_copies.dump_parquet(path, rows)
    return folder


@pytest.mark.parametrize("form", ["files", "no column", "null"])
def test_textvqa_without_tokens_is_asked_by_its_questions_alone_and_that_is_said(form: str, tmp_path: Path) -> None:
    command = ("evaluate", "textvqa", "--data", without_tokens(tmp_path, form), *QUICK, "-o", tmp_path / "out")
    result = vli(*command, "--no-ocr-tokens", "--json")
    (table,) = result.records
    assert table["ocr_tokens"] == "not shown"
    assert "no OCR tokens are shown: the figures cannot be compared" in result.stderr
    lines = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    assert {json.loads(line)["initial"]["text"].split(":")[0] for line in lines} == {"Question"}
    assert "ocr tokens: not shown" in vli(*command, "--no-ocr-tokens").text
    assert "<dt>OCR tokens</dt><dd>not shown</dd>" in (tmp_path / "out" / "report.html").read_text()
    if form == "null":
        other = vli(*command[:-1], tmp_path / "empty", "--json")
        assert (other.records[0]["ocr_tokens"], other.records[0]["items_without_ocr_tokens"]) == ("shown", 2)
        assert "--no-ocr-tokens asks the question alone" in other.stderr
        records = [json.loads(line) for line in (tmp_path / "empty" / "records.jsonl").read_text().splitlines()]
        assert [record["ocr_tokens"] for record in records] == [0, 0]
    else:
        vli(*command).refusal(4)


@pytest.mark.parametrize(
    ("more", "words"), [(("textvqa", "--ocr"), "Give one of the two"), (("vsr",), "of vsr none does")]
)
def test_leaving_out_tokens_that_nobody_shows_is_usage(more: tuple[str, ...], words: str, tmp_path: Path) -> None:
    assert words in vli("evaluate", *more, "--no-ocr-tokens", "--data", tmp_path).refusal(2)
