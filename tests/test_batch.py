"""The laws of a batch, with a fake model: who shares a chunk, who fails, and what is loaded when."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from PIL import Image

from vlinstruct.batch import Batch, MapBatches, Outcome, Summary, write_records
from vlinstruct.errors import (
    CheckpointError,
    DataError,
    ImageError,
    InputError,
    NetworkError,
    ScoreError,
    TextError,
    VlinstructError,
)
from vlinstruct.media.fetch import Url
from vlinstruct.media.images import ImageLimits
from vlinstruct.media.load import MediaSettings
from vlinstruct.operations import BadItem, BatchItem, Score, resume_key
from vlinstruct.records.output import RecordWriter
from vlinstruct.values import Abilities, Failed

Item = BatchItem | BadItem
TOO_WIDE = 200


class FakeModel:
    """What it sees of a picture is its width; it needs one row of it, and remembers which pictures came together."""

    revision = None

    def __init__(self, num_in_flight: int = 1) -> None:
        self.seen: list[list[int]] = []
        self.backend = SimpleNamespace(abilities=Abilities(num_in_flight=num_in_flight))

    def prepare(self, picture: Image.Image) -> Image.Image:
        return picture.crop((0, 0, picture.width, 1))

    def see_each(self, images: Sequence[Image.Image]) -> list[int | Failed]:
        # However many wait for their chunk, none of them is whole.
        assert [image.height for image in images] == [1] * len(images)
        self.seen.append([image.width for image in images])
        blind = Failed(error=ImageError("the model takes no picture of this width"))
        return [blind if image.width == TOO_WIDE else image.width for image in images]


class FakeOperation:
    """Returns each row's width and how many rows it shared the chunk with; the texts say who fails."""

    schema = "fake/1"
    ocr = False

    def settings(self) -> dict[str, Any]:
        return {"beams": 1}

    def run(self, model: Any, seen: Sequence[Any], texts: Sequence[Sequence[str]], *_: Any) -> list[Any]:
        if any("poison" in row for row in texts):
            raise TextError("this text cannot be asked")
        if any("broken model" in row for row in texts):
            raise CheckpointError("the weights are damaged")
        return [
            Failed(error=ScoreError("no finite score"))
            if "no score" in row
            else {"width": width, "shared_with": len(seen)}
            for width, row in zip(seen, texts, strict=True)
        ]


def content(width: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (width, 2)).save(stream, "PNG")
    return stream.getvalue()


def item(id: str | int, *texts: str, source: Any = None) -> BatchItem:
    width = id if isinstance(id, int) else 1
    return BatchItem(id=id, source=content(width) if source is None else source, image=f"{id}.png", texts=texts)


def unreadable(id: str | int) -> BatchItem:
    return item(id, source=b"<html>404</html>")


def bad(id: str | int) -> BadItem:
    return BadItem(id=id, error=DataError("line 3: not valid JSON"))


class Run:
    """A batch over items and what it did to the model."""

    def __init__(self, batch_size: int = 1, *, num_in_flight: int = 1, **settings: Any) -> None:
        self.model = FakeModel(num_in_flight)
        self.num_loads = 0
        self.batch = Batch(
            operation=FakeOperation(),
            backbone="fake",
            load_model=self._load,
            batch_size=batch_size,
            **settings,
        )

    def _load(self) -> Any:
        self.num_loads += 1
        return self.model

    def __call__(self, items: Sequence[Item], done: Sequence[str | int] = ()) -> list[Outcome]:
        return list(self.batch.outcomes(items, is_done=lambda id: id in done))


def random_items(seed: int) -> list[Item]:
    """Sound and bad items of every kind, in any order."""
    kinds: list[Callable[[int], Item]] = [item, item, item, unreadable, bad, lambda id: item(id, "no score")]
    draw = random.Random(seed)
    return [draw.choice(kinds)(id) for id in range(1, draw.randint(2, 14))]


# Order and isolation


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("batch_size", "num_in_flight"), [(1, 1), (2, 1), (3, 1), (100, 1), (1, 4), (3, 2)])
def test_every_item_has_one_outcome_in_its_place(batch_size: int, num_in_flight: int, seed: int) -> None:
    items = random_items(seed)
    outcomes = Run(batch_size, num_in_flight=num_in_flight)(items)
    assert [outcome.record["id"] for outcome in outcomes] == [entry.id for entry in items]
    for entry, outcome in zip(items, outcomes, strict=True):
        is_sound = isinstance(entry, BatchItem) and entry.texts == () and entry.source == content(int(entry.id))
        assert (outcome.error is None) == is_sound
        assert outcome.record["status"] == ("ok" if is_sound else "error")
        assert outcome.record.get("width") == (entry.id if is_sound else None)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_bad_item_changes_nobodys_chunk(batch_size: int, seed: int) -> None:
    items = [entry for entry in random_items(seed) if not (isinstance(entry, BatchItem) and entry.texts)]
    sound = [entry for entry in items if isinstance(entry, BatchItem) and entry.source != b"<html>404</html>"]
    mixed, alone = Run(batch_size), Run(batch_size)
    records = [outcome.record for outcome in mixed(items) if outcome.error is None]
    assert records == [outcome.record for outcome in alone(sound)]
    assert mixed.model.seen == alone.model.seen


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_resumed_run_gives_what_was_missing_of_the_uninterrupted_one(batch_size: int, seed: int) -> None:
    items = random_items(seed)
    whole = Run(batch_size)(items)
    good = [outcome.record["id"] for outcome in whole if outcome.error is None]
    done = [id for id in good if random.Random(seed).random() < 0.5] + good[: len(good) // 2]
    resumed = Run(batch_size)(items, done)
    expected = [outcome for outcome in whole if outcome.record["id"] not in done]
    assert [outcome.record for outcome in resumed] == [outcome.record for outcome in expected]


def test_a_bad_item_carries_its_own_error() -> None:
    (outcome,) = Run()([bad("line-3")])
    assert isinstance(outcome.error, DataError)
    assert outcome.record == {
        "schema": "fake/1",
        "id": "line-3",
        "status": "error",
        "code": "bad_data",
        "message": "line 3: not valid JSON",
    }


def test_a_good_record_names_its_item_before_what_was_found() -> None:
    (outcome,) = Run()([item(7)])
    assert list(outcome.record) == ["schema", "id", "status", "image", "backbone", "width", "shared_with"]
    assert outcome.record["image"] == "7.png"
    assert outcome.record["backbone"] == "fake"


# Chunks


def test_a_chunk_that_fails_as_a_whole_is_run_item_by_item() -> None:
    run = Run(batch_size=3)
    outcomes = run([item(1), item(2, "poison"), item(3), item(4)])
    assert [type(outcome.error) for outcome in outcomes] == [type(None), TextError, type(None), type(None)]
    assert [outcome.record.get("shared_with") for outcome in outcomes] == [1, None, 1, 1]
    assert run.model.seen == [[1, 2, 3], [1], [2], [3], [4]]


def test_a_row_that_fails_brings_no_other_down() -> None:
    run = Run(batch_size=3)
    outcomes = run([item(1), item(2, "no score"), item(3)])
    assert [outcome.record.get("shared_with") for outcome in outcomes] == [3, None, 3]
    assert run.model.seen == [[1, 2, 3]]


def test_a_picture_that_the_model_cannot_take_fails_alone() -> None:
    outcomes = Run(batch_size=3)([item(1), item(TOO_WIDE), item(3)])
    assert [type(outcome.error) for outcome in outcomes] == [type(None), ImageError, type(None)]
    assert [outcome.record.get("width") for outcome in outcomes] == [1, None, 3]


def test_a_refused_model_stops_the_run() -> None:
    run = Run(batch_size=2)
    outcomes = run.batch.outcomes([item(1), item(2), item(3, "broken model"), item(4)])
    assert [outcome.record["id"] for outcome in itertools.islice(outcomes, 2)] == [1, 2]
    with pytest.raises(CheckpointError):
        next(outcomes)


def test_items_are_read_no_further_than_the_chunk_needs() -> None:
    def endless() -> Iterator[Item]:
        yield from (item(id) for id in itertools.count(1))

    run = Run(batch_size=2)
    first_three = itertools.islice(run.batch.outcomes(endless()), 3)
    assert [outcome.record["id"] for outcome in first_three] == [1, 2, 3]
    assert run.model.seen == [[1, 2], [3, 4]]


def test_a_bad_item_before_any_picture_is_told_at_once() -> None:
    run = Run(batch_size=100)
    assert next(run.batch.outcomes(itertools.chain([bad(1)], (item(id) for id in range(2, 50))))).record["id"] == 1
    assert run.num_loads == 0


# Loading


def test_the_model_is_loaded_once() -> None:
    run = Run(batch_size=2)
    run([item(id) for id in range(1, 8)])
    assert run.num_loads == 1


@pytest.mark.parametrize("items", [[], [bad(1), unreadable(2)], [unreadable(1)]])
def test_without_a_picture_that_can_be_read_no_model_is_loaded(items: list[Item]) -> None:
    run = Run(batch_size=2)
    assert [outcome.error is None for outcome in run(items)] == [False] * len(items)
    assert run.num_loads == 0


def test_a_finished_batch_loads_no_model_and_reads_no_picture(tmp_path: Path) -> None:
    run = Run(batch_size=2)
    items = [item(id, source=tmp_path / "gone.png") for id in range(1, 6)]
    assert run(items, done=[1, 2, 3, 4, 5]) == []
    assert (run.num_loads, run.model.seen) == (0, [])


def test_a_finished_picture_is_read_again_only_beside_one_that_is_not() -> None:
    run = Run(batch_size=2)
    assert [outcome.record["id"] for outcome in run([item(id) for id in range(1, 7)], done=[1, 2, 3])] == [4, 5, 6]
    assert run.model.seen == [[3, 4], [5, 6]]


def test_a_finished_picture_that_is_gone_by_now_costs_nothing(tmp_path: Path) -> None:
    run = Run(batch_size=2)
    outcomes = run([item(1, source=tmp_path / "gone.png"), item(2)], done=[1])
    assert [(outcome.record["id"], outcome.error) for outcome in outcomes] == [(2, None)]


# Reading


def test_limits_and_notices_are_those_of_the_batch() -> None:
    notices: list[str] = []
    frames = BytesIO()
    Image.new("RGB", (3, 2)).save(frames, "GIF", save_all=True, append_images=[Image.new("RGB", (3, 2), "red")])
    run = Run(media=MediaSettings(images=ImageLimits(max_pixels=6)), notify=notices.append)
    outcomes = run([item("animated", source=frames.getvalue()), item(4)])
    assert [outcome.record.get("code") for outcome in outcomes] == [None, "image_too_large"]
    (notice,) = notices
    assert notice.startswith("animated.png: it has several frames")


def test_a_url_that_cannot_be_fetched_is_one_items_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise NetworkError("nobody answers", code="url_timeout")

    monkeypatch.setattr("vlinstruct.media.inputs.fetch", refuse)
    outcomes = Run()([item("url", source=Url(address="http://127.0.0.1/a.png")), item(2)])
    assert [outcome.record.get("code") for outcome in outcomes] == ["url_timeout", None]


# Writing


class ListWriter(RecordWriter):
    """Keeps the records of a run."""

    def __init__(self, *done: str) -> None:
        super().__init__(BytesIO(), keys={id: id for id in done}, done=frozenset(done))
        self.records: list[Any] = []

    def write(self, record: Any) -> None:
        self.records.append(record)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("max_failures", [None, 1, 2])
def test_the_summary_accounts_for_every_item(max_failures: int | None, seed: int) -> None:
    items, ticks = random_items(seed), []
    done = [str(entry.id) for entry in items if isinstance(entry, BatchItem) and entry.texts == ()][:1]
    writer = ListWriter(*done)
    summary = write_records(
        Run(batch_size=2).batch, items, writer, max_failures=max_failures, on_progress=lambda: ticks.append(1)
    )
    counted = summary.num_done + summary.num_failed + summary.num_resumed
    assert counted + summary.num_left == len(items)
    assert counted == len(ticks)
    assert len(writer.records) == summary.num_done + summary.num_failed
    assert summary.num_failed == sum(record["status"] == "error" for record in writer.records)
    assert summary.num_resumed == len(done)
    if max_failures is None:
        assert summary.num_left == 0
    else:
        assert summary.num_failed <= max_failures
        assert summary.num_left == 0 or summary.num_failed == max_failures


def test_max_failures_stops_at_the_very_item() -> None:
    writer = ListWriter()
    summary = write_records(Run().batch, [item(1), bad(2), item(3), bad(4), item(5)], writer, max_failures=2)
    assert [record["id"] for record in writer.records] == [1, 2, 3, 4]
    assert summary == Summary(num_done=2, num_failed=2, num_resumed=0, num_left=1)


# The key of a result


class OtherSettings(FakeOperation):
    def settings(self) -> dict[str, Any]:
        return {"beams": 5}


def test_a_key_changes_with_all_that_changes_a_result_and_with_nothing_else() -> None:
    model = ["weights", "adapter"]
    question = item(1, "what?", source=Path("a.png"))
    key = resume_key(FakeOperation(), question, model)
    assert key == resume_key(FakeOperation(), item(1, "what?", source=Path("a.png")), model)
    assert len(key) == 16
    others = [
        resume_key(OtherSettings(), question, model),
        resume_key(Score(), question, model),
        resume_key(FakeOperation(), item(2, "what?", source=Path("a.png")), model),
        resume_key(FakeOperation(), item(1, "who?", source=Path("a.png")), model),
        resume_key(FakeOperation(), item(1, "what?", "who?", source=Path("a.png")), model),
        resume_key(FakeOperation(), BatchItem(id=1, source=Path("a.png"), image="b.png", texts=("what?",)), model),
        resume_key(FakeOperation(), question, ["other weights", "adapter"]),
        resume_key(FakeOperation(), question, ["weights", None]),
        resume_key(FakeOperation(), bad(1), model),
    ]
    assert len({key, *others}) == 1 + len(others)


def test_pictures_of_stdin_have_keys_of_their_own() -> None:
    keys = {resume_key(FakeOperation(), item("-", source=content(width)), []) for width in (1, 2)}
    assert len(keys) == 2


def test_a_picture_that_was_replaced_in_place_has_another_key(tmp_path: Path) -> None:
    def key() -> str:
        return resume_key(FakeOperation(), item(1, "what?", source=path), [])

    path = tmp_path / "a.png"
    keys = {key()}  # of a file that is not there
    path.write_bytes(b"abc")
    os.utime(path, (1_000, 1_000))
    keys.add(key())
    os.utime(path, (1_000.7, 1_000.7))  # a copy may lose what is below a second
    assert key() in keys
    path.write_bytes(b"other")
    os.utime(path, (1_000, 1_000))
    keys.add(key())
    os.utime(path, (2_000, 2_000))
    keys.add(key())
    assert len(keys) == 4


def test_a_key_can_be_built_of_any_name() -> None:
    names = ["a\udcff.png", "a\n.png", "🙂.png", "a\u202e.png"]
    assert len({resume_key(FakeOperation(), item(name, source=Path("a.png")), []) for name in names}) == len(names)


def test_every_error_of_an_item_is_one_of_ours() -> None:
    for outcome in Run(batch_size=3)([bad(1), unreadable(2), item(3, "no score"), item(4, "poison")]):
        assert isinstance(outcome.error, VlinstructError)
        assert isinstance(outcome.error, InputError)
        assert outcome.record["message"] == outcome.error.message


# Blocks


def test_a_block_of_rows_becomes_the_records_of_its_items() -> None:
    model = FakeModel()
    blocks = MapBatches(FakeOperation(), text="words")
    blocks.batch = replace(blocks.batch, load_model=lambda: model)  # type: ignore[arg-type,return-value]
    rows = {"id": ["a", 7, "a"], "image": [content(3), b"<html>", content(4)], "words": ["x", "y", "no score"]}
    made = blocks(rows)
    assert made["id"] == rows["id"]
    assert made["status"] == ["ok", "error", "error"]
    assert [json.loads(record)["id"] for record in made["record"]] == rows["id"]
    assert [json.loads(record).get("width") for record in made["record"]] == [3, None, None]


def test_a_block_of_arrays_is_taken_and_a_missing_column_named(tmp_path: Path) -> None:
    model = FakeModel()
    blocks = MapBatches(FakeOperation())
    blocks.batch = replace(blocks.batch, load_model=lambda: model)  # type: ignore[arg-type,return-value]
    (tmp_path / "a.png").write_bytes(content(5))
    images = numpy.array([str(tmp_path / "a.png"), str(tmp_path / "none.png"), 3], dtype=object)
    made = blocks({"id": numpy.arange(3), "image": images, "question": numpy.array(["a", "b", "c"], dtype=object)})
    assert made["status"] == ["ok", "error", "error"]
    assert json.loads(made["record"][0])["id"] == 0
    with pytest.raises(DataError, match="question"):
        blocks({"id": [1], "image": [content(1)]})
