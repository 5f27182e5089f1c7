"""Candidates and labelled items -> scores: asks the model, and keeps every answer in a file that a run can resume.

A record stands for one answer and has the id `CANDIDATE/ITEM`. Who shares a call with a row may move its answer in the
last decimals, so calls are made of the same rows in a run that goes on as in one that was never stopped.

Legend: N items, each its place from 0; K candidates, each its number, 0 the user's own words.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlinstruct.backend import Backend, ProfiledBackend, Row, Seen, Written
from vlinstruct.batch import read_medium
from vlinstruct.errors import VlinstructError
from vlinstruct.files import PathLike
from vlinstruct.instruction.templates import QUESTION_FIELD
from vlinstruct.media.fetch import Url
from vlinstruct.media.load import MediaSettings
from vlinstruct.metrics.accuracy import is_exact_match
from vlinstruct.metrics.captions import ptb_tokens
from vlinstruct.metrics.cider import cider
from vlinstruct.metrics.vqa_accuracy import vqa_accuracy
from vlinstruct.operations import Ask, BatchItem, Fields
from vlinstruct.records.labelled import LabelledItem
from vlinstruct.records.output import RecordWriter, error_record, open_records
from vlinstruct.settings import GenerationSettings
from vlinstruct.tuning.settings import TuneSettings
from vlinstruct.values import Failed

if TYPE_CHECKING:
    from vlinstruct.model import Model

SCHEMA = "vlinstruct.tune/1"

_ANSWERS_PER_QUESTION = 10  # VQA accuracy takes ten people's: one answer is what all of them say
_MAX_SEEN = 256  # what was seen of thousands of pictures would not fit into memory


@dataclass(kw_only=True)
class Journal:
    """The records of a run and of the earlier ones that it goes on with.

    Args:
        done: the good ones, by id.
        writer: where new ones go; None where nothing is kept.
    """

    done: dict[str, Fields] = field(default_factory=dict)
    writer: RecordWriter | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user should know about the file as it was found."""
        return () if self.writer is None else self.writer.notices

    def write(self, record: Fields) -> None:
        """Keeps a record, unless it is a good one that was kept before."""
        if record["id"] in self.done:
            return
        if record["status"] == "ok":
            self.done[record["id"]] = record
        if self.writer is not None:
            self.writer.write(record)


@contextmanager
def opened_journal(
    path: PathLike | None, *, run_key: str, ids: Sequence[str], overwrite: bool, inputs: Sequence[PathLike]
) -> Iterator[Journal]:
    """Opens a file of records, those of an earlier run included; without a path nothing is kept.

    Args:
        path: the file.
        run_key: identifies the run; records of another one are refused.
        ids: of all records that the run may write.
        overwrite: replace the file instead.
        inputs: what the run reads, none of which may be the file.
    """
    if path is None:
        yield Journal()
        return
    keys = {id: hashlib.sha256(f"{run_key}/{id}".encode()).hexdigest()[:16] for id in ids}
    with open_records(path, schema=SCHEMA, keys=keys, overwrite=overwrite, inputs=inputs) as writer:
        done: dict[str, Fields] = {}
        if writer.done:
            with open(path, encoding="utf-8") as stream:
                done = {record["id"]: record for record in map(json.loads, stream) if record["status"] == "ok"}
        yield Journal(done=done, writer=writer)


class MeteredBackend(ProfiledBackend):
    """Another backend, with account of every text that it writes: those of a budget.

    Args:
        backend: does the work.

    Attributes:
        spent: per row that was written, in order, tokens read and written; 0 where a row failed.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.spent: list[int] = []

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        outcomes = super().write(rows, settings)
        self.spent += [0 if isinstance(row, Failed) else row.usage.prompt + row.usage.written for row in outcomes]
        return outcomes


def batch_item(item: LabelledItem) -> BatchItem:
    """Returns an item as the rest of the package names one, its answers beside its question."""
    name = item.image.name if isinstance(item.image, Url) else str(item.image)
    return BatchItem(id=item.id, source=item.image, image=name, texts=(item.question or "", *item.answers))


@dataclass(kw_only=True)
class Answers:
    """What a model answers to labelled items, each asked once.

    Args:
        items: N.
        tuning: the metric and how answers are generated.
        batch_size: how many items go through the model together.
        media: how pictures, clips and sounds are read.
        load: loads the model; not called where an earlier run finished everything.
        journal: what was answered before, and where new answers go.
        notify: is told what a user should know of a picture.

    Attributes:
        unreadable: by place, why an item's picture cannot be read: the item does not count.
        failed: by id, why there is no answer: it counts as wrong.
    """

    items: Sequence[LabelledItem]
    tuning: TuneSettings
    batch_size: int
    media: MediaSettings
    load: Callable[[], Model]
    journal: Journal
    notify: Callable[[str], None]
    unreadable: dict[int, VlinstructError] = field(default_factory=dict)
    failed: dict[str, VlinstructError] = field(default_factory=dict)
    _seen: dict[int, Seen] = field(default_factory=dict)

    @functools.cached_property
    def model(self) -> Model:
        """The model, whose backend keeps account."""
        model = self.load()
        model.backend = MeteredBackend(model.backend)
        return model

    @property
    def spent(self) -> list[int]:
        """The account of the model's backend."""
        assert isinstance(self.model.backend, MeteredBackend)
        return self.model.backend.spent

    def see(self, place: int) -> Seen | None:
        """Looks at an item's picture; None where it cannot be read.

        One at a time: a run that goes on looks at other pictures than the run that was stopped did.
        """
        if place in self._seen or place in self.unreadable:
            return self._seen.get(place)
        picture = read_medium(batch_item(self.items[place]), self.media, lambda: self.model.backend.abilities)
        if not isinstance(picture, Failed):
            for notice in picture.notices:
                self.notify(notice)
            (seen,) = self.model.see_each([picture.medium])
            if not isinstance(seen, Failed):
                if len(self._seen) >= _MAX_SEEN:
                    del self._seen[next(iter(self._seen))]
                self._seen[place] = seen
                return seen
            picture = seen
        self.unreadable[place] = picture.error
        return None

    def scores(self, number: int, text: str, places: Sequence[int]) -> list[float | None]:
        """Returns a candidate's score on each of some items; None where an item's picture cannot be read.

        An answer that could not be made counts as wrong.
        """
        for start in range(0, len(places), self.batch_size):
            chunk = places[start : start + self.batch_size]
            # A chunk of which a part is finished is asked again as a whole: who shares it may move an answer.
            if any(self.record(number, place) is None and self.see(place) is not None for place in chunk):
                self._ask(number, text, chunk)
        scores: list[float | None] = []
        for place in places:
            record = self.record(number, place)
            scores.append(record["score"] if record is not None else None if place in self.unreadable else 0.0)
        return scores

    def record(self, number: int, place: int) -> Fields | None:
        """Returns the record of an answer; None where there is none."""
        return self.journal.done.get(self.id(number, place))

    def id(self, number: int, place: int) -> str:
        """Returns the id of an answer's record."""
        return f"{number}/{self.items[place].id}"

    def _ask(self, number: int, text: str, places: Sequence[int]) -> None:
        # All are looked at before they are asked, so that no picture is let go of between.
        seen = {place: picture for place in places if (picture := self.see(place)) is not None}
        questions = [self.items[place].question for place in seen]
        has_questions = questions[0] is not None
        ask = Ask(template=text if has_questions else QUESTION_FIELD, generation=self.tuning.generation)
        began = len(self.spent)
        outcomes = ask.run(self.model, list(seen.values()), [(question or text,) for question in questions])
        for place, tokens, outcome in zip(seen, self.spent[began:], outcomes, strict=True):
            id = self.id(number, place)
            if isinstance(outcome, Failed):
                self.failed[id] = outcome.error
                self.journal.write(error_record(SCHEMA, id, outcome.error))
                continue
            item = self.items[place]
            head: Fields = {"schema": SCHEMA, "id": id, "status": "ok", "candidate": number, "item": item.id}
            score = round(self._score(place, outcome["answer"]), 5)
            self.journal.write({**head, **outcome, "answers": list(item.answers), "score": score, "tokens": tokens})

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
