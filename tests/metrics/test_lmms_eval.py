"""Our metrics against lmms-eval's own functions, for the tasks that it shares with us.

It lacks visdial, vsr, iconqa by ranking and hatefulmemes.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest

from vlinstruct.metrics.accuracy import is_exact_match, is_ranked_first
from vlinstruct.metrics.captions import tokenized
from vlinstruct.metrics.cider import cider
from vlinstruct.metrics.vqa_accuracy import vqa_accuracy

FOLDER = Path(__file__).parent
GOLDEN = json.loads((FOLDER / "lmms_golden.json").read_text(encoding="utf-8"))
CAPTIONS = json.loads((FOLDER / "lmms_captions_golden.json").read_text(encoding="utf-8"))
VQA_CASES = json.loads((FOLDER / "vqa_golden.json").read_text())


def test_there_are_500_cases_of_each():
    assert all(len(cases) >= 500 for cases in (*GOLDEN["vqa"], GOLDEN["gqa"], GOLDEN["ranked"], CAPTIONS))


@pytest.mark.parametrize(("place", "task"), [(0, "textvqa"), (1, "vizwiz_vqa")])
def test_vqa_accuracy_by_evalai_equals_the_tasks(place, task):
    ours = [vqa_accuracy(case["prediction"], case["answers"], "evalai") for case in VQA_CASES]
    assert ours == pytest.approx(GOLDEN["vqa"][place], abs=1e-9), task


def test_exact_match_equals_gqas():
    ours = [is_exact_match(prediction, answer) for prediction, answer, _ in GOLDEN["gqa"]]
    assert ours == [score == 1 for _, _, score in GOLDEN["gqa"]]
    assert 100 < sum(ours) < len(ours) - 100


def test_exact_match_differs_from_gqas_by_punctuation_inside_an_answer_or_after_a_space():
    different = {
        (prediction, answer): score == 1
        for prediction, answer, score in GOLDEN["gqa_other"]
        if is_exact_match(prediction, answer) != (score == 1)
    }
    theirs_only = [("t-shirt", "tshirt"), ("o'clock", "oclock"), ("(left)", "left")]
    ours_only = [("yes .", "yes"), ("yes. .", "yes")]
    expected = dict.fromkeys(theirs_only, True) | dict.fromkeys(ours_only, False)
    assert different == expected | {pair[::-1]: score for pair, score in expected.items()}


def test_ranked_accuracy_equals_that_of_a_multiple_choice():
    ours = [is_ranked_first(nll, target) for nll, target, _, _ in GOLDEN["ranked"]]
    assert ours == [score == 1 for _, _, score, _ in GOLDEN["ranked"]]
    assert sum(nll.count(min(nll)) > 1 for nll, *_ in GOLDEN["ranked"]) > 100


def test_ranked_accuracy_equals_scienceqas_on_the_letter_of_the_option_ranked_first():
    ours = [is_ranked_first(nll, target) for nll, target, _, _ in GOLDEN["ranked"]]
    assert ours == [score == 1 for _, _, _, score in GOLDEN["ranked"]]


@pytest.mark.parametrize(("place", "task"), [(2, "flickr30k"), (3, "nocaps")])
def test_cider_of_captions_as_they_are_written_equals_the_tasks(place, task):
    texts = chain.from_iterable([*case[0], *chain.from_iterable(case[1])] for case in CAPTIONS)
    tokens = tokenized(texts).tokens
    ours = [
        cider([tokens[text] for text in case[0]], [[tokens[text] for text in row] for row in case[1]]).mean
        for case in CAPTIONS
    ]
    assert ours == pytest.approx([case[place] for case in CAPTIONS], abs=1e-9), task
