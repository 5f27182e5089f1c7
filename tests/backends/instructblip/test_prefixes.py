"""What a Q-Former made of a picture is kept: once per text, within its bytes, and as long as the picture lives."""

from __future__ import annotations

import gc
import random
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import seen_of

import vlinstruct as vli
from vlinstruct.backend import Row
from vlinstruct.backends.instructblip.prefixes import PrefixStore, SeenPicture, stacked
from vlinstruct.values import good

NUM_BYTES = 4 * 6


def pictures(count: int) -> list[SeenPicture]:
    batch = torch.arange(count * 2.0).view(count, 1, 2)
    return [SeenPicture(batch, row) for row in range(count)]


def prefix(value: float = 0.0) -> torch.Tensor:
    return torch.full((2, 3), float(value))


def test_a_prefix_is_kept_for_its_picture_and_text() -> None:
    store, (one, other) = PrefixStore(), pictures(2)
    store.put(one, "a", prefix(1))
    store.put(one, "b", prefix(2))
    store.put(other, "a", prefix(3))
    values = [[store.get(picture, text) for text in "abc"] for picture in (one, other)]
    assert [[None if tensor is None else float(tensor[0, 0]) for tensor in row] for row in values] == [
        [1, 2, None],
        [3, None, None],
    ]
    assert store.num_bytes == 3 * NUM_BYTES


def test_a_prefix_that_is_put_again_is_replaced() -> None:
    store, (one,) = PrefixStore(), pictures(1)
    for value in (1, 2):
        store.put(one, "a", prefix(value))
    kept = store.get(one, "a")
    assert kept is not None
    assert (float(kept[0, 0]), store.num_bytes) == (2, NUM_BYTES)


def test_the_least_recently_used_prefixes_go_first() -> None:
    store, (one, other) = PrefixStore(max_bytes=3 * NUM_BYTES), pictures(2)
    store.put(one, "a", prefix())
    store.put(other, "a", prefix())
    store.put(one, "b", prefix())
    store.get(one, "a")
    store.put(other, "b", prefix())
    assert store.get(other, "a") is None
    assert all(store.get(*key) is not None for key in ((one, "a"), (one, "b"), (other, "b")))
    assert store.num_bytes == 3 * NUM_BYTES


def test_a_row_of_a_batch_does_not_keep_the_batch_in_memory() -> None:
    store, (one,) = PrefixStore(), pictures(1)
    store.put(one, "a", torch.zeros(100, 2, 3)[7])
    kept = store.get(one, "a")
    assert kept is not None
    assert kept.untyped_storage().nbytes() == kept.nbytes == store.num_bytes


def test_a_pictures_prefixes_are_freed_with_it() -> None:
    store, (one, other) = PrefixStore(max_bytes=3 * NUM_BYTES), pictures(2)
    for text in "abcd":
        store.put(one, text, prefix())
    store.put(other, "a", prefix())
    del one
    gc.collect()
    assert store.num_bytes == NUM_BYTES
    assert store.get(other, "a") is not None


def test_another_picture_at_the_same_address_never_gets_the_old_prefix() -> None:
    store, batch, addresses = PrefixStore(), torch.zeros(1, 1, 2), []
    for value in range(50):
        picture = SeenPicture(batch, 0)
        assert store.get(picture, "a") is None
        store.put(picture, "a", prefix(value))
        addresses.append(id(picture))
        del picture
    assert len(set(addresses)) < 50
    assert store.num_bytes == 0


def test_pictures_may_be_freed_in_another_thread() -> None:
    store, errors = PrefixStore(max_bytes=5 * NUM_BYTES), []

    def use(seed: int) -> None:
        draw = random.Random(seed)
        kept: list[SeenPicture] = []
        try:
            for _ in range(2000):
                kept += pictures(1)
                store.put(kept[-1], draw.choice("abc"), prefix())
                store.get(draw.choice(kept), "a")
                if draw.random() < 0.6:
                    del kept[draw.randrange(len(kept))]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert (errors, store.num_bytes) == ([], 0)


def test_a_batch_that_is_used_whole_is_not_copied() -> None:
    three = pictures(3)
    assert stacked(three) is three[0].batch
    assert torch.equal(stacked(three[::-1]), three[0].batch.flip(0))
    assert torch.equal(stacked([three[2], three[2]]), three[0].batch[[2, 2]])
    mixed = [three[1], pictures(1)[0]]
    assert torch.equal(stacked(mixed), torch.stack([picture.image_embeds for picture in mixed]))


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_a_store_without_room_changes_no_score(kind: str, tiny_folders: dict[str, Path]) -> None:
    roomy, narrow = (vli.load(str(tiny_folders[kind]), device="cpu") for _ in range(2))
    narrow.backend._prefixes = PrefixStore(max_bytes=1)
    scores = []
    for model in (roomy, narrow):
        one, other = seen_of(model, Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue"))
        rows = [Row(prompt="p", seen=(picture,), reads=text) for picture in (one, other) for text in ("a", "bc", "a")]
        for _ in range(2):
            results = model.backend.score(rows, [["x"]] * len(rows))
            scores.append([good(row)[0].mean_nll for row in results])
        del rows
    assert all(numbers == pytest.approx(scores[0], abs=1e-5) for numbers in scores)


def test_what_was_made_of_a_picture_is_freed_with_what_was_seen(tiny_folders: dict[str, Path]) -> None:
    model = vli.load(str(tiny_folders["t5"]), device="cpu")
    seen = model.see(Image.new("RGB", (9, 9)))
    model.score(seen, "a", "b")
    assert model.backend._prefixes.num_bytes > 0
    del seen
    gc.collect()
    assert model.backend._prefixes.num_bytes == 0
