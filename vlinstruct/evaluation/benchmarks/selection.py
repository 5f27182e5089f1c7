"""What was asked for by name: mini's tasks, official benchmarks, or both, each of the two with a table of its own.

mini's tasks have the official benchmarks' names and other kinds of words, so that one table cannot hold both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlinstruct.errors import UsageError, shortened
from vlinstruct.evaluation.benchmark import Benchmark
from vlinstruct.evaluation.item import Item, Task
from vlinstruct.mini import Split
from vlinstruct.settings import GenerationSettings

if TYPE_CHECKING:
    from vlinstruct.evaluation.benchmarks.ocr_tokens import Completed, Ocr

Kind = Literal["mini", "official"]
_MINI_ITEMS = 500
_MINI_GENERATION = GenerationSettings(max_new_tokens=48)


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
        repetition_penalty: of tokens that an answer has already.
        ocr: reads tokens that annotations lack; None refuses such annotations.
    """

    data: Path | None
    split: Split
    seed: int
    limit: int | None
    num_beams: int | None
    max_new_tokens: int | None
    repetition_penalty: float | None = None
    ocr: Ocr | None = None

    def generation(self, own: GenerationSettings) -> GenerationSettings:
        """Returns a benchmark's own settings, with what the command line says in their place."""
        return replace(
            own,
            num_beams=own.num_beams if self.num_beams is None else self.num_beams,
            max_new_tokens=own.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens,
            repetition_penalty=own.repetition_penalty if self.repetition_penalty is None else self.repetition_penalty,
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
    generation: Mapping[str, GenerationSettings]
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


def require_ocr_tokens(names: Sequence[str]) -> None:
    """Refuses `--ocr` for names none of which has a use for it.

    Raises:
        UsageError: none of them shows OCR tokens.
    """
    from vlinstruct.evaluation.benchmarks.official import BENCHMARKS

    if all(one.with_ocr is None for one in official(names)):
        users = ", ".join(name for name, one in BENCHMARKS.items() if one.with_ocr is not None)
        raise UsageError(f"--ocr reads the tokens that {users} shows; of {shortened(', '.join(names), 60)} none does.")


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
    from vlinstruct.evaluation.benchmarks.official import folder_of, without_tokens

    if options.ocr is not None:
        benchmarks = [without_tokens(one) for one in benchmarks]
    folders = {one.task.name: folder_of(one, data) for one in benchmarks}
    completed = {one.task.name: _completed(one, folders[one.task.name], options) for one in benchmarks}
    counts = {name: len(one.items) for name, one in completed.items()}
    return Selection(
        kind="official",
        tasks=[one.task for one in benchmarks],
        items={name: one.items for name, one in completed.items()},
        generation={one.task.name: options.generation(one.generation) for one in benchmarks},
        facts={"seed": options.seed, "items": counts, **_ocr_facts(list(completed.values()), options)},
        notices=[
            *_file_notices(benchmarks, folders, counts, is_whole=options.limit is None),
            *_ocr_notices(completed),
        ],
    )


def _completed(benchmark: Benchmark, folder: Path, options: Options) -> Completed:
    from vlinstruct.evaluation.benchmarks.ocr_tokens import Completed, read_completed
    from vlinstruct.evaluation.benchmarks.official import read_items

    if options.ocr is None or benchmark.with_ocr is None:
        return Completed(items=read_items(benchmark, folder, limit=options.limit))
    return read_completed(benchmark, folder, options.ocr, limit=options.limit)


def _file_notices(
    benchmarks: Sequence[Benchmark], folders: Mapping[str, Path], counts: Mapping[str, int], *, is_whole: bool
) -> Iterator[str]:
    from vlinstruct.evaluation.benchmarks.official import ignores_tables

    for one in benchmarks:
        name = one.task.name
        if ignores_tables(one, folders[name]):
            yield f"{name}: its authors' files are read, the tables in {folders[name]} are not"
        if is_whole and counts[name] != one.num_items:
            yield (
                f"{name} has {counts[name]:,} items here, its authors' files have {one.num_items:,}: "
                "the figures cannot be compared with others'"
            )


def _ocr_notices(completed: Mapping[str, Completed]) -> Iterator[str]:
    for name, one in completed.items():
        if one.num_pictures:
            yield (
                f"{name}: {', '.join(one.libraries)} read the tokens of {one.num_pictures:,} pictures: the figures "
                "cannot be compared with those on the annotations' Rosetta tokens"
            )


def _ocr_facts(completed: Sequence[Completed], options: Options) -> dict[str, Any]:
    """Says how many pictures a library read, and which library."""
    if options.ocr is None:
        return {}
    libraries = sorted({library for one in completed for library in one.libraries}) or [options.ocr.library]
    return {"ocr_pictures": sum(one.num_pictures for one in completed), "ocr_library": ", ".join(libraries)}
