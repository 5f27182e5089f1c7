"""Judging candidates by what they are answered: how many calls it takes, and what each of them costs when it fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from vlinstruct.backend import Row
from vlinstruct.instruction.judge import Answering, answers_to_judge, judge
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import NUM_JUDGED_TOKENS, Abilities, Answer, Failed, Judgement, TokenScores, good

from .conftest import FakeBackend

OWN = ["what is it?", "how many?"]
CANDIDATES = [["what?", "name it"], ["count it", "how many?", "count it"]]
ANSWERS = {"what is it?": "a cat", "what?": "cat", "name it": "tom", "how many?": "two", "count it": "2"}
NO_CHOICES = Answering()


def judged(
    backend: FakeBackend,
    candidates: Sequence[Sequence[str]] = CANDIDATES,
    answering: Answering = NO_CHOICES,
    own: Sequence[str] = OWN,
) -> list[list[Judgement | Failed]]:
    """Judges candidates on the pictures 0, 1 ..."""
    seen = range(len(own))
    answers = [good(given) for given in answers_to_judge(backend, seen, own, answering)]
    return judge(backend, seen, answers, candidates, answering)


def test_all_answers_are_one_call_and_all_cross_checks_another() -> None:
    backend = FakeBackend(answers=ANSWERS)
    judged(backend)
    _, write, score = backend.calls
    assert {call.stage for call in backend.calls} == {"judge"}
    assert (write.method, write.prompts, write.images) == ("write", ("what?", "name it", "count it"), (0, 0, 1))
    assert write.reads == write.prompts
    # The answers follow the user's own words, each picture read once.
    assert (score.method, score.prompts, score.reads, score.images) == ("score", (*OWN,), (*OWN,), (0, 1))
    assert score.targets == (("cat", "tom"), ("2",))
    assert (score.with_end, score.num_first) == (False, NUM_JUDGED_TOKENS)


def test_a_judgement_is_of_its_own_candidate() -> None:
    backend = FakeBackend(answers=ANSWERS, cross={"cat": 0.1, "tom": 3.0, "2": 0.5})
    first, second = [[good(one) for one in row] for row in judged(backend)]
    assert [(one.answer.text, one.cross_nll) for one in first] == [("cat", 0.1), ("tom", 3.0)]
    assert [(one.answer.text, one.cross_nll) for one in second] == [("2", 0.5), ("two", None), ("2", 0.5)]
    assert first[0].answer.instruction == "what?"


def test_the_users_own_words_as_a_candidate_cost_nothing() -> None:
    backend = FakeBackend(answers=ANSWERS)
    answers = [good(given) for given in answers_to_judge(backend, range(2), OWN, NO_CHOICES)]
    backend.calls.clear()
    rows = judge(backend, range(2), answers, [[text, text] for text in OWN], NO_CHOICES)
    assert backend.calls == []
    assert rows == [[Judgement(answer=given)] * 2 for given in answers]


def test_nothing_to_judge_calls_no_model() -> None:
    backend = FakeBackend()
    assert judge(backend, [], [], [], NO_CHOICES) == answers_to_judge(backend, [], [], NO_CHOICES) == []
    assert judged(backend, [[], []]) == [[], []]
    assert len(backend.calls) == 1  # the user's own words


def test_batch_equals_one_by_one() -> None:
    together = judged(FakeBackend())
    for row, text in enumerate(OWN):
        backend = FakeBackend()
        answers = [good(given) for given in answers_to_judge(backend, [row], [text], NO_CHOICES)]
        alone = [judge(backend, [row], answers, [[candidate]], NO_CHOICES)[0][0] for candidate in CANDIDATES[row]]
        assert alone == together[row]


def test_a_candidate_that_cannot_be_answered_costs_itself_alone() -> None:
    first, second = judged(FakeBackend(answers=ANSWERS, too_long="name it"))
    assert isinstance(first[1], Failed)
    assert first[1].error.code == "text_too_long"
    whole = judged(FakeBackend(answers=ANSWERS))
    assert [first[0], second] == [whole[0][0], whole[1]]


def test_a_cross_check_that_fails_costs_its_own_row() -> None:
    class Failing(FakeBackend):
        def score(self, rows: Sequence[Row], *rest: object, **more: object) -> list[list[TokenScores] | Failed]:
            self.too_long = OWN[0]
            return super().score(rows, *rest, **more)  # type: ignore[arg-type]

    first, second = judged(Failing(answers=ANSWERS))
    assert all(isinstance(judgement, Failed) for judgement in first)
    assert second == judged(FakeBackend(answers=ANSWERS))[1]


@pytest.mark.parametrize("blank", ["", " \n"])
def test_no_answer_is_none_to_any_question(blank: str) -> None:
    backend = FakeBackend(answers={**ANSWERS, "what?": blank, "name it": blank})
    first, _ = judged(backend)
    assert [good(judgement).cross_nll for judgement in first] == [math.inf] * 2
    assert backend.calls[-1].prompts == ("how many?",)  # nothing to score of the first


def test_a_cross_check_that_is_not_finite_tells_nothing(not_finite: float) -> None:
    backend = FakeBackend(answers=ANSWERS, cross={"cat": not_finite, "tom": 1.0})
    first, _ = judged(backend)
    assert [good(judgement).cross_nll for judgement in first] == [None, 1.0]


def test_a_backend_that_cannot_score_gives_answers_alone() -> None:
    backend = FakeBackend(answers=ANSWERS, abilities=Abilities(can_score=False))
    telling = judged(FakeBackend(answers=ANSWERS))
    assert judged(backend) == [[replace(good(one), cross_nll=None) for one in row] for row in telling]
    assert {call.method for call in backend.calls} == {"write"}


def test_likelihoods_that_do_not_come_with_an_answer_are_scored() -> None:
    backend = FakeBackend(answers=ANSWERS, nll=lambda prompt: None, cross={"a cat": 0.25, "two": 0.5})
    first, second = map(good, answers_to_judge(backend, range(2), OWN, NO_CHOICES))
    assert (first.token_nll, second.token_nll) == ((0.25,) * 3, (0.5,) * 2)  # the end token, too: it was written
    assert (first.certainty, second.certainty) == (math.exp(-0.25), math.exp(-0.5))
    _, score = backend.calls
    assert (score.prompts, score.targets, score.images) == (tuple(OWN), (("a cat",), ("two",)), (0, 1))


def test_likelihoods_that_nobody_tells_are_unknown() -> None:
    backend = FakeBackend(nll=lambda prompt: None, abilities=Abilities(can_score=False))
    assert [good(given).certainty for given in answers_to_judge(backend, range(2), OWN, NO_CHOICES)] == [None, None]


def test_choices_are_judged_by_their_probability_under_the_users_own_words() -> None:
    # As `answer` ranks: a softmax of minus the mean nats.
    backend = FakeBackend(ias={"yes": 1.0, "no": 2.0, "so": 5.0})
    scores = backend.scores
    backend.scores = lambda row, text: scores(
        row, {"yes": "so", "so": "yes"}.get(text, text) if row.prompt == "x" else text
    )  # type: ignore[method-assign]
    backend.cross = backend.ias
    answering = Answering(choices=[["yes", "no", "so"]])
    ((other, same),) = judged(backend, [["x", "y"]], answering, own=["q"])
    (own,) = map(good, answers_to_judge(backend, [0], ["q"], answering))
    offered = {choice.text: choice.probability for choice in own.choices}
    assert (good(other).answer.text, good(same).answer.text) == ("so", "yes")
    assert good(other).cross_nll == pytest.approx(-math.log(offered["so"]))
    assert good(same).cross_nll == pytest.approx(-math.log(offered["yes"]))
    assert {call.method for call in backend.calls} == {"score"}


def test_every_row_ranks_its_own_choices() -> None:
    backend = FakeBackend()
    rows = judged(backend, answering=Answering(choices=[["cat", "dog"], ["1", "2", "3"]]))
    offered = [[[choice.text for choice in good(judgement).answer.choices] for judgement in row] for row in rows]
    assert offered == [[["cat", "dog"]] * 2, [["1", "2", "3"]] * 3]


def test_a_choice_without_probability_is_implausible() -> None:
    own = Answer(text="a", instruction="q", choices=good(_ranked({"a": 1.0, "b": 2000.0})).choices)
    backend = FakeBackend(cross={"a": 2000.0, "b": 1.0})
    ((judgement,),) = judge(backend, [0], [own], [["x"]], Answering(choices=[["a", "b"]]))
    assert good(judgement).cross_nll == math.inf


def _ranked(nats: dict[str, float]) -> Answer | Failed:
    (given,) = answers_to_judge(FakeBackend(cross=nats), [0], ["q"], Answering(choices=[list(nats)]))
    return given


def test_what_is_sent_is_wrapped_and_each_row_by_its_own_wrap() -> None:
    backend = FakeBackend()
    answering = Answering(wraps=[lambda text: f"Q: {text}", lambda text: f"{text} A:"])
    rows = judged(backend, answering=answering)
    own, others, score = backend.calls
    assert own.prompts == score.prompts == ("Q: what is it?", "how many? A:")
    assert others.prompts == others.reads == ("Q: what?", "Q: name it", "count it A:")
    assert good(rows[1][1]) == Judgement(answer=good(rows[1][1]).answer)  # the user's own words, wrapped alike
    assert good(rows[0][0]).answer.instruction == "Q: what?"


def test_candidates_that_are_sent_alike_are_answered_alike() -> None:
    backend = FakeBackend()
    ((first, second),) = judged(backend, [["a", "b"]], Answering(wraps=[lambda text: "always this"]), own=["q"])
    assert first == second == Judgement(answer=good(first).answer)
    assert len(backend.calls) == 1


@pytest.mark.parametrize(
    ("generation", "is_final"),
    [
        (GenerationSettings(max_new_tokens=30), True),
        (GenerationSettings(num_beams=5), False),
        (GenerationSettings(do_sample=True), False),
        (GenerationSettings(repetition_penalty=1.5), False),
    ],
)
def test_what_is_judged_is_greedy_and_short_where_the_user_gets_another_answer(
    generation: GenerationSettings, is_final: bool
) -> None:
    answering = Answering(generation=generation)
    assert answering.is_final == is_final
    backend = FakeBackend()
    judged(backend, answering=answering)
    expected = generation if is_final else GenerationSettings(max_new_tokens=NUM_JUDGED_TOKENS)
    assert [call.generation for call in backend.calls if call.method == "write"] == [expected] * 2
    few = Answering(generation=replace(generation, max_new_tokens=3))
    assert few.judged_generation.max_new_tokens == 3


def test_ranked_answers_are_those_that_a_user_gets() -> None:
    assert Answering(generation=GenerationSettings(num_beams=5), choices=[["a", "b"]]).is_final
