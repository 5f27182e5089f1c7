"""One, two or three processes leave the same bytes, also when some of them were killed on the way."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import vlinstruct as vli
from vlinstruct.errors import InputError
from vlinstruct.evaluation.benchmark import Item, Words
from vlinstruct.evaluation.parts import ALONE, Processes, gather
from vlinstruct.evaluation.runner import Contender, run
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings


def item(number: int) -> Item:
    poor = f"hey {number} or so" if number != 3 else "what is 3?"  # two records of an item, computed from the same
    asked: dict[Words, str] = {"canonical": f"what is {number}?", "poor": poor}
    return Item(
        id=f"toy-{number}",
        task="toy",
        load_picture=partial(Image.new, "RGB", (30, 20), (20 * number, 90, 0)),
        instructions=asked,
        references=("a",),
    )


TASKS: Mapping[str, Sequence[Item]] = {"toy": [item(number) for number in range(7)]}


class Killed(Exception):
    """Stands for a signal."""


def evaluate(
    pipeline: Model, folder: Path, processes: Processes = ALONE, *, killed_after: int = 99, overwrite: bool = False
) -> None:
    seen: list[int] = []

    def on_item() -> None:
        seen.append(1)
        if len(seen) >= killed_after:
            raise Killed

    models = [Contender(name=name, fingerprint=name, load=lambda: pipeline) for name in ("a", "b")]
    generation = {"toy": GenerationSettings(max_new_tokens=3)}
    run(
        models,
        TASKS,
        folder,
        batch_size=2,
        generation=generation,
        processes=processes,
        overwrite=overwrite,
        on_item=on_item,
    )


def together(
    pipeline: Model, folder: Path, count: int, *, killed_after: Mapping[int, int] = {}, overwrite: bool = False
) -> None:
    """Runs as many threads as there would be processes; one that is killed takes the others along."""
    barrier = threading.Barrier(count)

    def work(rank: int) -> None:
        processes = Processes(rank=rank, count=count, wait=lambda: _wait(barrier))
        try:
            evaluate(pipeline, folder, processes, killed_after=killed_after.get(rank, 99), overwrite=overwrite)
        except (Killed, threading.BrokenBarrierError):
            barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _wait(barrier: threading.Barrier) -> None:
    barrier.wait(timeout=60)


@pytest.fixture(scope="module")
def pipeline(tiny_folders: dict[str, Path]) -> Model:
    return vli.load(str(tiny_folders["t5"]), device="cpu")


@pytest.fixture(scope="module")
def whole(pipeline: Model, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    evaluate(pipeline, folder)
    return (folder / "records.jsonl").read_bytes()


@pytest.mark.slow
def test_several_processes_leave_the_bytes_of_one(pipeline: Model, whole: bytes, tmp_path: Path) -> None:
    together(pipeline, tmp_path, 3)
    assert (tmp_path / "records.jsonl").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records.jsonl", "times.jsonl"]


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_what_is_overwritten_is_as_if_nothing_had_been_there(
    pipeline: Model, whole: bytes, count: int, tmp_path: Path
) -> None:
    other = whole.replace(b'"key": "', b'"key": "0')
    for name in ("records.jsonl", "records-1.part.jsonl"):
        (tmp_path / name).write_bytes(other)
    together(pipeline, tmp_path, count, overwrite=True)
    assert (tmp_path / "records.jsonl").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records.jsonl", "times.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize("then", [1, 2])
def test_what_killed_processes_left_is_gone_on_with_by_any_number(
    pipeline: Model, whole: bytes, then: int, tmp_path: Path
) -> None:
    together(pipeline, tmp_path, 3, killed_after={1: 3})
    part = tmp_path / "records-1.part.jsonl"
    part.write_bytes(part.read_bytes() + b'{"schema": "vlinstruct.eval')  # half a line
    if then == 1:
        evaluate(pipeline, tmp_path)
    else:
        together(pipeline, tmp_path, then)
    lines = (tmp_path / "records.jsonl").read_bytes().splitlines()
    assert sorted(lines) == sorted(whole.splitlines())


def test_half_a_line_of_times_is_dropped(tmp_path: Path) -> None:
    times = tmp_path / "times.jsonl"
    for whole in (b"", b'{"see": 1.0}\n'):
        for half in (b"", b'{"see": 0'):
            times.write_bytes(whole + half)
            gather(tmp_path, {}, ALONE)
            assert times.read_bytes() == whole


@pytest.mark.slow
def test_records_of_another_run_are_refused_by_all(pipeline: Model, tmp_path: Path) -> None:
    evaluate(pipeline, tmp_path)
    path = tmp_path / "records.jsonl"
    path.write_text(path.read_text().replace('"key": "', '"key": "0', 1))
    for rank in (0, 1):
        with pytest.raises(InputError, match="made with other arguments"):
            evaluate(pipeline, tmp_path, Processes(rank=rank, count=2))
