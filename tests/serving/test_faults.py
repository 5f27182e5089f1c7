"""Many pictures through a server that fails: every picture has one record, and a good one is the right one."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from picture_fixtures import make_picture
from serving.faults import WAYS, Faulty
from serving.loopback import serving
from starlette.types import ASGIApp

from vlinstruct.batch import run_batch
from vlinstruct.model import Model, load
from vlinstruct.operations import Ask, BatchItem
from vlinstruct.serving.app import ServeSettings
from vlinstruct.settings import (
    GenerationSettings,
    ModelSettings,
    OptimizationSettings,
    RunSettings,
    ServerSettings,
)

NOBODY = "http://127.0.0.1:1/v1"
SERVED = ServeSettings(name="tiny", batch_size=1)  # the last decimals of a score depend on who shares its batch
ASK = Ask(
    optimize=True,
    optimization=OptimizationSettings(max_new_tokens=8, when="always"),
    generation=GenerationSettings(max_new_tokens=6),
)


@pytest.fixture(scope="module")
def model(tiny_folders: dict[str, Path]) -> Model:
    return load(tiny_folders["t5"], device="cpu")


@contextmanager
def faulty(model: Model, share: float) -> Iterator[tuple[str, Faulty]]:
    made: list[Faulty] = []

    def wrap(app: ASGIApp) -> ASGIApp:
        made.append(Faulty(app, share=share, slow_s=3.0))
        return made[0]

    with serving(model, SERVED, wrap=wrap) as url:
        yield url, made[0]


def items(folder: Path, num: int) -> list[BatchItem]:
    found = []
    for place in range(num):
        path = folder / f"{place:04}.png"
        if not path.exists():
            make_picture(24, 24, seed=place).save(path, compress_level=1)
        found.append(BatchItem(id=path.name, source=path, image=path.name, texts=("color plz",)))
    return found


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(url: str, work: list[BatchItem], output: Path) -> list[dict[str, Any]]:
    server = ServerSettings(concurrency=8, timeout=1.5)
    settings = RunSettings(model=ModelSettings(backbone=url, server=server))
    run_batch(ASK, work, output=output, settings=settings)
    return records(output)


def without_key(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("key", "backbone")}


@pytest.mark.slow
def test_a_failing_server_costs_no_record_and_doubles_none(model: Model, tmp_path: Path) -> None:
    num = 500
    work = items(tmp_path, num)
    with serving(model, SERVED) as url:
        clean = {record["id"]: without_key(record) for record in run(url, work, tmp_path / "clean.jsonl")}
    with faulty(model, 0.05) as (url, faults):
        made = run(f"{url},{NOBODY}", work, tmp_path / "out.jsonl")
        assert [record["id"] for record in made] == [item.id for item in work], "in order, each once"
        failed = [record for record in made if record["status"] == "error"]
        assert all(record["code"].startswith("server_") for record in failed)
        assert all(without_key(one) == clean[one["id"]] for one in made if one["status"] == "ok")
        assert set(faults.spoilt) == set(WAYS)
        assert failed, "some failures are for good"
        for _ in range(20):  # what failed is tried again
            if not failed:
                break
            made = run(f"{url},{NOBODY}", work, tmp_path / "out.jsonl")
            failed = [record for record in made if record["status"] == "error"]
    assert {record["id"]: without_key(record) for record in made} == clean
    assert len(made) == num


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_records(model: Model, tmp_path: Path) -> None:
    num, num_kills = 100, 8
    items(tmp_path, num)
    output, rng = tmp_path / "out.jsonl", random.Random("kills")
    with serving(model, SERVED) as url:
        command = [sys.executable, "-c", "from vlinstruct.cli.main import main; main()", "ask", str(tmp_path)]
        command += ["color plz", "-O", "--when", "always", "--max-new-tokens", "6"]
        command += ["--backbone", url, "--concurrency", "8", "--output"]
        subprocess.run([*command, str(tmp_path / "clean.jsonl")], check=True, capture_output=True)
        for kill in range(num_kills):
            num_before = len(output.read_bytes()) if output.exists() else 0
            process = subprocess.Popen([*command, str(output)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_until(partial(has_grown, output, num_before, process))
            time.sleep(rng.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL if kill % 2 else signal.SIGINT)
            process.wait(10)
        subprocess.run([*command, str(output)], check=True, capture_output=True)
    clean = {record["id"]: record for record in records(tmp_path / "clean.jsonl")}
    made = records(output)
    assert len(made) == num
    assert {record["id"]: record for record in made} == clean


@pytest.mark.slow
def test_ctrl_c_ends_a_run_within_a_second_and_keeps_what_was_finished(model: Model, tmp_path: Path) -> None:
    work = items(tmp_path, 100)
    assert work
    output = tmp_path / "out.jsonl"
    with serving(model, SERVED) as url:
        command = [sys.executable, "-c", "from vlinstruct.cli.main import main; main()", "ask", str(tmp_path)]
        command += ["color plz", "-O", "--when", "always", "--backbone", url, "--output", str(output)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: output.exists() and output.read_bytes().count(b"\n") > 5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - began < 1.5
    made = records(output)
    assert all(record["status"] == "ok" for record in made)


def has_grown(output: Path, num_before: int, process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None or (output.exists() and len(output.read_bytes()) > num_before)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_side_by_side_is_in_order_bounded_and_tells_errors() -> None:
    from vlinstruct.media.read_ahead import side_by_side

    running, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001 * (item % 5))
        with lock:
            running -= 1
        if item == 30:
            raise ValueError(item)
        return item

    done = []
    with pytest.raises(ValueError, match="30"):
        done.extend(iter(side_by_side(range(50), work, num_threads=4)))
    assert most == 4
    results = side_by_side(range(25), work, num_threads=4)
    assert list(results) == list(range(25))

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("items")

    with pytest.raises(KeyError):
        list(side_by_side(broken(), work, num_threads=2))


def test_what_is_finished_at_an_interrupt_is_yielded_first() -> None:
    from vlinstruct.media import read_ahead

    class Interrupted(BaseException):
        pass

    class Queue(read_ahead.SimpleQueue):  # type: ignore[type-arg,misc]
        num = 0

        def get(self, *args: Any, **options: Any) -> Any:
            self.num += 1
            if self.num == 3:
                time.sleep(0.2)  # the others finish
                raise Interrupted
            return super().get(*args, **options)

    original = read_ahead.SimpleQueue
    read_ahead.SimpleQueue = Queue  # type: ignore[misc]
    taken: list[int] = []
    try:
        with pytest.raises(Interrupted):
            taken.extend(iter(read_ahead.side_by_side(range(6), lambda item: item, num_threads=2)))
    finally:
        read_ahead.SimpleQueue = original  # type: ignore[misc]
    assert taken == sorted(set(taken))
    assert len(taken) >= 5
