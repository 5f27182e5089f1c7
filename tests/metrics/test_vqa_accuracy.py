from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlinstruct.errors import DataError
from vlinstruct.metrics.vqa_accuracy import vqa_accuracy

GOLDEN = json.loads(Path(__file__).with_name("vqa_golden.json").read_text())
NORMALIZERS = ("official", "lavis", "evalai")


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_accuracy_equals_that_of_the_code_the_normalizer_follows(normalizer):
    ours = [vqa_accuracy(case["prediction"], case["answers"], normalizer) for case in GOLDEN]
    assert ours == pytest.approx([case[normalizer] for case in GOLDEN], abs=1e-9)


@pytest.mark.parametrize("num_annotators", range(1, 12))
def test_accuracy_is_the_mean_over_the_annotators_left_out(num_annotators):
    for num_equal in range(num_annotators + 1):
        answers = ["yes"] * num_equal + ["no"] * (num_annotators - num_equal)
        others = [answers[:index] + answers[index + 1 :] for index in range(num_annotators)]
        mean = sum(min(rest.count("yes") / 3, 1) for rest in others) / num_annotators
        assert vqa_accuracy("yes", answers) == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize(("num_equal", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_ten_annotators_give_the_known_five_values(num_equal, accuracy):
    answers = ["red"] * num_equal + ["blue"] * (10 - num_equal)
    assert vqa_accuracy("red", answers) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("Two", "2"),
        ("none", "0"),
        ("the dog", "dog"),
        ("DOG.", "dog"),
        ("dont", "don't"),
        ("couldnt've", "couldn'tve"),
        ("t-shirt", "t shirt"),
        ("stop!", "stop"),
        ("no (really)", "no really"),
        ("yes, sir", "yes sir"),
        ("1,000", "1000"),
        ("2.5.", "2.5"),
        ("black\nwhite", "black white"),
    ],
)
@pytest.mark.parametrize("normalizer", ["official", "evalai"])
def test_answers_that_differ_in_form_are_equal(prediction, answer, normalizer):
    assert vqa_accuracy(prediction, [answer] * 9 + ["other"], normalizer) == 1.0


@pytest.mark.parametrize(
    ("prediction", "answer"), [("2", "3"), ("2.5", "25"), ("big dog", "dog big"), ("lets", "let's")]
)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_answers_that_differ_in_content_are_not_equal(prediction, answer, normalizer):
    assert vqa_accuracy(prediction, [answer] * 9 + ["other"], normalizer) == 0.0


@pytest.mark.parametrize(("normalizer", "accuracy"), [("official", 0.0), ("lavis", 0.0), ("evalai", 1.0)])
def test_only_evalai_normalizes_answers_that_all_agree(normalizer, accuracy):
    assert vqa_accuracy("2 dogs", ["Two dogs"] * 10, normalizer) == accuracy


@pytest.mark.parametrize(("normalizer", "accuracy"), [("official", 1.0), ("lavis", 0.0), ("evalai", 1.0)])
def test_lavis_leaves_digits_and_articles_in_the_annotators_answers(normalizer, accuracy):
    assert vqa_accuracy("two", ["two"] * 9 + ["2 or so"], normalizer) == accuracy


@pytest.mark.parametrize(("normalizer", "accuracy"), [("official", 0.0), ("evalai", 1.0)])
def test_evalai_parts_a_possessive_from_its_word(normalizer, accuracy):
    assert vqa_accuracy("dog's", ["dog 's"] * 9 + ["other"], normalizer) == accuracy


@pytest.mark.parametrize(("num_periods", "accuracy"), [(32, 1.0), (33, 0.0)])
def test_a_thirty_third_period_stays_as_in_the_official_code(num_periods, accuracy):
    assert vqa_accuracy("b" + "." * num_periods, ["b"] * 9 + ["other"]) == accuracy


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_a_question_nobody_answered_is_an_error(normalizer):
    with pytest.raises(DataError) as caught:
        vqa_accuracy("yes", [], normalizer)
    message = "cannot compute VQA accuracy (answers): no annotator answered. Leave the question out"
    assert caught.value.message == message
