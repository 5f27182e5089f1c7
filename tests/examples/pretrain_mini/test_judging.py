import numpy as np

from pretrain_mini.encoder_attention import judge_relation, judge_sameness, judge_spelling, no_judgement
from pretrain_mini.labels import FOCUS_QUERIES, IGNORED, VERDICT_QUERY

LENGTH = 24


def test_the_verdict_looks_at_the_relations_word_in_both_layers() -> None:
    judgement = judge_relation(LENGTH, [15, 16], agree=True)
    assert np.argwhere(judgement.looks).tolist() == [
        [layer, VERDICT_QUERY, place] for layer in (0, 1) for place in (15, 16)
    ]
    assert np.nonzero(judgement.agrees != IGNORED)[0].tolist() == [15, 16]


def test_two_things_look_at_each_other() -> None:
    first, second = FOCUS_QUERIES
    judgement = judge_sameness(LENGTH, agree=False)
    assert np.argwhere(judgement.looks[0]).tolist() == [[first, second], [second, first]]
    assert np.argwhere(judgement.looks[1]).tolist() == [[VERDICT_QUERY, first], [VERDICT_QUERY, second]]
    assert np.nonzero(judgement.agrees == 0)[0].tolist() == [first, second]


def test_letters_look_at_the_queries_that_have_read_them() -> None:
    judgement = judge_spelling(LENGTH, [14, 15, 16, 17], "exit", "exit")
    assert [int(judgement.looks[0, place].argmax()) for place in (14, 15, 16, 17)] == [0, 1, 2, 3]
    assert judgement.agrees[14:18].tolist() == [1, 1, 1, 1]
    assert np.nonzero(judgement.looks[1, VERDICT_QUERY])[0].tolist() == [14, 15, 16, 17]


def test_a_letter_that_is_not_read_decides_alone() -> None:
    judgement = judge_spelling(LENGTH, [14, 15, 16, 17], "exam", "exit")
    assert [int(judgement.looks[0, place].argmax()) for place in (14, 15, 16, 17)] == [0, 1, 16, 17]
    assert judgement.agrees[14:18].tolist() == [1, 1, 0, 0]
    assert np.nonzero(judgement.looks[1, VERDICT_QUERY])[0].tolist() == [16, 17]


def test_a_letter_that_stands_elsewhere_does_not_agree() -> None:
    assert judge_spelling(LENGTH, [14, 15, 16], "abc", "bac").agrees[14:17].tolist() == [0, 0, 1]


def test_a_longer_quotation_finds_nothing_behind_what_is_read() -> None:
    assert judge_spelling(LENGTH, [14, 15, 16], "ace", "ac").agrees[14:17].tolist() == [1, 1, 0]


def test_every_guided_position_shares_out_one_look() -> None:
    judgements = (
        judge_relation(LENGTH, [15, 16], True),
        judge_sameness(LENGTH, True),
        judge_spelling(LENGTH, [14], "a", "b"),
    )
    for judgement in (*judgements, no_judgement(LENGTH)):
        shares = judgement.looks.sum(axis=-1)
        assert np.allclose(shares[shares > 0], 1)
