"""Runs the real lmms-eval with our plug-in, and compares every answer and every loss with our own.

PYTHONPATH=tests python -m lmms_plugin.against_lmms_eval [--adapter mini-ema]

It needs an environment that has lmms-eval and this package, and opens no connection. Toy tasks (twelve pictures of
mini's world each, every second question in poor words) run plain and optimized, at batch sizes 1 and 8, as messages, by
two processes, and from the cache. The four tasks that ship run on small sets in the format of their official files.
What came out is in RUN.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vlinstruct
from vlinstruct.evaluation.benchmark import SHORT_ANSWER
from vlinstruct.integrations.lmms_eval import TASKS_FOLDER, prepare
from vlinstruct.integrations.lmms_eval.results import losses_of
from vlinstruct.settings import GenerationSettings

from . import official_sets, toy_tasks

TOLERANCE = 1e-5
NUM_TOYS = 12


@dataclass(frozen=True, kw_only=True)
class Run:
    """A call of lmms-eval.

    Args:
        tasks: what it evaluates, from one folder.
        folder: where they lie.
        batch_size: documents at a time.
        optimize: with AIO.
        model: vlinstruct or vlinstruct_chat.
        num_processes: more than one are started by accelerate.
        cache: how far lmms-eval's cache of responses is filled; None goes without it.
    """

    tasks: Sequence[str]
    folder: Path
    batch_size: int
    optimize: bool = False
    model: str = "vlinstruct"
    num_processes: int = 1
    cache: str | None = None

    @property
    def label(self) -> str:
        """What the table calls it."""
        how = ["optimized" if self.optimize else "plain"]
        how += ["messages"] if "chat" in self.model else []
        how += [f"{self.num_processes} processes"] if self.num_processes > 1 else []
        return ", ".join(how + ([self.cache] if self.cache else []))

    def command(self, adapter: str, output: Path) -> list[str]:
        """Returns the command line."""
        launcher = ["-m"]
        if self.num_processes > 1:
            launcher += ["accelerate.commands.launch", "--cpu", "--num_processes", str(self.num_processes), "-m"]
        arguments = f"pretrained=mini,adapter={adapter},optimize={self.optimize},dtype=float32,offline=True"
        asked = ["--model", self.model, "--model_args", arguments, "--batch_size", str(self.batch_size)]
        asked += ["--tasks", ",".join(self.tasks), "--include_path", str(self.folder), "--device", "cpu"]
        asked += ["--use_cache", str(output.parent / "cache")] if self.cache else []
        return [sys.executable, *launcher, "lmms_eval", *asked, "--log_samples", "--output_path", str(output)]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What lmms-eval wrote of one task: its metrics, and its records in the order of the documents."""

    metrics: Mapping[str, float]
    records: Sequence[Mapping[str, Any]]


def lmms_eval(run: Run, adapter: str, root: Path) -> dict[str, Outcome]:
    """Runs lmms-eval and reads what it wrote."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(root / "home")}
    with tempfile.TemporaryDirectory(dir=root) as name:
        command = run.command(adapter, Path(name))
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
        results = [json.loads(path.read_text()) for path in Path(name).rglob("*results.json")]
        if len(results) != 1:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return {task: _outcome(task, results[0], Path(name)) for task in run.tasks}


def _outcome(task: str, results: Mapping[str, Any], folder: Path) -> Outcome:
    (path,) = folder.rglob(f"*_samples_{task}.jsonl")
    records = sorted(map(json.loads, path.read_text().splitlines()), key=lambda record: record["doc_id"])
    metrics = {name.split(",")[0]: value for name, value in results["results"][task].items() if name.endswith(",none")}
    return Outcome(metrics={name: value for name, value in metrics.items() if "stderr" not in name}, records=records)


def our_answers(
    pipeline: vlinstruct.Model, rows: Sequence[Mapping[str, Any]], *, optimize: bool, generation: GenerationSettings
) -> list[Any]:
    """Returns our own answer per row, asked one by one: a text, or every option's loss."""
    answers: list[Any] = []
    for row in rows:
        answer = pipeline.ask(
            row["image"], row["instruction"], choices=row["candidates"], optimize=optimize, generation=generation
        )
        answers.append([choice.nll for choice in answer.choices] if row["candidates"] else answer.text)
    return answers


def compare(outcome: Outcome, ours: Sequence[Any]) -> tuple[int, float]:
    """Returns how many documents differ, and the largest difference of a loss."""
    assert len(outcome.records) == len(ours)
    num_different, largest = 0, 0.0
    for record, own in zip(outcome.records, ours, strict=True):
        if isinstance(own, str):
            num_different += record["filtered_resps"] != own
            continue
        theirs = losses_of(record["filtered_resps"])
        distance = max(abs(one - other) for one, other in zip(theirs, own, strict=True))
        largest = max(largest, distance)
        num_different += distance > TOLERANCE
    return num_different, largest


def our_metrics(task: str, rows: Sequence[Mapping[str, Any]], ours: Sequence[Any]) -> dict[str, float]:
    """Scores our own answers as the task does, from our own metric code."""
    results = [[own] if isinstance(own, str) else [(loss, False) for loss in own] for own in ours]
    return toy_tasks.score(task, rows, results)


def main() -> int:
    """Runs everything and prints the table; the exit code says whether all is equal."""
    parser = argparse.ArgumentParser(description="Compare our answers with those that lmms-eval gets from us.")
    parser.add_argument("--adapter", default="mini-ema")
    adapter = parser.parse_args().adapter
    with tempfile.TemporaryDirectory() as name:
        return _run_all(Path(name).resolve(), adapter)


def _run_all(root: Path, adapter: str) -> int:
    toys = toy_tasks.write(root / "toys", num_items=NUM_TOYS)
    shipped = {f"vlinstruct_{benchmark}": _prepared(benchmark, root) for benchmark in prepare.BENCHMARKS}
    pipeline = vlinstruct.load("mini", adapter=adapter, device="cpu", offline=True)
    sets = {**toys, **shipped}
    own: dict[tuple[str, bool], list[Any]] = {}
    print("| task | documents | how | batch size | metric | lmms-eval | vlinstruct | documents that differ | largest |")
    print("|---|---|---|---|---|---|---|---|---|")
    num_different = 0
    for run in _runs(root / "toys", list(toys), list(shipped)):
        for task, outcome in lmms_eval(run, adapter, root).items():
            generation = SHORT_ANSWER if task in shipped else toy_tasks.GENERATION
            if (task, run.optimize) not in own:
                own[task, run.optimize] = our_answers(
                    pipeline, sets[task], optimize=run.optimize, generation=generation
                )
            num_different += _print_row(run, task, outcome, sets[task], own[task, run.optimize])
    print(f"\n{num_different} differences")
    return int(num_different > 0)


def _prepared(benchmark: str, root: Path) -> list[dict[str, Any]]:
    official_sets.WRITERS[benchmark](root / benchmark)
    output = root / "lmms_data" / f"{benchmark}.jsonl"
    assert prepare.main([benchmark, str(root / benchmark), "-o", str(output)]) == 0
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def _runs(toy_folder: Path, toys: Sequence[str], shipped: Sequence[str]) -> list[Run]:
    own_code = [toy_tasks.ANSWERS, toy_tasks.OPTIONS]  # lmms-eval's own cannot score what comes from its cache
    return [
        *(
            Run(tasks=toys, folder=toy_folder, batch_size=size, optimize=optimize)
            for optimize in (False, True)
            for size in (1, 8)
        ),
        Run(tasks=[toy_tasks.ANSWERS], folder=toy_folder, batch_size=8, model="vlinstruct_chat"),
        Run(tasks=toys, folder=toy_folder, batch_size=8, optimize=True, num_processes=2),
        *(Run(tasks=own_code, folder=toy_folder, batch_size=8, cache=f"cache {state}") for state in ("empty", "full")),
        *(Run(tasks=shipped, folder=TASKS_FOLDER, batch_size=size) for size in (1, 8)),
        Run(tasks=shipped, folder=TASKS_FOLDER, batch_size=8, optimize=True),
    ]


def _print_row(run: Run, task: str, outcome: Outcome, rows: Sequence[Mapping[str, Any]], ours: Sequence[Any]) -> int:
    num_different, largest = compare(outcome, ours)
    own = our_metrics(task, rows, ours)
    shown = "-" if isinstance(ours[0], str) else f"{largest:.0e}"
    for place, (metric, value) in enumerate(outcome.metrics.items()):
        is_equal = abs(value - own[metric]) < 1e-9
        head = f"| {task} | {len(rows)} | {run.label} | {run.batch_size}" if place == 0 else "| | | |"
        tail = f"{num_different} | {shown}" if place == 0 else "| "
        print(f"{head} | {metric} | {value:.4f} | {own[metric]:.4f} | {tail} |", flush=True)
        num_different += not is_equal
    return num_different


if __name__ == "__main__":
    sys.exit(main())
