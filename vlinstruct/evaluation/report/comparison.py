"""Two runs over the same items: which of them answers better, item by item, and where their records differ.

In: two output folders. Out: for the average and every task, in all kinds of words, plain and optimized, the difference
with its interval over resampled items and the p-value of a paired permutation test (of right and wrong answers
McNemar's); and what `differences` says of the records. Both runs' answers are scored anew, by the same rules.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlinstruct.errors import UsageError, counted
from vlinstruct.evaluation.answering import SCHEMA
from vlinstruct.evaluation.benchmark import WORDS, Metric, Task, Words
from vlinstruct.evaluation.parts import RECORDS_FILE, RESULTS_FILE
from vlinstruct.evaluation.report.columns import OPTIMIZED, Column, item_of, model_of, read_records
from vlinstruct.evaluation.report.differences import Differences, differences
from vlinstruct.evaluation.report.table import Cell, Table, table_of
from vlinstruct.evaluation.report.verdict import Kind, in_points, kind_of, task_kind
from vlinstruct.files import PathLike
from vlinstruct.metrics.bootstrap import Interval
from vlinstruct.settings import Thresholds

Record = Mapping[str, Any]
_COLLECTIONS = ("mini", "official")
_COLUMNS: tuple[Column, ...] = ("plain", OPTIMIZED)
_SAME_ITEMS = "Compare runs of the same benchmarks, with the same --split and --seed"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What an evaluation left.

    Args:
        folder: its output.
        results: what its table's record says.
        records: of its items.
    """

    folder: Path
    results: Mapping[str, Any]
    records: Sequence[Record]

    @property
    def rows(self) -> list[str]:
        """The rows of its table."""
        return list(dict.fromkeys(model_of(record) for record in self.records))

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metric of every task."""
        return dict(self.results["metrics"])


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One figure of both runs.

    Args:
        row: of the first run's table.
        other_row: of the second one's.
        words: how the items were asked.
        column: how the instruction was chosen.
        task: the benchmark; None of the average over all, in points, where the first run's plain answers in canonical
            words are 100.
        metric: the task's.
        num_items: of both runs.
        num_differing: on how many of them the scores are not the same.
        first: the first run's figure.
        second: the second one's.
        difference: the second less the first.
        p_value: how probable so large a difference is, were both runs alike; two-sided.
        verdict: whether the second run is better or worse, if that can be said.
    """

    row: str
    other_row: str
    words: Words
    column: Column
    task: str | None
    metric: Metric | None
    num_items: int
    num_differing: int
    first: Interval
    second: Interval
    difference: Interval
    p_value: float
    verdict: Kind


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two runs compare.

    Args:
        first: what the second one is compared with.
        second: the other run.
        pairs: every figure of both.
        num_tasks: of how many tasks the averages are.
        num_unpaired: items that only one of them has, which are left out.
        num_reworded: items that were asked in other words in the two runs.
        differences: of their records.
    """

    first: Run
    second: Run
    pairs: Sequence[Paired]
    num_tasks: int
    num_unpaired: int
    num_reworded: int
    differences: Differences

    def as_record(self) -> dict[str, Any]:
        """Returns the comparison as one JSON object; a figure that does not exist is NaN."""
        return {
            "schema": "vlinstruct.evaluation_differences/1",
            "id": str(self.first.folder),
            "status": "ok",
            **asdict(self.differences),
            "first": str(self.first.folder),
            "second": str(self.second.folder),
            "unpaired": self.num_unpaired,
            "reworded": self.num_reworded,
            "paired": [asdict(pair) for pair in self.pairs],
        }

    @property
    def verdicts(self) -> list[str]:
        """Returns a sentence for every average, first for the words that leave optimization the most to do."""
        averages = [pair for pair in self.pairs if pair.task is None]
        has_rows = len({pair.row for pair in averages}) > 1
        return [_sentence(pair, self.num_tasks, has_rows=has_rows) for pair in averages]


def compare_evaluations(
    first: PathLike, second: PathLike, *, seed: int = 0, notify: Callable[[str], None] = lambda notice: None
) -> list[Comparison]:
    """Compares two runs of `evaluate`, item by item; nothing is answered.

    Args:
        first: the output folder of the run that the other one is compared with.
        second: the other one's.
        seed: of the resamples.
        notify: is told what a user should know.

    Returns:
        A comparison for each table that both have: of mini's tasks, of the official benchmarks, or of both.

    Raises:
        UsageError: there is no run there, or the two cannot be compared.
    """
    folders, other_folders = _folders(Path(first)), _folders(Path(second))
    return [
        compare(read_run(folders[name]), read_run(other_folders[name]), seed=seed, notify=notify)
        for name in folders
        if name in other_folders
    ] or [compare(read_run(Path(first)), read_run(Path(second)), seed=seed, notify=notify)]


def _folders(output: Path) -> dict[str, Path]:
    """Returns the folders of a run's tables: itself, or those below it where it has one for each collection."""
    if output.name == RESULTS_FILE:
        output = output.parent
    below = {name: output / name for name in _COLLECTIONS if (output / name / RECORDS_FILE).exists()}
    return below if below and not (output / RECORDS_FILE).exists() else {"": output}


def read_run(folder: Path) -> Run:
    """Reads what an evaluation left.

    Raises:
        UsageError: there is nothing that could be compared.
    """
    try:
        records = read_records(folder)
    except (OSError, ValueError) as error:
        raise _no_run(folder, f"{RECORDS_FILE} cannot be read ({type(error).__name__})") from error
    if not records or any(not isinstance(record, dict) or record.get("schema") != SCHEMA for record in records):
        raise _no_run(folder, f"{RECORDS_FILE} holds something else than records of {SCHEMA}")
    try:
        results = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
        run = Run(folder=folder, results=results, records=records)
        is_whole = run.metrics.keys() >= {record["task"] for record in records}
        Thresholds(**results["thresholds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{RESULTS_FILE} is missing or of an earlier version"
        raise _no_run(folder, why, "Run its command again: it answers nothing anew") from error
    if not is_whole:
        raise _no_run(folder, f"{RESULTS_FILE} has not all tasks of {RECORDS_FILE}", "Run its command again")
    return run


def _no_run(folder: Path, why: str, advice: str = "Give the --output of a run of this version") -> UsageError:
    return UsageError.at("cannot compare with", folder, why, advice)


def compare(
    first: Run, second: Run, *, seed: int = 0, notify: Callable[[str], None] = lambda notice: None
) -> Comparison:
    """Compares two runs.

    Args:
        first: what the second one is compared with.
        second: the other one.
        seed: of the resamples.
        notify: is told what a user should know.

    Raises:
        UsageError: their items or rows are others.
    """
    _require_same_items(first, second)
    rows = _row_pairs(first, second)
    pairs: list[Paired] = []
    num_tasks, num_unpaired, num_reworded = 0, 0, 0
    for row, other_row in rows.items():
        ours, theirs = _by_words_and_item(first, row), _by_words_and_item(second, other_row)
        kept, unpaired = _items_of_both(ours, theirs)
        _require_same_meaning(second, ours, theirs, kept)
        num_unpaired = max(num_unpaired, len(unpaired))
        num_reworded += sum(ours[key]["initial"]["text"] != theirs[key]["initial"]["text"] for key in kept)
        table = _table(first, second, [ours, theirs], kept, seed, notify)
        num_tasks = len(table.measured_tasks)
        pairs += _pairs(table, row, other_row)
    renamed = {other_row: row for row, other_row in rows.items()}
    their_records = [
        {**record, "id": _renamed(record, renamed.get(model_of(record), model_of(record)))} for record in second.records
    ]
    # A record that failed has nothing to be compared.
    of_both = ([one for one in records if one["status"] == "ok"] for records in (first.records, their_records))
    return Comparison(
        first=first,
        second=second,
        pairs=pairs,
        num_tasks=num_tasks,
        num_unpaired=num_unpaired,
        num_reworded=num_reworded,
        differences=differences(*of_both),
    )


def _require_same_items(first: Run, second: Run) -> None:
    """Refuses runs whose results say that their items are others: ids of mini's are the same for every seed."""
    collections = ["mini's tasks" if "split" in run.results else "official benchmarks" for run in (first, second)]
    if collections[0] != collections[1]:
        raise _no_run(second.folder, f"it is of {collections[1]}, the other of {collections[0]}", _SAME_ITEMS)
    for name in ("split", "seed") if "split" in first.results else ():
        values = [run.results.get(name) for run in (first, second)]
        if values[0] != values[1]:
            why = f"its items are others, of --{name} {values[1]} in place of {values[0]}"
            raise _no_run(second.folder, why, _SAME_ITEMS)
    for task in first.metrics.keys() & second.metrics.keys():
        if first.metrics[task] != second.metrics[task]:
            raise _no_run(second.folder, f"{task} is scored by another metric there", _SAME_ITEMS)


def _row_pairs(first: Run, second: Run) -> dict[str, str]:
    """Returns which rows are compared: those of one name, or the only ones."""
    if len(first.rows) == len(second.rows) == 1:
        return {first.rows[0]: second.rows[0]}
    if rows := {row: row for row in first.rows if row in second.rows}:
        return rows
    why = f"it has no row of the other's: {', '.join(second.rows)}; {', '.join(first.rows)}"
    raise _no_run(second.folder, why, "Compare runs with a row of the same name, or of one row each")


def _by_words_and_item(run: Run, row: str) -> dict[tuple[str, str], Record]:
    """Returns a row's records that could be read."""
    return {
        (str(record["id"]).rsplit("/", 2)[1], item_of(record)): record
        for record in run.records
        if model_of(record) == row and record["status"] == "ok"
    }


def _items_of_both(
    ours: Mapping[tuple[str, str], Record], theirs: Mapping[tuple[str, str], Record]
) -> tuple[list[tuple[str, str]], set[str]]:
    """Returns what both runs have, and the items that they have not both in all words that they have both."""
    words = [one for one in WORDS if any(one == key[0] for key in ours) and any(one == key[0] for key in theirs)]
    all_items = {item: None for _, item in (*ours, *theirs)}  # in the order of the records
    kept = [item for item in all_items if all((one, item) in ours and (one, item) in theirs for one in words)]
    return [(one, item) for one in words for item in kept], all_items.keys() - set(kept)


def _require_same_meaning(
    second: Run,
    ours: Mapping[tuple[str, str], Record],
    theirs: Mapping[tuple[str, str], Record],
    kept: Sequence[tuple[str, str]],
) -> None:
    if not kept:
        raise _no_run(second.folder, "it has no item of the other run", _SAME_ITEMS)
    for key in kept:
        for field in ("task", "references", "candidates", "target"):
            if ours[key].get(field) != theirs[key].get(field):
                raise _no_run(second.folder, f"its {key[1]} has another {field.removesuffix('s')}", _SAME_ITEMS)


def _renamed(record: Record, row: str) -> str:
    return "/".join([row, *str(record["id"]).rsplit("/", 2)[1:]])


_FIRST, _SECOND = "first", "second"


def _table(
    first: Run,
    second: Run,
    records: Sequence[Mapping[tuple[str, str], Record]],
    kept: Sequence[tuple[str, str]],
    seed: int,
    notify: Callable[[str], None],
) -> Table:
    """Scores both runs' records of the same items as the two rows of one table."""
    normalizers = [run.results.get("vqa_normalizer", "official") for run in (first, second)]
    if normalizers[0] != normalizers[1]:
        notify(f"VQA answers are scored with --vqa-normalizer {normalizers[0]}, the second run's too")
    everything = [
        {**of_run[key], "id": _renamed(of_run[key], name)}
        for name, of_run in zip((_FIRST, _SECOND), records, strict=True)
        for key in kept
    ]
    present = {record["task"] for record in everything}
    return table_of(
        everything,
        [Task(name=name, metric=metric) for name, metric in first.metrics.items() if name in present],
        {_FIRST: Thresholds(**first.results["thresholds"]), _SECOND: Thresholds(**second.results["thresholds"])},
        seed=seed,
        normalizer=normalizers[0],
        notify=notify,
    )


def _pairs(table: Table, row: str, other_row: str) -> list[Paired]:
    pairs = []
    for words in reversed(table.words):
        for column in _COLUMNS:
            cell, other = Cell(_FIRST, words, column), Cell(_SECOND, words, column)
            head: dict[str, Any] = {"row": row, "other_row": other_row, "words": words, "column": column}
            num_differing = {task.name: table.num_differing(cell, other, task.name) for task in table.tasks}
            difference, p_value = table.difference(other, cell), table.p_value(other, cell)
            pairs.append(
                Paired(
                    **head,
                    task=None,
                    metric=None,
                    num_items=table.num_items,
                    num_differing=sum(num_differing[task.name] for task in table.measured_tasks),
                    first=table.average(cell),
                    second=table.average(other),
                    difference=difference,
                    p_value=p_value,
                    verdict=kind_of(difference, p_value, table.num_items, unseen=table.unseen_points()),
                )
            )
            for task in table.tasks:
                difference = table.task_difference(other, cell, task.name)
                p_value = table.task_p_value(other, cell, task.name)
                pairs.append(
                    Paired(
                        **head,
                        task=task.name,
                        metric=task.metric,
                        num_items=table.sizes[task.name].num_items,
                        num_differing=num_differing[task.name],
                        first=table.task_score(cell, task.name),
                        second=table.task_score(other, task.name),
                        difference=difference,
                        p_value=p_value,
                        verdict=task_kind(table, task, difference, p_value),
                    )
                )
    return pairs


def _sentence(pair: Paired, num_tasks: int, *, has_rows: bool) -> str:
    of_row = f"{pair.row}, " if has_rows else ""
    where = f"{of_row}{pair.words} words, {pair.column}"
    what = {
        "better": "B answers better",
        "worse": "A answers better",
        "no difference": "A and B answer equally well",
        "too few items": "Too few items to tell which answers better",
        "undefined": "Nothing can be said",
    }
    over = f"{counted(num_tasks, 'task')} and {counted(pair.num_items, 'item')}"
    how_far = f"B less A is {in_points(pair.difference)}, over {over}"
    return f"{what[pair.verdict]}: {where}" + ("." if pair.verdict == "undefined" else f": {how_far}.")
