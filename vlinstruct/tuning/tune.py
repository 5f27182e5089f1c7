"""Tunes an instruction on labelled items: proposals, a race, a test on items that chose nothing. No torch at import.

    record = tune("describe the defect", "labelled.jsonl", tuning=TuneSettings(metric="vqa"), output="best.txt")

Every answer becomes a record in `best.txt.jsonl`, so that the same command goes on where it was stopped and ends as if
it had not been. What is certain is decided in `instruction/race.py`.

Legend: N items, each its place from 0; K candidates, each its number, 0 the user's own words.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Unpack

from vlinstruct.batch import ChosenModel, media_settings
from vlinstruct.errors import DataError, InputError, UsageError, VlinstructError, shortened
from vlinstruct.files import PathLike, written_atomically
from vlinstruct.instruction.propose import filled
from vlinstruct.instruction.race import (
    LEAST_ANSWERS,
    MIN_ITEMS,
    OWN,
    Candidate,
    Figures,
    Look,
    Tuned,
    parts_of,
    plan_race,
    race,
)
from vlinstruct.instruction.templates import QUESTION_FIELD
from vlinstruct.media.load import require_readers
from vlinstruct.metrics.bootstrap import Interval
from vlinstruct.operations import Ask, Fields, resume_key
from vlinstruct.records.columns import Columns
from vlinstruct.records.items import ItemError
from vlinstruct.records.labelled import LabelledItem, read_labelled
from vlinstruct.records.lines import DEFAULT_ITEM_OPTIONS, ItemOptions
from vlinstruct.records.output import check_place
from vlinstruct.settings import RunSettings, takes_options
from vlinstruct.text import check_instruction
from vlinstruct.tuning.answers import SCHEMA, Answers, batch_item, opened_journal
from vlinstruct.tuning.proposals import CANDIDATES, MAX_PROPOSED, propose
from vlinstruct.tuning.settings import TuneOptions, TuneSettings

_PROPOSING_SHARE = 4  # of a budget one part in so many
_RESULT = "result"

DEFAULT_TUNING = TuneSettings()
DEFAULT_RUN = RunSettings(batch_size=16)


@takes_options(TuneSettings)
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
    **tune_options: Unpack[TuneOptions],
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
        **tune_options: fields of `TuneSettings`, in place of what `tuning` says.

    Returns:
        The record of the result.

    Raises:
        UsageError: instructions and data do not go together, or the budget is too small.
        InputError: the data or the output cannot be used, or no item can. A bad item raises nothing.
        CheckpointError, NetworkError, ResourceError: the model cannot be loaded.
    """
    tuning = replace(tuning, **tune_options)
    records = read_labelled(data, options=options, columns=columns)
    failed = [record for record in records if isinstance(record, ItemError)]
    items = [record for record in records if isinstance(record, LabelledItem)]
    has_questions = any(item.question is not None for item in items)
    for text in (instruction, *tuning.tries):
        _check_field(check_instruction(text), has_questions=has_questions)
    problems = [_problem(item, instruction, has_questions=has_questions) for item in items]
    pairs = list(zip(items, problems, strict=True))
    failed += [ItemError(id=item.id, line=item.line, error=error) for item, error in pairs if error is not None]
    items = [item for item, error in pairs if error is None]
    if len(items) < MIN_ITEMS:
        why = f"{len(items)} items can be used, at least {MIN_ITEMS} are needed"
        first = f"; the first that cannot: {failed[0].error.problem}" if failed else ""
        raise DataError.at("cannot tune", os.fspath(data), why + shortened(first, 150), "Label more items")
    pictures = [item.image for item in items if isinstance(item.image, Path)]
    if output is not None:
        _check_output(output, [data, *pictures], overwrite=settings.overwrite)
    chosen = ChosenModel(settings, on_loaded)
    require_readers([batch_item(item).image for item in items])
    numbers = range(1 + len(tuning.tries) + MAX_PROPOSED)
    with opened_journal(
        None if output is None else f"{os.fspath(output)}.jsonl",
        run_key=_run_key(instruction, items, tuning, settings, chosen),
        ids=[CANDIDATES, _RESULT, *(f"{number}/{item.id}" for number in numbers for item in items)],
        overwrite=settings.overwrite,
        inputs=[data, *pictures],
    ) as journal:
        for notice in journal.notices:
            notify(notice)
        answers = Answers(
            items=items,
            tuning=tuning,
            batch_size=settings.batch_size,
            media=media_settings(settings),
            load=chosen.load,
            journal=journal,
            notify=notify,
        )
        record = _result(instruction, answers, chosen.name, failed, on_progress)
        journal.write(record)
    if output is not None:
        with written_atomically(Path(os.path.realpath(output))) as temporary:
            temporary.write_text(f"{record['instruction']}\n", encoding="utf-8", newline="")
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


def _problem(item: LabelledItem, instruction: str, *, has_questions: bool) -> InputError | None:
    """Returns why an item cannot be asked."""
    if has_questions and item.question is None:
        return DataError(f"line {item.line} has no question, others have", advice="Add it.")
    try:
        check_instruction(filled(instruction, item.question), what=f"line {item.line}")
    except InputError as error:
        return error
    return None


def _check_output(output: PathLike, inputs: Sequence[PathLike], *, overwrite: bool) -> None:
    name = os.fspath(output)
    check_place(name, inputs)
    if os.path.exists(name) and not os.path.isfile(name):  # a device would become a file
        raise InputError.at("cannot write output", name, "it is not a regular file", "Name a file")
    if os.path.exists(name) and not overwrite and not os.path.exists(f"{name}.jsonl"):
        why, advice = "the file exists and no tune wrote it", "Name another file, or replace it with --overwrite"
        raise InputError.at("cannot write output", name, why, advice, code="output_exists")


def _run_key(
    instruction: str, items: Sequence[LabelledItem], tuning: TuneSettings, settings: RunSettings, chosen: ChosenModel
) -> str:
    """Identifies a run: by everything that changes what it finds."""
    model = chosen.key()
    operation = Ask(generation=tuning.generation)
    keys = [resume_key(operation, batch_item(item), model, clips=settings.clips) for item in items]
    parts = [instruction, asdict(tuning), settings.batch_size, keys]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _result(
    instruction: str,
    answers: Answers,
    backbone: str,
    failed: Sequence[ItemError],
    on_progress: Callable[[str], None],
) -> Fields:
    """Runs the search and returns its record."""
    tuning = answers.tuning
    parts = parts_of(len(answers.items), seed=tuning.seed)
    proposing = answering = tuning.budget
    if tuning.budget is not None:
        proposing = max(0, min(tuning.budget // _PROPOSING_SHARE, tuning.budget - LEAST_ANSWERS))
        answering = tuning.budget - proposing
    # As many as a race of two can be asked: with more candidates it has fewer rungs, and no fewer items.
    search = parts.search[: plan_race(1, parts, budget=answering).num_search]
    on_progress(f"your instruction on {len(search)} items")
    own = answers.scores(OWN, instruction, search)
    if all(score is None for score in own):
        raise next(iter(answers.unreadable.values()))
    if not any(answers.record(OWN, place) for place in search):
        raise next(iter(answers.failed.values()))
    on_progress("proposing instructions")
    proposals = propose(instruction, answers, search, proposing)
    candidates = [Candidate(**candidate) for candidate in proposals["candidates"]]
    tuned = race(
        candidates,
        parts,
        lambda number, places: answers.scores(number, candidates[number].text, places),
        plan=plan_race(len(candidates) - 1, parts, budget=answering),
        favourite=1 if proposals["has_favourite"] else None,
        largest=None if tuning.metric == "cider" else 1.0,
        seed=tuning.seed,
        on_rung=lambda num_candidates, num_items: on_progress(f"{num_candidates} instructions on {num_items} items"),
    )
    errors: list[tuple[str | int, VlinstructError]] = [(item.id, item.error) for item in failed]
    errors += [(answers.items[place].id, error) for place, error in sorted(answers.unreadable.items())]
    rows = [_row(number, candidates, tuned, answers) for number in sorted(tuned.raced)]
    record: Fields = {
        "schema": SCHEMA,
        "id": _RESULT,
        "status": "ok",
        "instruction": candidates[tuned.chosen].text,
        "chosen": candidates[tuned.chosen].source,
        "reason": tuned.reason,
        "metric": tuning.metric,
        "backbone": backbone,
        "items": len(answers.items) - len(answers.unreadable),
        "looks": [_look_fields(look, candidates) for look in tuned.looks],
        "candidates": rows,
        "calls": sum(row["calls"] for row in rows) + proposals["calls"],
        "tokens": sum(row["tokens"] for row in rows) + proposals["tokens"],
    }
    if errors:
        record["failed"] = [{"item": id, "code": error.code, "message": error.message} for id, error in errors]
    return record


def _row(number: int, candidates: Sequence[Candidate], tuned: Tuned, answers: Answers) -> Fields:
    """Returns what the result says of a candidate."""
    records = [record for place in range(len(answers.items)) if (record := answers.record(number, place)) is not None]
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
