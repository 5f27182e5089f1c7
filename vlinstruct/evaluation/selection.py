"""What is evaluated, and how: mini's tasks, official benchmarks, or both, each of the two with a table of its own.

mini's tasks have the official benchmarks' names and other kinds of words, so that one table cannot hold both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypedDict

from vlinstruct.backends.registry import BACKBONES, DEFAULT_BACKBONE
from vlinstruct.errors import UsageError, shortened
from vlinstruct.evaluation.benchmark import Benchmark, Item, Task
from vlinstruct.evaluation.benchmarks import BENCHMARKS, folder_of, mini
from vlinstruct.evaluation.reading.files import ignores_tables, read_items
from vlinstruct.evaluation.reading.items import for_chat, with_limits
from vlinstruct.evaluation.reading.ocr_tokens import CompleteItems, Ocr, read_completed
from vlinstruct.media.images import ImageLimits
from vlinstruct.metrics.vqa_accuracy import Normalizer
from vlinstruct.mini import Split
from vlinstruct.settings import GenerationSettings, Quantization, ServerSettings, Thresholds

Collection = Literal["mini", "official"]
_MINI_TASKS: Mapping[str, Task] = {f"mini/{task.name}": task for task in mini.TASKS}
_MINI_ITEMS = 500  # a task's; everything about mini is drawn, so that there is no whole to take
_MINI_GENERATION = GenerationSettings(max_new_tokens=48)
_VANILLA = "vanilla"


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How an evaluation is done; None leaves a setting to the benchmark.

    Args:
        ablation: give the backbone without an adapter a row of its own beside those of the adapters; without any
            adapter named, mini's are those that ship with it.
        split: which part of mini's world.
        seed: of mini's items and of the resamples behind the intervals.
        ocr: read the pictures that textvqa's files have no OCR tokens of (needs vlinstruct[ocr]).
        ocr_tokens: show OCR tokens where the paper does; without them textvqa is asked by its question alone.
        batch_size: items that go through the model together; moves the last decimals of a score, nothing else.
        num_beams: of the search for an answer.
        max_new_tokens: most tokens of an answer.
        repetition_penalty: above 1: tokens that an answer has are less likely.
        skip_images: items that may be left out because their pictures cannot be read; None for any number.
        overwrite: replace what an earlier run left in the folder, in place of resuming it.
        max_pixels: larger pictures are refused before they are decoded.
        allow_truncated: read what is there of a picture that was cut off.
        vqa_normalizer: whose rules make two answers equal: VQA v2.0's code, LAVIS' or lmms-eval's.
        device: where the model runs, e.g. "cuda:1".
        dtype: what the model computes in: auto, float32, bfloat16 or float16.
        quantize: store the language model's layers in fewer bits.
        image_size: side in pixels that pictures are read at; the model's own if None.
        think: let a model that can think do so before it answers.
        offline: open no connection, use what is cached.
        server: how a server is asked, where the backbone is one.
        least_certainty: that the rules of choosing an instruction compare with, as the next two; the table's columns
            and its page's cases are worked out anew under others, nothing is answered again. None is the backbone's.
        max_cross_nll: see `settings.Thresholds`.
        sure_above: see `settings.Thresholds`.
    """

    ablation: bool = False
    split: Split = "test"
    seed: int = 0
    ocr: bool = False
    ocr_tokens: bool = True
    batch_size: int = 16
    num_beams: int | None = None
    max_new_tokens: int | None = None
    repetition_penalty: float | None = None
    skip_images: int | None = None
    overwrite: bool = False
    max_pixels: int = 50_000_000
    allow_truncated: bool = False
    vqa_normalizer: Normalizer = "official"
    device: str = "auto"
    dtype: str = "auto"
    quantize: Quantization | None = None
    image_size: int | None = None
    think: bool = False
    offline: bool = False
    server: ServerSettings = ServerSettings()
    least_certainty: float | None = None
    max_cross_nll: float | None = None
    sure_above: float | None = None

    def __post_init__(self) -> None:
        replace(Thresholds(), **self.own_thresholds)  # checks those that are set

    @property
    def own_thresholds(self) -> dict[str, float]:
        """Returns the thresholds that are set, by name."""
        names = [field.name for field in fields(Thresholds)]
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def limits(self) -> ImageLimits:
        """How large a picture may be, and how whole it must be."""
        return ImageLimits(max_pixels=self.max_pixels, allow_truncated=self.allow_truncated)

    def generation(self, defaults: GenerationSettings) -> GenerationSettings:
        """Returns a benchmark's own settings with what is set here in their place.

        Raises:
            UsageError: a number is out of range.
        """
        changes: dict[str, Any] = {
            "num_beams": self.num_beams,
            "max_new_tokens": self.max_new_tokens,
            "repetition_penalty": self.repetition_penalty,
        }
        return replace(defaults, **{name: value for name, value in changes.items() if value is not None})


class EvaluationOptions(TypedDict, total=False):
    """`EvaluationSettings` as keywords of a call; a test says that the two agree."""

    ablation: bool
    split: Split
    seed: int
    ocr: bool
    ocr_tokens: bool
    batch_size: int
    num_beams: int | None
    max_new_tokens: int | None
    repetition_penalty: float | None
    skip_images: int | None
    overwrite: bool
    max_pixels: int
    allow_truncated: bool
    vqa_normalizer: Normalizer
    device: str
    dtype: str
    quantize: Quantization | None
    image_size: int | None
    think: bool
    offline: bool
    server: ServerSettings
    least_certainty: float | None
    max_cross_nll: float | None
    sure_above: float | None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What one table is made of.

    Args:
        collection: mini's or official.
        tasks: the benchmarks.
        items: by task.
        generation: how answers are generated, by task.
        facts: what a reader of the table should know about the items.
        notices: what a user should know at once.
        benchmarks: the official ones, in the order of the tasks.
    """

    collection: Collection
    tasks: Sequence[Task]
    items: Mapping[str, Sequence[Item]]
    generation: Mapping[str, GenerationSettings]
    facts: Mapping[str, Any]
    notices: Sequence[str] = ()
    benchmarks: Sequence[Benchmark] = ()


def for_chat_models(selection: Selection, settings: EvaluationSettings) -> Selection:
    """Returns official benchmarks as chat models are asked them; mini's words are the same for all models."""
    if not selection.benchmarks:
        return selection
    by_name = {benchmark.task.name: benchmark for benchmark in selection.benchmarks}
    ours = [name for name, benchmark in by_name.items() if benchmark.is_chat_ours]
    prompts = "chat models', as in lmms-eval" + (f" (for {', '.join(ours)} ours)" if ours else "")
    return replace(
        selection,
        items={
            name: [for_chat(item, by_name[name].chat_instruction) for item in items]
            for name, items in selection.items.items()
        },
        generation={name: settings.generation(benchmark.chat_generation) for name, benchmark in by_name.items()},
        facts={**selection.facts, "prompts": prompts},
    )


def require_names(names: Sequence[str], *, ocr: bool, ocr_tokens: bool = True) -> None:
    """Refuses no names at all, and options on OCR tokens for names none of which has a use for them.

    Raises:
        UsageError: there are no names, none of them shows OCR tokens, or these are to be read and not shown.
    """
    if not names:
        raise UsageError("name a benchmark: mini, or an official one (--list).")
    if ocr and not ocr_tokens:
        raise UsageError("--ocr reads the tokens that --no-ocr-tokens leaves out", advice="Give one of the two.")
    if (ocr or not ocr_tokens) and all(benchmark.with_ocr is None for benchmark in official(names)):
        users = ", ".join(name for name, benchmark in BENCHMARKS.items() if benchmark.with_ocr is not None)
        what = "--ocr reads" if ocr else "--no-ocr-tokens leaves out"
        raise UsageError(f"{what} the tokens that {users} shows; of {shortened(', '.join(names), 60)} none does.")


def without_ocr_tokens(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """Returns benchmarks as they are asked without OCR tokens."""
    return [benchmark if benchmark.without_ocr is None else benchmark.without_ocr() for benchmark in benchmarks]


def official(names: Sequence[str]) -> list[Benchmark]:
    """Returns the official benchmarks among the names, in the order of the paper's.

    Raises:
        UsageError: one of the names is unknown.
    """
    unknown_names = [name for name in names if name != "mini" and name not in {**_MINI_TASKS, **BENCHMARKS}]
    if unknown_names:
        choices = f"{', '.join(BENCHMARKS)}, mini, and mini's tasks, e.g. mini/gqa"
        near = get_close_matches(unknown_names[0], ["mini", *_MINI_TASKS, *BENCHMARKS], n=1)
        hint = f"; did you mean {near[0]}?" if near else f": known are {choices}."
        raise UsageError(f"unknown benchmark {unknown_names[0]!r}{hint}")
    return [benchmark for name, benchmark in BENCHMARKS.items() if name in names]


def collections_of(names: Sequence[str]) -> list[Collection]:
    """Returns which collections the named benchmarks are of."""
    is_mini = [name.split("/")[0] == "mini" for name in names]
    collections: list[Collection] = ["mini"] if any(is_mini) else []
    return collections if all(is_mini) else [*collections, "official"]


def adapters_by_row(
    collection: Collection, *, ablation: bool, adapters: Sequence[str], backbone: str
) -> Mapping[str, str | None]:
    """Returns a table's rows by name: the adapter that each puts onto the backbone, None for nothing.

    Args:
        collection: mini's table or the official benchmarks'.
        ablation: whether the backbone without an adapter has a row beside those of the adapters.
        adapters: folders or names; under `ablation` those that ship with the backbone if none is given.
        backbone: as it was named.

    Raises:
        UsageError: the options contradict each other.
    """
    by_name: dict[str, str | None] = {adapter: adapter for adapter in adapters}
    if not ablation:
        if len(adapters) > 1:
            raise UsageError("--adapter is given twice: with --ablation each has a row of its own.")
        return by_name or {_VANILLA: None}
    is_built_in = backbone in BACKBONES and BACKBONES[backbone].is_built_in
    if not by_name and collection == "official" and not is_built_in:
        raise UsageError("--ablation compares adapters: name at least one with --adapter.")
    # A record's id begins with its row's name, so that two rows of one name would take each other's records for theirs.
    if len({_VANILLA, *adapters}) <= len(adapters):
        raise UsageError("--adapter: two rows would have one name.")
    if by_name:
        return {_VANILLA: None, **by_name}
    shipped_for = backbone if is_built_in else DEFAULT_BACKBONE
    return {_VANILLA: None, "projection": f"{shipped_for}-projection", "EMA": f"{shipped_for}-ema"}


def select(
    names: Sequence[str], *, data: Path | None, limit: int | None, settings: EvaluationSettings, ocr: Ocr | None
) -> Iterator[Selection]:
    """Yields what is run: mini's tasks, then the official benchmarks.

    Args:
        names: as they were typed.
        data: the folder of the official benchmarks' folders.
        limit: the first so many items of each task; None takes all, and some of mini's.
        settings: how items are drawn and answers generated.
        ocr: reads tokens that annotations lack; None refuses such annotations.

    Raises:
        UsageError: an unknown name, or official benchmarks without their folder.
        DataError: their files cannot be used.
    """
    benchmarks = official(names)
    cache_notices: list[str] = []
    folders = folders_of(benchmarks, data, notify=cache_notices.append)
    tasks = [task for name, task in _MINI_TASKS.items() if "mini" in names or name in names]
    if tasks:
        num_items = _MINI_ITEMS if limit is None else limit
        generation = settings.generation(_MINI_GENERATION)
        yield Selection(
            collection="mini",
            tasks=tasks,
            items={task.name: mini.items(task, num_items, split=settings.split, seed=settings.seed) for task in tasks},
            generation={task.name: generation for task in tasks},
            facts={"split": settings.split, "seed": settings.seed, "items_per_task": num_items},
        )
    if benchmarks:
        selection = _official(benchmarks, folders, limit, settings, ocr)
        yield replace(selection, notices=[*cache_notices, *selection.notices])


def folders_of(
    benchmarks: Sequence[Benchmark], data: Path | None, *, notify: Callable[[str], None] = lambda notice: None
) -> dict[str, Path]:
    """Returns the folders of benchmarks by name.

    Args:
        benchmarks: official ones.
        data: the folder of their folders; None where the hub's cache has copies of all.
        notify: is told of copies there.

    Raises:
        UsageError: `data` is None, and a copy is missing.
    """
    folders = {benchmark.task.name: folder_of(benchmark, data, notify=notify) for benchmark in benchmarks}
    if None in folders.values():
        raise UsageError(
            "official benchmarks need --data DIR, which holds a folder for each: --list says what is in it."
        )
    return {name: folder for name, folder in folders.items() if folder is not None}


def _official(
    benchmarks: Sequence[Benchmark],
    folders: Mapping[str, Path],
    limit: int | None,
    settings: EvaluationSettings,
    ocr: Ocr | None,
) -> Selection:
    """Reads the items of official benchmarks, with a notice for everything that makes their figures incomparable."""
    complete: dict[str, CompleteItems] = {}
    notices: list[str] = []
    if ocr is not None:  # files that lack tokens are whole then, and so stand before tables beside them
        benchmarks = [benchmark.without_tokens() for benchmark in benchmarks]
    if not settings.ocr_tokens:
        benchmarks = without_ocr_tokens(benchmarks)
    for benchmark in benchmarks:
        name, folder = benchmark.task.name, folders[benchmark.task.name]
        if ocr is None or benchmark.with_ocr is None:
            complete[name] = CompleteItems(items=read_items(benchmark, folder, limit=limit))
        else:
            complete[name] = read_completed(benchmark, folder, ocr, limit=limit)
        if ignores_tables(benchmark, folder):
            notices.append(f"{name}: its authors' files are read, the tables in {folder} are not")
        if limit is None and len(complete[name].items) != benchmark.num_items:
            notices.append(
                f"{name} has {len(complete[name].items):,} items here, its authors' files have "
                f"{benchmark.num_items:,}: the figures cannot be compared with others'"
            )
    notices += [
        f"{name}: {', '.join(of_task.libraries)} read the tokens of {of_task.num_pictures:,} pictures: the figures "
        "cannot be compared with those on the annotations' Rosetta tokens"
        for name, of_task in complete.items()
        if of_task.num_pictures
    ]
    facts: dict[str, Any] = {
        "seed": settings.seed,
        "items": {name: len(of_task.items) for name, of_task in complete.items()},
    }
    for benchmark in benchmarks:
        if benchmark.with_ocr is None:
            continue
        name = benchmark.task.name
        items = complete[name].items
        facts["ocr_tokens"] = "shown" if settings.ocr_tokens else "not shown"
        if not settings.ocr_tokens:
            notices.append(f"{name}: no OCR tokens are shown: the figures cannot be compared with those that have them")
            continue
        facts["items_without_ocr_tokens"] = sum(item.num_ocr_tokens == 0 for item in items)
        if all(item.num_ocr_tokens == 0 for item in items):
            ways_out = "--ocr reads them, --no-ocr-tokens asks the question alone"
            notices.append(
                f"{name}: none of its items has OCR tokens, the prompt shows an empty list of them: {ways_out}"
            )
    if ocr is not None:
        libraries = sorted({library for of_task in complete.values() for library in of_task.libraries})
        facts["ocr_pictures"] = sum(of_task.num_pictures for of_task in complete.values())
        facts["ocr_library"] = ", ".join(libraries or [ocr.library])
    return Selection(
        collection="official",
        tasks=[benchmark.task for benchmark in benchmarks],
        items={name: [_limited(item, settings.limits) for item in of_task.items] for name, of_task in complete.items()},
        generation={benchmark.task.name: settings.generation(benchmark.generation) for benchmark in benchmarks},
        facts=facts,
        notices=notices,
        benchmarks=benchmarks,
    )


def _limited(item: Item, limits: ImageLimits) -> Item:
    return replace(item, load_picture=with_limits(item.load_picture, limits))
