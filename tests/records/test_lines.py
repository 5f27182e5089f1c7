"""Our JSON-lines file of images and questions: a bad line is named and never stops the rest."""

import json
import os

import pytest

from vlinstruct.errors import DataError, InputError, TextError
from vlinstruct.media.fetch import Url
from vlinstruct.records import lines
from vlinstruct.records.items import Item, ItemError, read_items
from vlinstruct.records.lines import ItemOptions

GOOD = '{"image": "a.png", "question": "what?"}'


@pytest.fixture
def items_file(tmp_path):
    def write(*lines):
        path = tmp_path / "items.jsonl"
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
        return path

    return write


@pytest.fixture
def bad_line(items_file, refused):
    """Reads a file whose third line is the given one; it must fail by itself, and is returned."""

    def read(line, code, expected=DataError, **options):
        items = read_items(items_file(GOOD, "", line, GOOD), options=ItemOptions(**options))
        assert [type(item) for item in items] == [Item, ItemError, Item]
        assert [item.line for item in items] == [1, 3, 4]

        def fail():
            raise items[1].error

        error = refused(expected, code, fail)
        assert "items.jsonl line 3)" in error.message
        return items[1]

    return read


def test_a_line_becomes_an_item(items_file, tmp_path):
    path = items_file(
        '{"image": "sub/a.png", "question": " what?\\n", "id": "q1", "answer": 3}',
        '{"image": "./b.png", "instruction": "name it", "id": 7}\r',
        GOOD,
    )
    assert read_items(path) == (
        Item(id="q1", image=tmp_path / "sub/a.png", question=" what?\n", line=1),
        Item(id=7, image=tmp_path / "b.png", question="name it", line=2),
        Item(id="line-3", image=tmp_path / "a.png", question="what?", line=3),
    )


@pytest.mark.parametrize("field", ["image", "question"])
def test_missing_field_is_named_with_its_line(field, bad_line):
    record = json.loads(GOOD)
    del record[field]
    item = bad_line(json.dumps({**record, "id": "q9"}), "missing_field")
    assert f"field '{field}' is missing" in item.error.message
    assert item.id == "q9"


@pytest.mark.parametrize("line", ['{"image": "a.png", "question"', "{'image': 1}", "nonsense", '"text"', "3", "{}{}"])
def test_malformed_json_is_a_line_error(line, bad_line):
    assert bad_line(line, "bad_json").id == "line-3"


def test_a_cut_last_line_leaves_the_others(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(GOOD + "\n" + GOOD[:20])
    first, last = read_items(path)
    assert isinstance(first, Item)
    assert isinstance(last, ItemError)


def test_two_objects_on_a_line_are_an_error_and_a_top_level_list_is_read(bad_line, items_file, tmp_path):
    bad_line(GOOD + " " + GOOD, "bad_json")
    first, second = read_items(items_file("[", GOOD, ",", GOOD, "]"))
    assert (first.id, first.line, first.question) == ("record-1", 1, "what?")
    assert (second.id, second.image) == ("record-2", tmp_path / "a.png")


def test_the_column_of_an_error_is_counted_within_the_line(bad_line):
    assert "not valid JSON at column 18 " in bad_line('{"image": "a.png"', "bad_json").error.message


def test_byte_order_mark(items_file):
    assert isinstance(read_items(items_file(b"\xef\xbb\xbf" + GOOD.encode()))[0], Item)


def test_latin_1_line_and_utf_16_file(bad_line, items_file, refused):
    assert "not UTF-8" in bad_line('{"image": "é.png", "question": "?"}'.encode("latin-1"), "encoding").error.message
    refused(DataError, "encoding", read_items, items_file(GOOD.encode("utf-16")))


def test_duplicate_ids_are_refused_listing_five(items_file, refused):
    lines = [json.dumps({"image": "a", "question": "q", "id": f"q{n % 7}\n"}) for n in range(20)]
    error = refused(DataError, "duplicate_ids", read_items, items_file(*lines))
    assert "7 ids are used twice: q0\\n, q1\\n, q2\\n, q3\\n, q4\\n" in error.message
    assert "q5" not in error.message
    lines = [json.dumps({"image": "a", "question": "q", "id": value}) for value in (7, "7")]
    refused(DataError, "duplicate_ids", read_items, items_file(*lines))
    lines = [GOOD, json.dumps({"image": "a", "question": "q", "id": "line-1"})]
    refused(DataError, "duplicate_ids", read_items, items_file(*lines))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ('"image": "b.png"', "field 'image' is given twice"),
        ('"score": NaN', "NaN is no JSON number"),
        ('"score": -Infinity', "-Infinity is no JSON number"),
        ('"score": ' + "9" * 5000, "a number has too many digits"),
        ('"score": ' + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('"score": ' + '{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
    ],
    ids=["duplicate key", "NaN", "Infinity", "digits", "lists", "objects"],
)
def test_hostile_json_is_a_line_error(fields, why, bad_line):
    assert why in bad_line(GOOD[:-1] + ", " + fields + "}", "bad_json").error.message


@pytest.mark.parametrize("image", ["../../etc/passwd", "/etc/passwd", "a/../../x.png", "..", "./../x.png"])
def test_paths_that_lead_out_need_allow_outside(image, bad_line, items_file, tmp_path):
    line = json.dumps({"image": image, "question": "q"})
    bad_line(line, "image_outside")
    item = read_items(items_file(line), options=ItemOptions(allow_outside=True))[0]
    assert os.path.normpath(item.image) == os.path.normpath(tmp_path / image)


def test_what_is_checked_is_what_is_opened(items_file, tmp_path):
    (tmp_path / "link").symlink_to("/etc/ssl")
    assert read_items(items_file('{"image": "link/../x.png", "question": "q"}'))[0].image == tmp_path / "x.png"


@pytest.mark.parametrize("link", ["folder", "folder/deeper", "b.png"])
def test_a_link_that_leads_out_needs_allow_outside(link, bad_line, items_file, tmp_path):
    place = tmp_path / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(tmp_path.parent)
    image = link if link == "b.png" else f"{link}/secret.png"
    line = json.dumps({"image": image, "question": "q"})
    error = bad_line(line, "image_outside").error
    assert "behind a link" in error.message
    assert "--allow-outside" in error.advice
    assert read_items(items_file(line), options=ItemOptions(allow_outside=True))[0].image == tmp_path / image


def test_a_link_that_stays_inside_is_followed(items_file, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "loop").symlink_to("loop")
    lines = [json.dumps({"image": image, "question": "q"}) for image in ("link/a.png", "link/../b.png", "loop")]
    assert [item.image for item in read_items(items_file(*lines))] == [
        tmp_path / name for name in ("link/a.png", "b.png", "loop")
    ]


def test_a_folder_that_is_a_link_itself_is_no_way_out(items_file, tmp_path):
    items_file(GOOD)
    link = tmp_path.with_name("link_to_items")
    link.symlink_to(tmp_path)
    assert read_items(link / "items.jsonl")[0].image == link / "a.png"


@pytest.mark.parametrize("folder", [".", "data/val"])
def test_the_pictures_of_a_hub_snapshot_are_links_to_its_blobs(folder, tmp_path):
    blobs, place = tmp_path / "datasets--a--b" / "blobs", tmp_path / "datasets--a--b" / "snapshots" / "0a1b" / folder
    blobs.mkdir(parents=True)
    place.mkdir(parents=True)
    for name, content in (("metadata.jsonl", GOOD), ("a.png", "")):
        (blobs / name).write_text(content)
        (place / name).symlink_to(blobs / name)
    assert read_items(place)[0].image == place / "a.png"
    (place / "a.png").unlink()
    (place / "a.png").symlink_to(tmp_path / "elsewhere.png")
    assert read_items(place)[0].error.code == "image_outside"


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "train.parquet", "train-00000-of-00001.parquet"])
def test_a_folders_own_records_are_no_link_out_of_it(name, tmp_path, refused):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").write_text("root:x:0:0")
    (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere")
    error = refused(DataError, "data_outside", read_items, tmp_path / "data")
    assert "root:x" not in error.message


def test_the_real_place_of_a_picture_is_looked_up_once(items_file, monkeypatch):
    real_places = []
    original = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path, **more: real_places.append(path) or original(path, **more))
    items = read_items(items_file(*[json.dumps({"image": f"{n}.png", "question": "q"}) for n in range(50)]))
    assert real_places == [item.image for item in items]


@pytest.mark.parametrize("lines", [[""], ["", " ", "\t"]])
def test_nothing_to_do(lines, items_file, refused):
    assert "nothing to do" in refused(DataError, "nothing_to_do", read_items, items_file(*lines)).message


@pytest.mark.parametrize("value", ["null", "3", "[]", '""', "{}", "true"])
def test_fields_of_the_wrong_kind(value, bad_line):
    bad_line(f'{{"image": {value}, "question": "q"}}', "bad_field")
    bad_line(f'{{"image": "a", "question": {value}}}', "bad_field")


@pytest.mark.parametrize("value", ["null", "1.5", "[]", '""', "true", '"\\ud800"'])
def test_ids_of_the_wrong_kind(value, bad_line):
    assert bad_line(f'{{"id": {value}, "image": "a", "question": "q"}}', "bad_field").id == "line-3"


def test_both_names_of_the_text_are_refused(bad_line):
    bad_line('{"image": "a", "question": "q", "instruction": "i"}', "bad_field")


def test_compressed_files_are_named(items_file, refused):
    import gzip

    for content in (gzip.compress(GOOD.encode()), b"PK\x03\x04....", b"BZh91AY"):
        error = refused(DataError, "compressed", read_items, items_file(content))
        assert "compressed input not supported" in error.message


def test_texts_no_model_can_be_asked(bad_line):
    bad_line('{"image": "a", "question": " \\u200b"}', "text_empty", TextError)
    bad_line('{"image": "a", "question": "\\ud800"}', "text_not_unicode", TextError)
    bad_line(json.dumps({"image": "a", "question": "x" * 20_001}), "text_too_long", TextError)


def test_a_ten_megabyte_line_is_refused_before_it_is_parsed(bad_line):
    item = bad_line(json.dumps({"image": "a", "question": "x" * 10_000_000}), "line_too_long")
    assert "more than 1,000,000 bytes" in item.error.message


def test_a_line_of_exactly_the_cap_is_read(items_file, monkeypatch):
    line = json.dumps({"image": "a", "question": "q"})
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", len(line) + 1)
    assert isinstance(read_items(items_file(line))[0], Item)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", len(line))
    assert isinstance(read_items(items_file(line))[0], ItemError)


def test_nul_in_a_path_is_refused_and_in_a_question_kept(bad_line, items_file):
    bad_line('{"image": "a.png\\u0000.jpg", "question": "q"}', "bad_field")
    assert read_items(items_file('{"image": "a", "question": "a\\u0000b"}'))[0].question == "a\0b"


def test_urls_in_data_files_need_permission(bad_line, items_file):
    line = '{"image": "https://example.org/a.png", "question": "q"}'
    bad_line(line, "url_refused")
    item = read_items(items_file(line), options=ItemOptions(allow_urls=True))[0]
    assert item.image == Url(address="https://example.org/a.png")
    bad_line('{"image": "data:image/png;base64,AA", "question": "q"}', "url_refused", allow_urls=True)
    bad_line('{"image": "FILE:///etc/passwd", "question": "q"}', "image_outside", allow_urls=True)


def test_files_that_cannot_be_read(tmp_path, refused):
    refused(DataError, "data_missing", read_items, tmp_path / "nosuch.jsonl")
    refused(DataError, "nothing_to_do", read_items, tmp_path)
    os.mkfifo(tmp_path / "fifo")
    refused(InputError, "data_not_regular", read_items, tmp_path / "fifo")
