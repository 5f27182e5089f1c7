import numpy as np

from pretrain_mini.batches import BatchMaker, BatchShape, BatchStream

FONTS = ("pillow",)
SHAPE = BatchShape(pictures=3, asked=3)


def _shape_of(step: int) -> BatchShape:
    """What is seen grows in the middle: batches that are made ahead must be of their own step's shape."""
    return SHAPE if step < 7 else SHAPE.times(2)


def test_batches_made_ahead_are_those_made_when_asked_for() -> None:
    stream, maker = BatchStream(5, _shape_of, first=1, stride=2, workers=1, fonts=FONTS), BatchMaker(5, FONTS)
    try:
        stream.start(0)
        for step in (0, 1, 7):
            ahead, plain = stream.batch(step), maker.make(1 + 2 * step, _shape_of(step))
            assert np.array_equal(ahead.pixels, plain.pixels)
            assert np.array_equal(ahead.visual[0].target_ids, plain.visual[0].target_ids)
    finally:
        stream.close()


def test_without_workers_a_batch_is_made_at_once() -> None:
    batch = BatchStream(5, _shape_of, first=0, stride=1, workers=0, fonts=FONTS).batch(3)
    assert np.array_equal(batch.pixels, BatchMaker(5, FONTS).make(3, SHAPE).pixels)
