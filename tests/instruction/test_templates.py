from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from vlinstruct.errors import DataError
from vlinstruct.instruction import Templates, templates_source
from vlinstruct.instruction.templates import MAX_FILE_BYTES, fill

KEEP = "retaining the sentence structure and keywords."
REWRITE = f"There is the text {{}}. Please modify the text to make it better while {KEEP}"
GOOD = 'rewrite: "{instruction}"\nscore: "S:"\ncompare: "{candidates}"\ncompare_item: "{instruction} {ias}"\n'
KEYS = "it must be a mapping, lines of name: value, got"


def test_the_rewriting_prompt_is_the_papers(templates):
    assert templates.rewrite_prompt("what is it?") == REWRITE.replace("{}", "what is it?")


def test_the_score_prompt_ends_at_should_be_without_a_space(templates):
    assert templates.score_prompt() == "Based on the image given, the most appropriate instruction should be:"


def test_the_comparison_lists_the_candidates_in_the_order_given(templates, scored):
    prompt = templates.compare_prompt([scored("what", 2.5), scored("what is it?", 1 / 3)])
    assert "Instruction: what Score: 2.5000. Instruction: what is it? Score: 0.3333. The best" in prompt
    assert prompt.endswith("The best instruction for the image is:")


def test_what_a_user_types_stays_literal_when_rewriting(templates, hostile):
    assert templates.rewrite_prompt(hostile) == REWRITE.split("{}")[0] + hostile + REWRITE.split("{}")[1]


def test_what_a_user_types_stays_literal_when_comparing(templates, scored, hostile):
    prompt = templates.compare_prompt([scored(hostile, 2.0), scored(hostile, 1.0)])
    assert f"Instruction: {hostile} Score: 2.0000. Instruction: {hostile} Score: 1.0000. The best" in prompt


def test_a_field_may_occur_twice_and_other_braces_are_text(templates):
    edited = replace(templates, rewrite='{"text": "{instruction}"} {} {0} again: {instruction}')
    assert edited.rewrite_prompt("{x}") == '{"text": "{x}"} {} {0} again: {x}'


def test_filling_does_not_read_the_values_again():
    assert fill("{a}{b}", a="{b}", b="{a}") == "{b}{a}"


def test_the_printed_source_is_a_templates_file_of_the_defaults(tmp_path, templates):
    path = tmp_path / "mine.yaml"
    path.write_text(templates_source(), encoding="utf-8")
    assert Templates.load(path) == templates


def test_an_edited_copy_is_used(tmp_path, templates):
    path = tmp_path / "mine.yaml"
    path.write_text(templates_source().replace("should be:", "is: |"), encoding="utf-8-sig")
    assert Templates.load(str(path)).score_prompt().endswith("the most appropriate instruction is: |")


def test_white_space_around_a_text_of_the_file_is_removed(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        'rewrite: "{instruction} "\nscore: |\n  S:\n\ncompare: "{candidates}"\ncompare_item: "{instruction} {ias}"'
    )
    assert Templates.load(path).score_prompt() == "S:"
    assert Templates.load(path).rewrite_prompt("x") == "x"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rewrite", "Rewrite it", "template 'rewrite' lacks {instruction}"),
        ("rewrite", "{instruction} {ias}", "template 'rewrite' contains {ias}, but it has {instruction}"),
        ("rewrite", "{ instruction }", "template 'rewrite' lacks {instruction}"),
        ("score", "Best: {instruction}", "template 'score' contains {instruction}, but it has no fields"),
        ("score", "should be: ", "template 'score' must not begin or end with white space"),
        ("score", " \n", "template 'score' is empty"),
        ("score", "\ud800", "template 'score' is not valid Unicode"),
        ("score", 5, "template 'score' must be a text, got int"),
        ("compare", "Which?", "template 'compare' lacks {candidates}"),
        ("compare_item", "{instruction}", "template 'compare_item' lacks {ias}"),
        ("compare_item", "{instruction} {ias} {ias:.2f}", "contains {ias:.2f}, but it has {instruction} and {ias}"),
    ],
)
def test_a_wrong_template_is_refused(templates, name, text, message):
    with pytest.raises(DataError) as caught:
        replace(templates, **{name: text})
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.replace("score", "scor"), "unknown key scor; did you mean score? (line 2); missing: score"),
        (GOOD.replace('score: "S:"\n', ""), "missing: score"),
        (GOOD + "score: again", "duplicate key score (lines 2 and 5)"),
        (GOOD + "zzz: x", "unknown key zzz (line 5)"),
        (GOOD + "<<: x", "unknown key << (line 5)"),
        (GOOD.replace('"S:"', ""), "score has no value (line 2)"),
        (GOOD.replace('"S:"', "null"), "score must be a text, got null (line 2)"),
        (GOOD.replace('"S:"', "[a, b]"), "score must be a text, got a list (line 2)"),
        (GOOD.replace('"S:"', "{a: b}"), "score must be a text, got a mapping (line 2)"),
        (GOOD.replace('"S:"', "!!python/object/apply:os.system [x]"), "YAML tags (!) are not allowed (line 2)"),
        (GOOD.replace('"S:"', "!!python/name:os.system x"), "YAML tags (!) are not allowed (line 2)"),
        (GOOD.replace('"S:"', "&a S").replace('"{candidates}"', "*a"), "aliases (& and *) are not allowed (line 2)"),
        (GOOD.replace('"S:"', "a: b: c"), "it is not valid YAML (line 2): mapping values are not allowed here"),
        (GOOD + "---\na: b", "it is not valid YAML (line 5): but found another document"),
        (GOOD.replace("S:", "\0"), "it is not valid YAML (line 2): special characters are not allowed"),
        ("\tscore: x", "it is not valid YAML (line 1): found character '\\t'"),
        (GOOD.replace("S:", "\\ud800"), "score holds a NUL or half a character (line 2)"),
        (GOOD.replace("{candidates}", "x"), "template 'compare' lacks {candidates}"),
        ("", KEYS),
        ("- 1", KEYS),
        ("just text", KEYS),
        ("[" * 500, "lists and mappings are nested more than 3 deep (line 1)"),
        ("a: " + "[" * 60_000, "lists and mappings are nested more than 3 deep (line 1)"),
        ("#" * (MAX_FILE_BYTES + 1), "at most 65,536 are read"),
        (GOOD.encode() + b"\xff", "it is not UTF-8 (line 5)"),
        (
            "".join(f"k{number}: x\n" for number in range(500)),
            "unknown key k0 (line 1); unknown key k1 (line 2); unknown key k2 (line 3); ",
        ),
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
    with pytest.raises(DataError, match="cannot read file"):
        Templates.load(f"{tmp_path}/{name}")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(DataError, match="not a regular file"):
        Templates.load(tmp_path / "pipe.yaml")


def test_a_text_needs_no_quotes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace('"S:"', "1.50"))
    assert Templates.load(path).score_prompt() == "1.50"


def test_a_brace_that_never_closes_takes_no_time(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("S:", "{" + "a" * 60_000))
    start = time.perf_counter()
    assert Templates.load(path).score_prompt().startswith("{aaa")
    assert time.perf_counter() - start < 1
