"""What a run leaves for its report: bounded in bytes, and as exact as it says."""

from __future__ import annotations

import base64
import io
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlinstruct.operations import BatchItem
from vlinstruct.report import collected
from vlinstruct.report.collected import Collector
from vlinstruct.report.previews import preview_of
from vlinstruct.values import (
    Answer,
    AttentionMap,
    Clip,
    Optimization,
    ScoredInstruction,
    Sound,
    TokenScores,
)

ITEM = BatchItem(id="a", source=b"", image="a.png", texts=("what?",))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


@pytest.mark.parametrize("max_bytes", [2_000, 4_000, 60_000])
@pytest.mark.parametrize("size", [(1, 1), (1200, 900), (3000, 8), (8, 3000)])
def test_a_preview_has_no_more_bytes_than_it_may_and_keeps_its_shape(size: tuple[int, int], max_bytes: int) -> None:
    address = preview_of(noise(*size), max_bytes=max_bytes).address
    assert len(address) <= max_bytes
    width, height = opened(address).size
    # To a pixel: what is 8 wide and 3,000 high has one pixel of width left.
    assert width == pytest.approx(height * size[0] / size[1], abs=max(1, size[0] / size[1]))


def test_what_was_drawn_stays_sharp_and_what_is_small_as_it_is() -> None:
    drawn = Image.new("RGB", (120, 90), "white")
    drawn.paste("red", (10, 10, 50, 50))
    assert opened(preview_of(drawn, max_bytes=60_000).address).tobytes() == drawn.tobytes()


def test_a_clip_is_its_middle_frame_and_a_sound_its_length() -> None:
    frames = tuple(Image.new("RGB", (8, 8), (level, 0, 0)) for level in (10, 20, 30))
    clip = Clip(frames=frames, frame_indices=(0, 1, 2), num_source_frames=3, fps=1.0, duration_s=3.0)
    preview = preview_of(clip, max_bytes=9_000)
    assert opened(preview.address).getpixel((0, 0)) == (20, 0, 0)
    assert preview.words == "frame 2 of the 3 that were seen of a clip of 3.0 s"
    sound = Sound(samples=np.zeros(8_000, dtype=np.float32), sampling_rate=16_000)
    assert preview_of(sound, max_bytes=9_000).words == "a sound of 0.5 s"
    assert preview_of(sound, max_bytes=9_000).address == ""


def model_that_looks(looks: Any, reads: Any = None) -> Any:
    """A model whose backend says where it looked, and remembers what it was asked of."""
    texts: list[str] = []

    def attention(rows: Any) -> list[tuple[AttentionMap, ...]]:
        texts.extend(row.reads for row in rows)
        return [(AttentionMap(looks=looks, tokens=("[CLS]", "a", "[SEP]"), reads=reads),) for _ in rows]

    return SimpleNamespace(backend=SimpleNamespace(attention=attention), texts=texts)


def scored(text: str, *nats: float) -> ScoredInstruction:
    scores = TokenScores(tokens=tuple(text[: len(nats)]), token_nll=nats)
    return ScoredInstruction(text=text, ias=scores.mean_nll, scores=scores, faults=("too long",))


def unpacked(packed: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed), dtype=np.uint8) / 255


def test_maps_come_back_to_half_a_step_with_their_mean_first() -> None:
    looks = np.random.default_rng(1).random((3, 2, 4), dtype=np.float32) / 8
    reads = np.random.default_rng(2).dirichlet([1, 1, 1], size=3).astype(np.float32)
    with Collector(1) as collector:
        collector.learns(ITEM, model_that_looks(looks, reads), None, Answer(text="red", instruction="what?"))
        (kept,) = collector.of("maps", "a")
    maps = [looks.mean(axis=0), *looks]
    for packed, peak, map in zip(kept["looks"], kept["peaks"], maps, strict=True):
        np.testing.assert_allclose(unpacked(packed) * peak, map.ravel(), atol=map.max() / 500 + 1e-4)
    np.testing.assert_allclose(unpacked(kept["reads"]).reshape(3, 3), reads, atol=1 / 500)
    assert kept["grid"] == [2, 4]
    assert kept["tokens"] == ["[CLS]", "a", "[SEP]"]


def test_when_the_room_for_maps_is_used_up_their_mean_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collected, "_MAP_BYTES", 40)
    looks = np.ones((3, 2, 4), dtype=np.float32)
    with Collector(1) as collector:
        for id in ("a", "b", "c"):
            item = BatchItem(id=id, source=b"", image=id, texts=("what?",))
            collector.learns(item, model_that_looks(looks), None, Answer(text="red", instruction="what?"))
        assert [len(collector.of("maps", id)[0]["looks"]) for id in "abc"] == [4, 4, 1]
        assert collector.of("maps", "c")[0]["queries"] == 3


def test_a_map_that_is_not_finite_is_left_out() -> None:
    looks = np.full((3, 2, 4), np.nan, dtype=np.float32)
    with Collector(1) as collector:
        collector.learns(ITEM, model_that_looks(looks), None, Answer(text="red", instruction="what?"))
        assert collector.of("maps", "a") == []


def test_the_nats_of_every_token_and_both_texts_that_were_read_are_kept() -> None:
    optimization = Optimization(
        initial=scored("what", 1.0, math.nan), rewritten=scored("which", 0.123456), chosen="rewritten", reason="lower"
    )
    model = model_that_looks(np.ones((1, 1, 1), dtype=np.float32))
    answer = Answer(text="red", instruction="Q: which", token_nll=(0.0, math.log(2)), optimization=optimization)
    with Collector(1) as collector:
        collector.learns(ITEM, model, None, answer)
        details = collector.of("details", "a")
        assert [map["of"] for map in collector.of("maps", "a")] == ["typed", "asked"]
    assert model.texts == ["what", "Q: which"]
    assert details["certainty"] == 0.5
    assert details["versions"]["initial"]["nll"] == [1.0, None]
    assert details["versions"]["rewritten"]["nll"] == [0.1235]
    assert details["versions"]["rewritten"]["faults"] == ["too long"]


def test_ids_of_any_kind_give_their_own_back() -> None:
    hostile = ["</script>", "\ud800", "a" * 10_000, "1"]
    with Collector(4) as collector:
        for id in hostile:
            collector.writes({"id": id, "answer": id})
        collector.writes({"id": "1", "answer": "again"})
        assert [collector.of("record", id)["answer"] for id in hostile] == [*hostile[:-1], "again"]
        assert collector.of("record", 1)["answer"] == "again"
        assert collector.of("maps", "1") is None
