from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import yaml

from vlinstruct.instruction.content import content_changes, echoes, frame, literal_changes, loops, numbers, quotations
from vlinstruct.instruction.options import options

PAIRS = [
    pytest.param(*pair.replace("\\n", "\n").split(" -> "), side == "kept", id=f"{kind}: {pair}")
    for kind, sides in yaml.safe_load(Path(__file__).with_name("content_pairs.yaml").read_text("utf-8")).items()
    for side, pairs in sides.items()
    for pair in pairs.splitlines()
]
FRAMED = [
    ("OCR tokens: a, b, c. Question: ", "what is written?", " Short answer:"),
    ("OCR tokens: 5, a. b, stop.\n", "what does it say?", ""),
    ("Reference OCR token: coca, cola\n", "what brand is it", "\nAnswer:"),
    ("Context: it is late. Question: ", "is he tired?", "\nThe answer:"),
    ("Question: is it a? Answer: yes. Question: ", "is it b?", " Answer: "),
    ("", "Which fruit?", " (a) apple (b) banana"),
    ("", "What is it?", "\nA. cat\nB. dog\nAnswer with the letter."),
    ("Q: ", "what colour is it?", " Options: red, blue. A:"),
    ("", "is it red or blue?", ""),
    ("", "(a) apple (b) banana", ""),
    ("", "Answer:", ""),
    ("", "", ""),
    ("", "  what is it\n", ""),
    ("", "put %(x)s there?", ""),
]
PARTS = [" 'a", "a'", "\u2018a ", "“a", '"', "(a) x ", "1e", "1.", "-", ".1", "9", "\n", "A. x B. y ", "a, ", "ab", " "]
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
        ("vitamin A. is it good?", []),
        ("Choices: red, light blue or green. Say it.", ["red", "light blue", "green"]),
        ("1) yes\n2) no", ["1) yes", "2) no"]),
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


@pytest.mark.parametrize(("initial", "candidate", "is_kept"), PAIRS)
def test_a_rewriting_is_refused_where_it_loses_content_and_only_there(initial, candidate, is_kept):
    changes = content_changes(initial, candidate)
    assert (not changes) == is_kept, changes


@pytest.mark.parametrize(
    ("initial", "candidate", "change"),
    [
        ("which shape is not red?", "Which shape is red?", "loses the negation"),
        ("what is right of the star?", "What is above the star?", "loses the relation 'right'"),
        ("is it red?", "What is red?", "asks for something else than yes or no"),
        ("what is red?", "Is it red?", "asks for yes or no"),
        ("is it red?", "It is red.", "is no question any more"),
        ("is it red?", "Is it red? Yes.", "adds an answer"),
        ("is it red?", "Is it red? Who painted it?", "adds a second question"),
        ("what colour is the car?", "The car is big. What colour is the car?", "adds a statement"),
        ("is it red or blue?", "Is it red and blue?", "no longer offers a choice"),
        ("how many cars are there?", "What are the cars?", "no longer asks for how many"),
        ("the red cat and the blue dog", "the blue cat and the red dog", "moves 'blue' to another word"),
        ("is the star above the ring?", "Is the ring above the star?", "moves 'above' to another word"),
        ("is there a cat?", "Is there a cat: l l l l", "repeats 'l' 4 times"),
        ("OCR tokens: a, b. what is it?", "OCR tokens: a. What is it?", "loses the OCR token 'b'"),
        ("what is it?", "Was ist das auf dem Bild?", "is in German, not in English"),
        ("what is it?", "что это?", "is in another script (Cyrillic letters, not Latin)"),
        ("Options: red, blue. which?", "Which, red?", "loses the option 'blue'"),
    ],
)
def test_a_change_is_named(initial, candidate, change):
    assert change in content_changes(initial, candidate)


@pytest.mark.parametrize(
    ("keep", "candidate", "changes"),
    [
        (["big"], "Is the cat in the picture?", ["loses 'big'", "loses 'big'"]),
        (["the picture"], "Is the big cat in The  Picture?", []),
        (["in the pic"], "Is the big cat in the picture?", []),  # no whole words: the user did not type them
        (["in the"], "Is the big cat inside?", ["loses 'in the'", "adds the relation 'inside'"]),
        (["dog", ""], "Is the big cat in the picture?", []),
    ],
)
def test_words_to_keep_must_stay_where_the_user_has_them(keep, candidate, changes):
    assert content_changes("is the big cat in the picture", candidate, keep=keep) == changes


@pytest.mark.parametrize(("before", "question", "after"), FRAMED)
def test_a_frame_is_what_stands_around_the_question(before, question, after):
    assert frame(before + question + after) == (before, question, after)


@pytest.mark.parametrize(
    ("text", "is_loop"),
    [
        ("l, l, l, l", True),
        ("no no no", False),
        ("what is it what is it what is it", True),
        ("what is it? What is it?", False),
        ("hahahahahahahaha", True),
        ("aaaaaaa", False),
        ("圆圆圆圆圆圆圆圆圆", True),
        ("", False),
    ],
)
def test_loops_are_found(text, is_loop):
    assert loops(text) == is_loop


def test_any_text_can_be_compared_with_any_other():
    rng = random.Random(0)
    atoms = [
        *PARTS,
        *(question for _, question, _ in FRAMED),
        "not",
        "n't",
        "left of",
        "Yes.",
        "OCR tokens:",
        "Options:",
    ]
    atoms += ["because", "right", "say", "were", "圆", "ß", "\u0130", "\0", "\u200b", "\U0001f600", "²", "٣", "\ud800"]
    for _ in range(1500):
        initial, candidate = (rng.choice(["", " "]).join(rng.choices(atoms, k=rng.randrange(12))) for _ in range(2))
        assert content_changes(initial, initial) == []
        assert all(isinstance(change, str) for change in content_changes(initial, candidate, keep=[candidate]))
        assert "".join(frame(initial)) == initial


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


@pytest.mark.parametrize("part", [*PARTS, "is it red? ", "or ", "not red ", "Question: "])
def test_long_texts_take_linear_time(part):
    text = part * (30_000 // len(part))
    start = time.process_time()
    content_changes(text, "what 'is' it (a) x")
    content_changes("what 'is' it (a) x", text)
    frame(f"OCR tokens: {text}")
    echoes("There is the text {instruction}. Do it.", initial="x", candidate=text)
    assert time.process_time() - start < 5  # quadratic time would be minutes
