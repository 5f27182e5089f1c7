from __future__ import annotations

import time

import pytest

from vlinstruct.instruction.content import content_changes, echoes, frame, literal_changes, loops, numbers, quotations
from vlinstruct.instruction.options import options

OPTIONS = "Question: Which fruit? Options: (a) apple (b) banana (c) red apple \n Answer:"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no digits, three", []),
        ("3 and 3.", ["3", "3"]),
        ("3.50, 1,000; 12:30 1/2", ["3.50", "1,000", "12:30", "1/2"]),
        ("-5 +5 \u22125 .5 -.5", ["-5", "+5", "\u22125", ".5", "-.5"]),
        ("3-5 2024-01-02 COVID-19", ["3", "5", "2024", "01", "02", "19"]),
        ("1e-4 2E5 1e5kg", ["1e-4", "2E5", "1", "5"]),
        ("A4 (2) x=7", ["4", "2", "7"]),
        ("٣", ["٣"]),
    ],
)
def test_numbers_are_found_as_written(text, expected):
    assert numbers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("say 'a b' \"c\" “d” \u2018e\u2019", ["a b", "c", "d", "e"]),
        ("don't, dogs' bowls, it's, rock'n'roll, don\u2019t", []),
        ("'don't stop' and \u2018don\u2019t go\u2019", ["don't stop", "don\u2019t go"]),
        ("('stop')", ["stop"]),
        ('"two\nlines"', ["two\nlines"]),
        ("5\" ' “ \u2018", []),
        ("'say \"x\" now'", ['say "x" now']),
    ],
)
def test_quotations_are_found_and_apostrophes_are_not(text, expected):
    assert quotations(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPTIONS, ["(a) apple", "(b) banana", "(c) red apple"]),
        ("Is it (a) a cat, (b) a dog? Say it.", ["(a) a cat", "(b) a dog"]),
        ("(1) 3.5 m (2) 4.5 m", ["(1) 3.5 m", "(2) 4.5 m"]),
        ("object(s), f(x), (see below)", []),
        ("(a)", ["(a)"]),
    ],
)
def test_options_are_found(text, expected):
    assert options(text) == expected


@pytest.mark.parametrize(
    ("initial", "candidate", "changes"),
    [
        ("2 cats, 2 dogs", "How many: 2 dogs or 2 cats?", []),
        ("2 cats, 2 dogs", "2 cats and dogs", ["loses the number 2"]),
        ("is it 3.50?", "is it 3.5?", ["loses the number 3.50"]),
        ("is it 3?", "is it 3 or 4?", []),
        ("What does 'stop' mean?", "What is the meaning of “stop”?", []),
        ("What does 'stop' mean?", "What does stop mean?", ["loses the quotation 'stop'"]),
        ("Don't say it", "Do not say it", []),
        (OPTIONS, "Which fruit is it: (c) red apple (b) banana (a) apple Answer:", []),
        (OPTIONS, "Pick one. (a) apple, (b) banana, (c) red apple.", []),
        (OPTIONS, "Which fruit? (a) apple (b) banana", ["loses the option '(c) red apple'"]),
        (
            OPTIONS,
            "(a) banana (b) apple (c) red apple",
            ["loses the option '(a) apple'", "loses the option '(b) banana'"],
        ),
        (OPTIONS, "(a) apple (b) banana (c) red apples", ["loses the option '(c) red apple'"]),
        (OPTIONS, "(a) apple pie (b) banana (c) red apple", ["loses the option '(a) apple'"]),
        (OPTIONS, "(a) apple (b) banana (c) red apple (d) kiwi", ["adds an option (d)"]),
        ("Which fruit?", "Which fruit? (a) apple", ["adds an option (a)"]),
        ("9" * 99, "", [f"loses the number {'9' * 12}...{'9' * 25}"]),
    ],
)
def test_numbers_quotations_and_options_are_kept_or_their_changes_are_named(initial, candidate, changes):
    assert literal_changes(initial, candidate) == changes


def test_an_instruction_keeps_its_own_content(hostile):
    assert content_changes(hostile, hostile) == []


@pytest.mark.parametrize(
    "candidate",
    [
        "There is the text what is it.",
        "Please modify the text to make it better",
        "PLEASE  modify the\ntext to make it better!",
        "Based on the image given, the most appropriate instruction should be: what is it?",
        "These are instructions for the image, from worst to best",
        "Instruction: What is it?",
        "What is it? Score: 1",
    ],
)
def test_a_candidate_that_repeats_a_template_is_recognised(templates, candidate):
    every = (templates.rewrite, templates.score, templates.compare, templates.compare_item)
    assert any(echoes(template, initial="what is it", candidate=candidate) for template in every)


@pytest.mark.parametrize(
    ("initial", "candidate"),
    [
        ("what is it", "Based on the image given, what is it?"),
        ("what is it", "What is the text? Question: what is it"),
        ("Instruction: what", "Instruction: What is it?"),
        ("Please modify the text to make it better", "Please modify the text to make it better."),
        ("the score?", "What is the score?"),
        ("", ""),
    ],
)
def test_the_users_own_words_are_no_echo(templates, initial, candidate):
    every = (templates.rewrite, templates.score, templates.compare, templates.compare_item)
    assert not any(echoes(template, initial=initial, candidate=candidate) for template in every)


def test_a_template_of_punctuation_alone_is_never_echoed():
    assert not echoes("{instruction}: {ias}", initial="what", candidate="what: it")


@pytest.mark.parametrize("part", [" 'a", "a'", "\u2018a ", "“a", '"', "(a) x ", "1e", "1.", "-", ".1", "9"])
def test_long_texts_take_linear_time(part):
    text = part * (100_000 // len(part))
    start = time.process_time()
    content_changes(text, "what 'is' it (a) x")
    content_changes("what 'is' it (a) x", text)
    echoes("There is the text {instruction}. Do it.", initial="x", candidate=text)
    assert time.process_time() - start < 5  # quadratic time would be minutes
