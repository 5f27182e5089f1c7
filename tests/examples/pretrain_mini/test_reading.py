import numpy as np
import torch

from pretrain_mini.batches import BatchMaker, BatchShape
from pretrain_mini.encoder_attention import comparing_looks, judge_relation, judge_sameness
from pretrain_mini.labels import FOCUS_QUERIES, IGNORED, NUM_QUERY_TOKENS, VERDICT_QUERY
from pretrain_mini.reading import READINGS, causal_looks, knows_in_time

SHAPE = BatchShape(pictures=6, asked=24, scored=2, rewritten=3, compared=1)
BATCHES = {kind: BatchMaker(0, ("pillow",), kind).make(0, SHAPE) for kind in READINGS}


def test_t5s_prompt_ends_where_llamas_begins() -> None:
    for whole, causal in zip(BATCHES["t5"].visual, BATCHES["llama"].visual, strict=True):
        for ended, begun in zip(whole.prompt_ids, causal.prompt_ids, strict=True):
            assert begun[0] == 1
            assert ended[ended != 0][:-1].tolist() == begun[begun != 0][1:].tolist()
        assert np.array_equal(whole.target_ids, causal.target_ids)


def test_both_copy_the_same_tokens() -> None:
    for whole, causal in zip(BATCHES["t5"].visual, BATCHES["llama"].visual, strict=True):
        assert np.array_equal(whole.sources[..., :NUM_QUERY_TOKENS], causal.sources[..., :NUM_QUERY_TOKENS])
        ended, begun = (rows.sources[..., NUM_QUERY_TOKENS:] for rows in (whole, causal))
        assert np.array_equal(ended[..., :-1], begun[..., 1:])


def test_a_causal_reading_never_looks_forwards() -> None:
    looked = 0
    for rows in BATCHES["llama"].visual:
        assert not rows.looks.dense(torch.device("cpu")).triu(diagonal=1).any()
        looked += len(rows.looks.places)
    assert looked


def test_the_verdict_is_asked_of_the_last_token_that_is_no_padding() -> None:
    for whole, causal in zip(BATCHES["t5"].visual, BATCHES["llama"].visual, strict=True):
        assert set(whole.verdict_places) == {VERDICT_QUERY}
        for ids, place in zip(causal.prompt_ids, causal.verdict_places, strict=True):
            assert np.nonzero(ids)[0][-1] == place - NUM_QUERY_TOKENS


def test_the_last_position_looks_at_the_score_that_has_seen_the_other() -> None:
    looks = comparing_looks(20, [slice(12, 15), slice(15, 18)], [13, 16])[None]
    causal = causal_looks(looks, np.array([19]))[0]
    assert np.argwhere(causal[0]).tolist() == [[16, 13]]
    assert np.nonzero(causal[1, 19])[0].tolist() == [16]


def test_the_relations_word_looks_at_the_verdicts_query_and_the_last_position_at_the_word() -> None:
    judgement = judge_relation(20, [15, 16], agree=False)
    causal = causal_looks(judgement.looks[None], np.array([18]))[0]
    assert np.argwhere(causal).tolist() == [[0, 15, VERDICT_QUERY], [0, 16, VERDICT_QUERY], [1, 18, 15], [1, 18, 16]]
    assert causal[0, 15, VERDICT_QUERY] == 1
    asked = {kind: READINGS[kind].labels(judgement.agrees[None], judgement.looks[None])[0] for kind in READINGS}
    assert asked["llama"][[15, 16]].tolist() == [0, 0]
    assert (asked["t5"] == IGNORED).all()


def test_the_last_position_looks_at_the_thing_that_has_seen_the_other() -> None:
    judgement = judge_sameness(20, agree=True)
    causal = causal_looks(judgement.looks[None], np.array([18]))[0]
    first, second = FOCUS_QUERIES
    assert np.argwhere(causal[0]).tolist() == [[second, first]]
    assert np.nonzero(causal[1, 18])[0].tolist() == [second]


def test_only_what_follows_the_second_score_knows_which_is_better() -> None:
    looks = comparing_looks(8, [slice(0, 3), slice(3, 6)], [1, 4])[None]
    assert np.nonzero(knows_in_time(looks)[0])[0].tolist() == [4, 5, 6, 7]


def test_the_second_of_two_things_knows_whether_they_agree() -> None:
    judgement = judge_sameness(14, agree=True)
    labels = READINGS["llama"].labels(judgement.agrees[None], judgement.looks[None])
    first, second = np.nonzero(judgement.agrees != IGNORED)[0]
    assert labels[0, first] == IGNORED
    assert labels[0, second] == 1
