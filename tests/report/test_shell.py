"""The frame of every page, as far as it needs no browser."""

from __future__ import annotations

import json

import pytest

from vlinstruct.report.shell import data_block, is_page, json_text, page, text


@pytest.mark.parametrize("value", ["</script>", "<!--<script>", "a\u2028\ud800\x00<", {"<": ["\u202e", 1.5, None]}])
def test_data_comes_back_as_it_was_and_holds_nothing_that_ends_it(value: object) -> None:
    assert json.loads(json_text(value)) == value
    assert "<" not in json_text(value)
    json_text(value).encode("utf-8")
    assert "\n" not in json_text({"a": "\n", "b": "\r"})


def test_numbers_that_json_lacks_are_refused_before_a_page_is_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        data_block("d", float("nan"))


def test_marks_that_reorder_a_line_are_shown_as_escapes() -> None:
    assert text("a\u202eb") == "a\\u202eb"


def test_a_page_is_known_by_how_it_begins() -> None:
    assert is_page(page("t", []).encode())
    assert not is_page(b"<!doctype html>\n<html lang='en'>")
