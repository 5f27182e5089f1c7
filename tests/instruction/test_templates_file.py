from __future__ import annotations

import time

import pytest

from vlinstruct.errors import DataError
from vlinstruct.instruction import Templates
from vlinstruct.instruction.templates_file import MAX_FILE_BYTES

GOOD = 'rewrite: "{instruction}"\nscore: "S:"\ncompare: "{candidates}"\ncompare_item: "{instruction} {ias}"\n'
KEYS = "it must be a mapping with the keys rewrite, score, compare, compare_item"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.replace("score", "scor"), "unknown key 'scor'; did you mean score?; missing: score"),
        (GOOD.replace('score: "S:"\n', ""), "missing: score"),
        (GOOD + "score: again", "key 'score' occurs twice (lines 2 and 5)"),
        (GOOD + "zzz: x", "unknown key 'zzz'"),
        (GOOD + "<<: x", "unknown key '<<'"),
        (GOOD.replace('"S:"', "on"), "'score' must be a text, got 'on' (line 2): put it in quotes"),
        (GOOD.replace('"S:"', "1.5"), "'score' must be a text, got '1.5' (line 2)"),
        (GOOD.replace('"S:"', "2024-99-99"), "'score' must be a text, got '2024-99-99' (line 2)"),
        (GOOD.replace('"S:"', ""), "'score' must be a text, got '' (line 2)"),
        (GOOD.replace('"S:"', "[a, b]"), "lists and mappings are nested more than 1 deep (line 2)"),
        (GOOD.replace('"S:"', "{a: b}"), "lists and mappings are nested more than 1 deep (line 2)"),
        (GOOD.replace('"S:"', "!!python/object/apply:os.system [x]"), "YAML tags (!) are not allowed (line 2)"),
        (GOOD.replace('"S:"', "!!python/name:os.system x"), "YAML tags (!) are not allowed (line 2)"),
        (GOOD.replace('"S:"', "&a S").replace('"{candidates}"', "*a"), "aliases (& and *) are not allowed (line 2)"),
        (GOOD.replace('"S:"', "a: b: c"), "it is not valid YAML (line 2): mapping values are not allowed here"),
        (GOOD + "---\na: b", "it is not valid YAML (line 5): but found another document"),
        (GOOD.replace("S:", "\0"), "it is not valid YAML (line 2): special characters are not allowed"),
        ("\tscore: x", "it is not valid YAML (line 1): found character '\\t'"),
        (GOOD.replace("S:", "\\ud800"), "template 'score' is not valid Unicode"),
        (GOOD.replace("{candidates}", "x"), "template 'compare' lacks {candidates}"),
        ("", KEYS),
        ("- 1", KEYS),
        ("just text", KEYS),
        ("[" * 500, "lists and mappings are nested more than 1 deep (line 1)"),
        ("a: " + "[" * 60_000, "lists and mappings are nested more than 1 deep (line 1)"),
        ("#" * (MAX_FILE_BYTES + 1), "it is larger than 64 KiB"),
        (GOOD.encode() + b"\xff", f"it is not UTF-8 (byte {len(GOOD)})"),
        ("".join(f"k{number}: x\n" for number in range(500)), "unknown key 'k0'; unknown key 'k1'; unknown key 'k2'; "),
    ],
)
def test_a_wrong_file_is_refused_in_one_short_line(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        Templates.load(path)
    shown = caught.value.message
    assert message in shown
    assert "mine.yaml" in shown
    assert "\n" not in shown
    assert len(shown) <= 300


@pytest.mark.parametrize("name", ["missing.yaml", ".", "nul\0.yaml"])
def test_a_path_that_cannot_be_read_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="it cannot be read"):
        Templates.load(f"{tmp_path}/{name}")


def test_a_brace_that_never_closes_takes_no_time(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("S:", "{" + "a" * 60_000))
    start = time.process_time()
    assert Templates.load(path).score_prompt().startswith("{aaa")
    assert time.process_time() - start < 5
