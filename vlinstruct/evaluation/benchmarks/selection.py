"""What was asked for by name: mini's tasks, official benchmarks, or both, each of the two with a table of its own.

mini's tasks have the official benchmarks' names and other kinds of words, so that one table cannot hold both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vlinstruct.config import GenerationConfig
from vlinstruct.errors import UsageError
from vlinstruct.evaluation.benchmark import Benchmark
from vlinstruct.evaluation.item import Item, Task
from vlinstruct.mini.split import Split

Kind = Literal["mini", "official"]
_MINI_ITEMS = 500
_MINI_GENERATION = GenerationConfig(max_new_tokens=48)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says about items and answers; None leaves it to the benchmark.

    Args:
        data: the folder of the official benchmarks' folders.
        split: which part of mini's world.
        seed: of mini's items.
        limit: the first so many items of each task.
        num_beams: of the search for an answer.
        max_new_tokens: most tokens of an answer.
    """

    data: Path | None
    split: Split
    seed: int
    limit: int | None
    num_beams: int | None
    max_new_tokens: int | None

    def generation(self, own: GenerationConfig) -> GenerationConfig:
        """Returns a benchmark's own settings, with what the command line says in their place."""
        return replace(
            own,
            num_beams=own.num_beams if self.num_beams is None else self.num_beams,
            max_new_tokens=own.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What one table is made of.

    Args:
        kind: mini's or official.
        tasks: the benchmarks.
        items: by task.
        generation: how answers are generated, by task.
        facts: what a reader of the table should know about the items.
        notices: what a user should know at once.
    """

    kind: Kind
    tasks: Sequence[Task]
    items: Mapping[str, Sequence[Item]]
    generation: Mapping[str, GenerationConfig]
    facts: Mapping[str, Any]
    notices: Sequence[str] = ()


def official(names: Sequence[str]) -> list[Benchmark]:
    """Returns the official benchmarks among the names, in the order of the paper's.

    Raises:
        UsageError: nothing is known by one of the names.
    """
    from vlinstruct.evaluation.benchmarks.official import BENCHMARKS

    minis = _mini_tasks()
    unknown = [name for name in names if name != "mini" and name not in {**minis, **BENCHMARKS}]
    if unknown:
        known = f"{', '.join(BENCHMARKS)}, mini, and mini's tasks, e.g. mini/gqa"
        raise UsageError(f"unknown benchmark {unknown[0]!r}: known are {known}.")
    return [benchmark for name, benchmark in BENCHMARKS.items() if name in names]


def kinds(names: Sequence[str]) -> list[Kind]:
    """Returns of which kinds the named benchmarks are."""
    is_mini = [name.split("/")[0] == "mini" for name in names]
    found: list[Kind] = ["mini"] if any(is_mini) else []
    return found if all(is_mini) else [*found, "official"]


def select(names: Sequence[str], options: Options) -> Iterator[Selection]:
    """Yields what is run: mini's tasks, then the official benchmarks.

    Raises:
        UsageError: an unknown name, or official benchmarks without their folder.
        DataError: their files cannot be used.
    """
    benchmarks = official(names)
    if benchmarks and options.data is None:
        raise UsageError(
            "official benchmarks need --data DIR, which holds a folder for each: --list says what is in it."
        )
    tasks = [task for name, task in _mini_tasks().items() if "mini" in names or name in names]
    if tasks:
        yield _mini(tasks, options)
    if benchmarks and options.data is not None:
        yield _official(benchmarks, options.data, options)


def _mini_tasks() -> dict[str, Task]:
    from vlinstruct.evaluation.benchmarks.mini import TASKS

    return {f"mini/{task.name}": task for task in TASKS}


def _mini(tasks: Sequence[Task], options: Options) -> Selection:
    from vlinstruct.evaluation.benchmarks.mini import items

    limit = _MINI_ITEMS if options.limit is None else options.limit
    generation = options.generation(_MINI_GENERATION)
    return Selection(
        kind="mini",
        tasks=tasks,
        items={task.name: items(task, limit, split=options.split, seed=options.seed) for task in tasks},
        generation={task.name: generation for task in tasks},
        facts={"split": options.split, "seed": options.seed, "items_per_task": limit},
    )


def _official(benchmarks: Sequence[Benchmark], data: Path, options: Options) -> Selection:
    from vlinstruct.evaluation.benchmarks.official import folder_of, ignores_tables, read_items

    folders = {one.task.name: folder_of(one, data) for one in benchmarks}
    items = {one.task.name: read_items(one, folders[one.task.name], limit=options.limit) for one in benchmarks}
    counts = {name: len(found) for name, found in items.items()}
    return Selection(
        kind="official",
        tasks=[one.task for one in benchmarks],
        items=items,
        generation={one.task.name: options.generation(one.generation) for one in benchmarks},
        facts={"seed": options.seed, "items": counts},
        notices=[
            *(
                f"{one.task.name}: its authors' files are read, the tables in {folders[one.task.name]} are not"
                for one in benchmarks
                if ignores_tables(one, folders[one.task.name])
            ),
            *(
                f"{one.task.name} has {counts[one.task.name]:,} items here, its authors' files have {one.num_items:,}: "
                "the figures cannot be compared with others'"
                for one in benchmarks
                if options.limit is None and counts[one.task.name] != one.num_items
            ),
        ],
    )
