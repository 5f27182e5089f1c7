"""VQA accuracy: an answer is right by as much as three other annotators gave it.

In: a predicted answer and those of the annotators, ten as a rule. Out: 0 to 1.

Three normalizers, since the field has three; a report should say which it used:
    official  VQA v2.0's vqaEval.py: both sides in full, but only where the annotators differ; else both as they are
    lavis     vqa_eval.py of LAVIS, InstructBLIP's code, an earlier edition of the official one: the prediction in full,
              the annotators' answers by punctuation alone, and only where they differ
    evalai    EvalAIAnswerProcessor of MMF and of lmms-eval, whose textvqa and vizwiz_vqa give the same numbers: both
              sides in full, always, commas and question marks first

Where we differ: the official code leaves out the annotator's own answer by comparing records, which also drops equal
records of others where they have no `answer_id` (VizWiz); we leave out one, as lmms-eval does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from vlinstruct.errors import DataError

Normalizer = Literal["official", "lavis", "evalai"]

_ENOUGH_ANNOTATORS = 3
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD_BEFORE_NO_DIGIT = re.compile(r"\.(?!\d)")
# The official code gives `re.UNICODE`, which is 32, where `re.sub` takes the count: so many periods go, and no more.
_MAX_PERIODS = 32

_CONTRACTED = """
'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't
needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""


# The official table is every contraction with one of its apostrophes forgotten, and one entry the wrong way round.
_CONTRACTIONS = {"somebody'd": "somebodyd"} | {
    word[:index] + word[index + 1 :]: word
    for word in _CONTRACTED.split()
    for index, letter in enumerate(word)
    if letter == "'"
}


def vqa_accuracy(prediction: str, answers: Sequence[str], normalizer: Normalizer = "official") -> float:
    """Returns the mean, over the annotators left out in turn, of min(others who gave this answer / 3, 1).

    Args:
        prediction: the model's answer.
        answers: the annotators' answers, equal ones as often as they were given.
        normalizer: which code's rules make two answers equal.

    Returns:
        0 to 1; with ten annotators, 0, 0.3, 0.6, 0.9 or 1.

    Raises:
        DataError: there are no answers.

    >>> vqa_accuracy("Two dogs.", ["2 dogs"] * 3 + ["a dog"] * 7)
    0.9
    """
    if not answers:
        why = "no annotator answered"
        raise DataError.at("cannot compute VQA accuracy", "answers", why, "Leave the question out")
    predicted, references = _NORMALIZERS[normalizer](prediction, answers)
    num_equal, num_answers = references.count(predicted), len(references)
    # Each annotator is left out in turn. To one who gave the answer the others are one fewer who did; only two values
    # occur, so that ten rounds are two products.
    to_those_who_gave_it = num_equal * min((num_equal - 1) / _ENOUGH_ANNOTATORS, 1.0)
    to_the_others = (num_answers - num_equal) * min(num_equal / _ENOUGH_ANNOTATORS, 1.0)
    return (to_those_who_gave_it + to_the_others) / num_answers


def is_lavis_match(prediction: str, answer: str) -> bool:
    """Returns whether two answers are equal by the rules of LAVIS' GQATask: no articles, no punctuation, digits.

    Source: LAVIS, lavis/tasks/vqa.py, GQATask, which applies `processPunctuation` and `processDigitArticle` of its
    VQAEval. lmms-eval compares texts as they are, without case and final punctuation (`accuracy.is_exact_match`).

    >>> is_lavis_match("a table", "table"), is_lavis_match("Two", "2"), is_lavis_match("tables", "table")
    (True, True, False)
    """
    return _normalize(_on_one_line(prediction)) == _normalize(_on_one_line(answer))


def _official(prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    predicted, references = _on_one_line(prediction), [_on_one_line(answer) for answer in answers]
    if len(set(references)) == 1:  # the official code's own condition; "Yes" is wrong then where all ten wrote "yes"
        return predicted, references
    return _normalize(predicted), [_normalize(answer) for answer in references]


def _lavis(prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    predicted = _normalize(_on_one_line(prediction))
    if len(set(answers)) == 1:
        return predicted, list(answers)
    return predicted, [_without_punctuation(answer) for answer in answers]


def _evalai(prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    def normalized(answer: str) -> str:
        split = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
        return _normalize(_on_one_line(split.strip()))

    return normalized(prediction), [normalized(answer) for answer in answers]


_NORMALIZERS: dict[Normalizer, Callable[[str, Sequence[str]], tuple[str, list[str]]]] = {
    "official": _official,
    "lavis": _lavis,
    "evalai": _evalai,
}


def _on_one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _normalize(answer: str) -> str:
    words = (_DIGITS.get(word, word) for word in _without_punctuation(answer).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(answer: str) -> str:
    """Takes out a mark that stands beside a space; one inside a word becomes a space.

    In an answer with a number like "1,000" all marks go. As in the official code a mark is judged once for the answer:
    does it stand beside a space anywhere in it?
    """
    has_comma_in_number = _COMMA_IN_NUMBER.search(answer) is not None
    marks: dict[str, str | int | None] = {
        mark: "" if has_comma_in_number or f"{mark} " in answer or f" {mark}" in answer else " "
        for mark in _PUNCTUATION
    }
    return _PERIOD_BEFORE_NO_DIGIT.sub("", answer.translate(str.maketrans(marks)), count=_MAX_PERIODS)
