"""Tunes an instruction on labelled items: proposals, a race, a test on items that chose nothing. No torch at import.

    record = tune("describe the defect", "labelled.jsonl", metric="exact", output="best.txt")

Every answer becomes a record in `best.txt.jsonl`, so that the same command goes on where it was stopped and ends as if
it had not been. What is searched, and how it is decided, is `instruction/tune.py`'s; here pictures are read, the model
is asked and answers are scored.

Legend: N items, each its place from 0; K candidates, each its number, 0 the user's own words.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.batch import ChosenModel
from vlinstruct.errors import DataError, InputError, NetworkError, UsageError, VlinstructError, require, shortened
from vlinstruct.files import PathLike, written_atomically
from vlinstruct.instruction.propose import (
    QUESTION_FIELD,
    after_failures,
    filled,
    rewritings,
    shortened_rewritings,
)
from vlinstruct.instruction.tune import MIN_ITEMS, OWN, Candidate, Figures, Look, Tuned, parts_of, plan_race
from vlinstruct.instruction.tune import tune as run_race
from vlinstruct.media.fetch import Url
from vlinstruct.media.images import ImageLimits
from vlinstruct.media.inputs import load_source
from vlinstruct.metrics.accuracy import is_exact_match
from vlinstruct.metrics.bootstrap import Interval
from vlinstruct.metrics.captions import ptb_tokens
from vlinstruct.metrics.cider import cider
from vlinstruct.metrics.vqa_accuracy import vqa_accuracy
from vlinstruct.operations import Ask, BatchItem, Fields, resume_key
from vlinstruct.records.columns import Columns
from vlinstruct.records.items import ItemError
from vlinstruct.records.labelled import LabelledItem, read_labelled
from vlinstruct.records.lines import DEFAULT_ITEM_OPTIONS, ItemOptions
from vlinstruct.records.output import RecordWriter, error_record, open_records
from vlinstruct.settings import GenerationSettings, OptimizationSettings, RunSettings
from vlinstruct.text import check_instruction
from vlinstruct.values import Failed, TokenCount, TokenScores

if TYPE_CHECKING:
    from vlinstruct.model import Model
    from vlinstruct.values import Media

SCHEMA = "vlinstruct.tune/1"
Metric = Literal["exact", "vqa", "cider"]
"""Equal to an answer once normalized; VQA's accuracy over ten people's answers; CIDEr over a caption's references."""

_ANSWERS_PER_QUESTION = 10  # VQA accuracy takes ten people's: one answer is what all of them say
_MAX_SEEN = 256  # what was seen of thousands of pictures would not fit into memory

# How many texts each way of proposing may write. Most are equal: a dozen different ones is much for a few dozen items.
_NUM_QUESTIONS, _NUM_SHORTENED, _NUM_PICTURES, _NUM_AFTER_FAILURES, _MAX_SHOWN_FAILURES = 4, 24, 8, 4, 4
_MAX_PROPOSED = 24
_PROPOSING_SHARE = 4  # of a budget one part in so many


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """How an instruction is tuned.

    Args:
        metric: what an answer's score is.
        tries: instructions of the user's own to try, too.
        budget: the most texts that the model may write, answers and proposals; None for as many as it takes.
        seed: of the division of the items, the samples and the resamples.
        generation: how answers are generated.
    """

    metric: Metric = "exact"
    tries: tuple[str, ...] = ()
    budget: int | None = None
    seed: int = 0
    generation: GenerationSettings = GenerationSettings()

    def __post_init__(self) -> None:
        metrics = get_args(Metric)
        require(
            (self.metric in metrics, f"metric must be {', '.join(metrics)}, got {self.metric!r}"),
            (self.budget is None or self.budget > 0, f"budget must be above 0, got {self.budget}"),
            (0 <= self.seed < 2**63, f"seed must be 0 to 2^63 - 1, got {self.seed}"),
        )


DEFAULT_TUNING = TuneSettings()
DEFAULT_RUN = RunSettings(batch_size=16)


def tune(
    instruction: str,
    data: PathLike,
    *,
    output: PathLike | None = None,
    tuning: TuneSettings = DEFAULT_TUNING,
    settings: RunSettings = DEFAULT_RUN,
    options: ItemOptions = DEFAULT_ITEM_OPTIONS,
    columns: Columns | None = None,
    notify: Callable[[str], None] = lambda notice: None,
    on_progress: Callable[[str], None] = lambda message: None,
    on_loaded: Callable[[], None] = lambda: None,
) -> Fields:
    """Finds an instruction that the model answers better than the user's own words, by labelled items.

    The user's own words stay unless another instruction is better with certainty.

    Args:
        instruction: the user's own words; a template with `{question}` where the items have questions.
        data: the items with their right answers, as `records/labelled.py` reads them.
        output: where the chosen instruction goes; the answers go beside it, to `OUTPUT.jsonl`, and are resumed.
        tuning: the metric, the user's other instructions, the budget, the seed.
        settings: the model, and how many items go through it together.
        options: what the records may name as their pictures.
        columns: which field of the file is meant by which name.
        notify: is told what a user should know.
        on_progress: is told what comes next.
        on_loaded: called when the model is loaded.

    Returns:
        The record of the result.

    Raises:
        UsageError: instructions and data do not go together, or the budget is too small.
        InputError: the data or the output cannot be used, or no item can. A bad item raises nothing.
        CheckpointError, NetworkError, ResourceError: the model cannot be loaded.
    """
    check_instruction(instruction)
    records = read_labelled(data, options=options, columns=columns)
    failed = [record for record in records if isinstance(record, ItemError)]
    items = [record for record in records if isinstance(record, LabelledItem)]
    has_questions = any(item.question is not None for item in items)
    for text in (instruction, *tuning.tries):
        _check_field(check_instruction(text), has_questions=has_questions)
    for item in items:
        if has_questions and item.question is None:
            error = DataError(f"{os.fspath(data)} line {item.line} has no question, others have", advice="Add it.")
            failed.append(ItemError(id=item.id, line=item.line, error=error))
    items = [item for item in items if (item.question is not None) is has_questions]
    if len(items) < MIN_ITEMS:
        why = f"{len(items)} items can be used, at least {MIN_ITEMS} are needed"
        first = f"; the first that cannot: {failed[0].error.problem}" if failed else ""
        raise DataError.at("cannot tune", os.fspath(data), why + shortened(first, 150), "Label more items")
    chosen = ChosenModel(settings, on_loaded)
    run_key = _run_key(instruction, items, tuning, settings, chosen)
    with _opened(output, data, items, run_key, tuning, settings) as journal:
        for notice in journal.writer.notices if journal.writer is not None else ():
            notify(notice)
        run = _Run(
            items=items,
            tuning=tuning,
            settings=settings,
            load=functools.cache(chosen.load),
            journal=journal,
            notify=notify,
        )
        record = _result(instruction, run, chosen, failed, on_progress)
        journal.write(record)
    if output is not None:
        with written_atomically(Path(output)) as temporary:
            temporary.write_text(f"{record['instruction']}\n", encoding="utf-8")
    return record


def _check_field(text: str, *, has_questions: bool) -> None:
    if has_questions and QUESTION_FIELD not in text:
        raise UsageError(
            f"the data has questions, and '{shortened(text, 60)}' has no {QUESTION_FIELD}",
            advice=f"Write {QUESTION_FIELD} where an item's question goes.",
        )
    if not has_questions and QUESTION_FIELD in text:
        raise UsageError(
            f"'{shortened(text, 60)}' has a {QUESTION_FIELD}, and the data has no questions",
            advice="Leave it out, or say which field they are: --columns question=NAME.",
        )


def _batch_item(item: LabelledItem) -> BatchItem:
    name = item.image.name if isinstance(item.image, Url) else str(item.image)
    return BatchItem(id=item.id, source=item.image, image=name, texts=(item.question or "", *item.answers))


def _run_key(
    instruction: str,
    items: Sequence[LabelledItem],
    tuning: TuneSettings,
    settings: RunSettings,
    chosen: ChosenModel,
) -> str:
    """Identifies a run: by everything that changes what it finds."""
    model = chosen.key()
    keys = [resume_key(Ask(generation=tuning.generation), _batch_item(item), model) for item in items]
    parts = [instruction, asdict(tuning), settings.batch_size, keys]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(kw_only=True)
class _Journal:
    """The records of a run and of the earlier ones that it resumes.

    Args:
        done: what is finished, by id.
        writer: where new records go; None where nothing is kept.
    """

    done: dict[str, Fields] = field(default_factory=dict)
    writer: RecordWriter | None = None

    def write(self, record: Fields) -> None:
        """Keeps a record; one that is finished stands in the file already."""
        if record["status"] == "ok":
            if record["id"] in self.done:
                return
            self.done[record["id"]] = record
        if self.writer is not None:
            self.writer.write(record)


@contextmanager
def _opened(
    output: PathLike | None,
    data: PathLike,
    items: Sequence[LabelledItem],
    run_key: str,
    tuning: TuneSettings,
    settings: RunSettings,
) -> Iterator[_Journal]:
    """Opens the records of a run, those of an earlier one included."""
    if output is None:
        yield _Journal()
        return
    path = f"{os.fspath(output)}.jsonl"
    if os.path.lexists(output) and not settings.overwrite and not os.path.exists(path):
        why, advice = "the file exists and no tune wrote it", "Name another file, or replace it with --overwrite"
        raise InputError.at("cannot write output", os.fspath(output), why, advice, code="output_exists")
    if os.path.isdir(output):
        why, advice = "it is a directory", "Name a file"
        raise InputError.at("cannot write output", os.fspath(output), why, advice, code="output_is_directory")
    numbers = range(1 + len(tuning.tries) + _MAX_PROPOSED)
    ids = ["candidates", "result", *(f"{number}/{item.id}" for number in numbers for item in items)]
    keys = {id: hashlib.sha256(f"{run_key}/{id}".encode()).hexdigest()[:16] for id in ids}
    pictures = [item.image for item in items if isinstance(item.image, Path)]
    writer = open_records(path, schema=SCHEMA, keys=keys, overwrite=settings.overwrite, inputs=[data, *pictures])
    done: dict[str, Fields] = {}
    if writer.done:
        with open(path, encoding="utf-8") as stream:
            done = {record["id"]: record for record in map(json.loads, stream) if record["status"] == "ok"}
    with writer:
        yield _Journal(done=done, writer=writer)


class _Metered(Backend):
    """Another backend, with account of every text that it writes: those of a budget.

    Args:
        backend: does the work.

    Attributes:
        spent: per row that was written, in order, tokens read and written; 0 where a row failed.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.identity = backend.identity
        self.abilities = backend.abilities
        self.spent: list[int] = []

    def see(self, media: Sequence[Media]) -> list[Seen | Failed]:
        return self.backend.see(media)

    def prepare(self, picture: Media) -> Media:
        return self.backend.prepare(picture)

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        outcomes = self.backend.write(rows, settings)
        self.spent += [0 if isinstance(row, Failed) else row.usage.prompt + row.usage.written for row in outcomes]
        return outcomes

    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        return self.backend.score(rows, targets, with_end=with_end, num_first=num_first)

    def num_tokens(self, rows: Sequence[Row]) -> list[TokenCount | None]:
        return self.backend.num_tokens(rows)


@dataclass(kw_only=True)
class _Run:
    """Asks the model, and keeps what it answered.

    Args:
        items: N.
        tuning: the metric and how answers are generated.
        settings: how pictures are read, how many items go through the model together.
        load: loads the model, once.
        journal: what was answered before, and where new answers go.
        notify: is told what a user should know of a picture.
    """

    items: Sequence[LabelledItem]
    tuning: TuneSettings
    settings: RunSettings
    load: Callable[[], Model]
    journal: _Journal
    notify: Callable[[str], None]
    unreadable: dict[int, VlinstructError] = field(default_factory=dict)
    _seen: dict[int, Seen] = field(default_factory=dict)

    @functools.cached_property
    def model(self) -> Model:
        """The model, whose backend keeps account."""
        model = self.load()
        model.backend = _Metered(model.backend)
        return model

    @property
    def spent(self) -> list[int]:
        """The account of the model's backend."""
        assert isinstance(self.model.backend, _Metered)
        return self.model.backend.spent

    def see(self, place: int) -> Seen | None:
        """Looks at an item's picture; None where it cannot be read."""
        if place in self._seen or place in self.unreadable:
            return self._seen.get(place)
        limits = ImageLimits(max_pixels=self.settings.max_pixels, allow_truncated=self.settings.allow_truncated)
        item = _batch_item(self.items[place])
        try:
            loaded = load_source(item.source, name=item.image, limits=limits)
        except (InputError, NetworkError) as error:
            self.unreadable[place] = error
            return None
        for notice in loaded.notices:
            self.notify(notice)
        (seen,) = self.model.see_each([loaded.image])
        if isinstance(seen, Failed):
            self.unreadable[place] = seen.error
            return None
        if len(self._seen) >= _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[place] = seen
        return seen

    def ask(self, number: int, text: str, places: Sequence[int]) -> None:
        """Asks one candidate some items, those that were not asked before."""
        size = self.settings.batch_size
        for start in range(0, len(places), size):
            chunk = places[start : start + size]
            # A chunk of which a part is finished is asked again as a whole: who shares it may move an answer.
            if any(self.record(number, place) is None and place not in self.unreadable for place in chunk):
                self._ask_chunk(number, text, chunk)

    def _ask_chunk(self, number: int, text: str, places: Sequence[int]) -> None:
        # Looked at in one go, so that no picture is let go of before its chunk is asked.
        looked_at = {place: self.see(place) for place in places}
        seen = {place: picture for place, picture in looked_at.items() if picture is not None}
        texts = {place: filled(text, self.items[place].question) for place in seen}
        began = len(self.spent)
        answers = self.model.ask_each(list(seen.values()), list(texts.values()), generation=self.tuning.generation)
        tokens = dict(zip(seen, self.spent[began:], strict=True))
        outcomes = dict(zip(seen, answers, strict=True))
        for place in places:
            id = f"{number}/{self.items[place].id}"
            outcome = outcomes.get(place) or Failed(error=self.unreadable[place])
            if isinstance(outcome, Failed):
                self.journal.write(error_record(SCHEMA, id, outcome.error))
                continue
            self.journal.write(
                {
                    "schema": SCHEMA,
                    "id": id,
                    "status": "ok",
                    "candidate": number,
                    "item": self.items[place].id,
                    "instruction": texts[place],
                    "answer": outcome.text,
                    "answers": list(self.items[place].answers),
                    "score": round(self._score(place, outcome.text), 5),
                    "tokens": tokens[place],
                }
            )

    def record(self, number: int, place: int) -> Fields | None:
        """Returns the record of an answer; None where there is none."""
        return self.journal.done.get(f"{number}/{self.items[place].id}")

    @functools.cached_property
    def _references(self) -> list[list[tuple[str, ...]]]:
        return [[ptb_tokens(answer) for answer in item.answers] for item in self.items]

    def _score(self, place: int, answer: str) -> float:
        right = self.items[place].answers
        if self.tuning.metric == "exact":
            return float(any(is_exact_match(answer, reference) for reference in right))
        if self.tuning.metric == "vqa":
            return vqa_accuracy(answer, right if len(right) > 1 else right * _ANSWERS_PER_QUESTION)
        # Words that are rare in all items' references weigh most, so a caption's score does not depend on others'.
        captions = [ptb_tokens(answer) if other == place else () for other in range(len(self.items))]
        return cider(captions, self._references).per_item[place]


def _result(
    instruction: str,
    run: _Run,
    chosen: ChosenModel,
    failed: Sequence[ItemError],
    on_progress: Callable[[str], None],
) -> Fields:
    """Runs the search and returns its record."""
    tuning = run.tuning
    parts = parts_of(len(run.items), seed=tuning.seed)
    proposing = None if tuning.budget is None else tuning.budget // _PROPOSING_SHARE
    asked = None if tuning.budget is None or proposing is None else tuning.budget - proposing
    texts: list[str] = [instruction]

    def measure(number: int, places: Sequence[int]) -> list[float | None]:
        run.ask(number, texts[number], places)
        scores: list[float | None] = []
        for place in places:
            record = run.record(number, place)
            # An answer that could not be made is wrong; an item without a picture has none, whatever it is asked.
            scores.append(None if place in run.unreadable else 0.0 if record is None else record["score"])
        return scores

    smallest = plan_race(0, parts, budget=asked)
    on_progress(f"your instruction on {smallest.num_search} items")
    own = measure(OWN, parts.search[: smallest.num_search])
    if all(score is None for score in own):
        raise next(iter(run.unreadable.values()))
    if not any(run.record(OWN, place) for place in parts.search):
        place = parts.search[0]
        (answer,) = run.model.ask_each([run.see(place)], [filled(instruction, run.items[place].question)])
        assert isinstance(answer, Failed)
        raise answer.error
    proposals = _proposals(instruction, run, parts.search[: smallest.num_search], proposing, on_progress)
    candidates = [Candidate(**candidate) for candidate in proposals["candidates"]]
    texts = [candidate.text for candidate in candidates]
    plan = plan_race(len(candidates) - 1, parts, budget=asked)
    tuned = run_race(
        candidates,
        parts,
        measure,
        plan=plan,
        favourite=1 if proposals["has_favourite"] else None,
        largest=None if tuning.metric == "cider" else 1.0,
        seed=tuning.seed,
        on_rung=lambda num_candidates, num_items: on_progress(f"{num_candidates} instructions on {num_items} items"),
    )
    failures = [
        *({"item": item.id, "code": item.error.code, "message": item.error.message} for item in failed),
        *(
            {"item": run.items[place].id, "code": error.code, "message": error.message}
            for place, error in sorted(run.unreadable.items())
        ),
    ]
    rows = [_row(number, candidates, tuned, run) for number in range(len(candidates)) if number in tuned.raced]
    record: Fields = {
        "schema": SCHEMA,
        "id": "result",
        "status": "ok",
        "instruction": texts[tuned.chosen],
        "chosen": candidates[tuned.chosen].source,
        "reason": tuned.reason,
        "metric": tuning.metric,
        "backbone": chosen.name,
        "items": len(run.items) - len(run.unreadable),
        "looks": [_look_fields(look, candidates) for look in tuned.looks],
        "candidates": rows,
        "calls": sum(row["calls"] for row in rows) + proposals["calls"],
        "tokens": sum(row["tokens"] for row in rows) + proposals["tokens"],
        "failed": failures,
    }
    return {name: value for name, value in record.items() if name != "failed" or value}


def _row(number: int, candidates: Sequence[Candidate], tuned: Tuned, run: _Run) -> Fields:
    """Returns what the result says of a candidate."""
    records = [record for place in range(len(run.items)) if (record := run.record(number, place)) is not None]
    row: Fields = {
        "instruction": candidates[number].text,
        "source": candidates[number].source,
        "race": _figures(tuned.raced[number]),
        "calls": len(records),
        "tokens": sum(record["tokens"] for record in records),
    }
    return row | ({"held_out": _figures(tuned.held_out[number])} if number in tuned.held_out else {})


def _figures(figures: Figures) -> Fields:
    return {"score": round(figures.score.value, 5), **_ends(figures.score), "items": figures.num_items}


def _look_fields(look: Look, candidates: Sequence[Candidate]) -> Fields:
    return {
        "instruction": candidates[look.number].text,
        "gain": round(look.gain.value, 5),
        **_ends(look.gain),
        "items": look.num_items,
        "p_value": round(look.p_value, 6),
        "level": round(look.level, 5),
        "is_certain": look.is_certain,
    }


def _ends(interval: Interval) -> Fields:
    return {"low": round(interval.low, 5), "high": round(interval.high, 5)}


def _proposals(
    instruction: str,
    run: _Run,
    search: Sequence[int],
    budget: int | None,
    on_progress: Callable[[str], None],
) -> Fields:
    """Returns the record of all candidates, the user's own words first; an earlier run's where there is one.

    What a model proposes rests on the search part alone, whose answers to the user's own words are known by now.
    """
    if "candidates" in run.journal.done:
        return run.journal.done["candidates"]
    on_progress("proposing instructions")
    began = len(run.spent)

    def affordable(wanted: int, writes_each: int = 1) -> int:
        left = wanted if budget is None else (budget - len(run.spent) + began) // writes_each
        return max(0, min(wanted, left))

    model, seed, abilities = run.model, run.tuning.seed, run.model.backend.abilities
    places = [place for place in search if place not in run.unreadable]
    wrong = [place for place in places if (record := run.record(OWN, place)) is None or record["score"] < 1]
    # Pictures of which the user's own words ask wrongly come first: theirs are the instructions that may help.
    ordered = [*wrong, *(place for place in places if place not in wrong)]
    # In an order that no label has touched: what is proposed most often is the favourite, which all items may judge.
    questions = list(dict.fromkeys(run.items[place].question for place in places))
    proposed: list[tuple[str, str]] = [(text, "yours") for text in run.tuning.tries]
    if abilities.can_write_alone:
        asked = questions[: affordable(_NUM_QUESTIONS)]
        proposed += _named("rewritten", rewritings(model.backend, instruction, asked, model.templates))
        asked = _repeated(questions, affordable(_NUM_SHORTENED))
        shortened = shortened_rewritings(model.backend, instruction, asked, model.templates, seed=seed)
        proposed += _named("shortened", shortened)
    favourite = _favourite([text for text, _ in proposed if text != instruction], run.tuning.tries)
    if abilities.can_write_alone:
        answers = [(run.record(OWN, place), run.items[place].answers[0]) for place in wrong]
        failures = [(record["answer"], right) for record, right in answers if record is not None]
        if failures:
            asked = _repeated(questions, affordable(_NUM_AFTER_FAILURES))
            shown = failures[:_MAX_SHOWN_FAILURES]
            proposed += _named("failures", after_failures(model.backend, instruction, shown, asked, seed=seed))
    if abilities.can_score and abilities.can_write_alone:
        proposed += _named("picture", _per_picture(instruction, run, ordered[: affordable(_NUM_PICTURES, 2)]))
    counts = Counter(text for text, _ in proposed)
    sources: dict[str, str] = {}
    for text, source in proposed:
        sources.setdefault(text, source)
    sources.pop(instruction, None)
    # The favourite, the user's own list, the more popular ones: what a budget has no room for is left out at the end.
    ranked = sorted(sources, key=lambda text: (text != favourite, sources[text] != "yours", -counts[text]))
    kept = ranked[: len(run.tuning.tries) + _MAX_PROPOSED]
    spent = run.spent[began:]
    made: Fields = {
        "schema": SCHEMA,
        "id": "candidates",
        "status": "ok",
        "candidates": [
            {"text": instruction, "source": "own"},
            *({"text": text, "source": sources[text], "num_proposed": counts[text]} for text in kept),
        ],
        "has_favourite": favourite is not None,
        "calls": len(spent),
        "tokens": sum(spent),
    }
    run.journal.write(made)
    return made


def _favourite(proposed: Sequence[str], tries: Sequence[str]) -> str | None:
    """Returns the user's first other instruction, else what the model proposed most often, without a label."""
    if tries and tries[0] in proposed:
        return tries[0]
    return Counter(proposed).most_common(1)[0][0] if proposed else None


def _per_picture(instruction: str, run: _Run, places: Sequence[int]) -> list[str]:
    """Returns the instructions that algorithm 2 writes for single pictures."""
    from vlinstruct.instruction.propose import as_template

    seen = {place: picture for place in places if (picture := run.see(place)) is not None}
    questions = [run.items[place].question for place in seen]
    outcomes = run.model.optimize_each(
        list(seen.values()),
        [filled(instruction, question) for question in questions],
        # No rule has to choose: labels do. The paper's asks for no answers, two texts are written for each picture.
        optimization=OptimizationSettings(select="paper", least_certainty=0.0),
    )
    found: list[str | None] = []
    for outcome, question in zip(outcomes, questions, strict=True):
        if not isinstance(outcome, Failed):
            _, *texts = dict.fromkeys(candidate.text for candidate in outcome.by_role().values())
            found += [as_template(text, question) for text in texts]
    return [template for template in found if template is not None]


def _named(source: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(text, source) for text in texts]


def _repeated(questions: Sequence[str | None], count: int) -> list[str | None]:
    return [questions[index % len(questions)] for index in range(count)] if questions else []
