import numpy as np

from pretrain_mini.encoder_attention import comparing_looks


def test_digits_look_at_each_other_and_words_at_their_own_digit() -> None:
    looks = comparing_looks(9, [slice(1, 4), slice(5, 8)], [3, 7])
    assert np.argwhere(looks[0]).tolist() == [[3, 7], [7, 3]]
    assert {(row, int(looks[1, row].argmax())) for row in (1, 2, 3)} == {(1, 3), (2, 3), (3, 3)}
    assert not looks[1, [0, 4, 8]].any()
