"""InstructBLIP and its EMA and AIO as lmms-eval's models: answers, and the losses of given options.

In: lmms-eval's requests, each of one document. Out: texts, or (mean loss in nats per token, is greedy) pairs, in the
order of the requests; lmms-eval takes the option with the lowest loss. A document's picture is encoded once for all its
requests of a batch, its options are ranked in one pass, and the batch size counts documents.

Written against lmms-eval 0.7.3 (`lmms_eval/api/model.py`, `lmms_eval/api/task.py`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from lmms_eval.api.model import lmms
from tqdm import tqdm

from vlinstruct.backend import Seen
from vlinstruct.errors import ScoreError, VlinstructError
from vlinstruct.instruction.judge import Answering
from vlinstruct.integrations.lmms_eval.ranking import Loss, rank
from vlinstruct.integrations.lmms_eval.requests import (
    Document,
    Question,
    Request,
    batches,
    generations,
    parts_of,
    question,
    request_of,
)
from vlinstruct.integrations.lmms_eval.settings import Generation, Settings, cut, reworded
from vlinstruct.model import load
from vlinstruct.training.devices import launched
from vlinstruct.values import Failed

T = TypeVar("T")
_DELIMITER = " "  # lmms-eval's before an option; our tokenizers begin a target with a word's beginning anyway


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The different questions of a batch.

    Args:
        seen: the picture of each, encoded once where several share it.
        texts: the instruction of each.
        documents: the document of each.
        rows: per request of the batch, which question it asks.
    """

    seen: Sequence[Seen]
    texts: Sequence[str]
    documents: Sequence[Document]
    rows: Sequence[int]


class Simple(lmms):  # type: ignore[misc]
    """What `--model vlinstruct` is: tasks that generate and tasks that rank.

    Args:
        **model_args: `settings.Settings`.

    Raises:
        UsageError: an argument is unknown or out of range.
        CheckpointError, NetworkError, InputError, ResourceError: as `vlinstruct.load`.
    """

    is_simple = True

    def __init__(self, **model_args: Any) -> None:
        super().__init__()
        self.settings = Settings.read(model_args)
        # lmms-eval gives each process its share of the requests; all that is ours is to compute on a GPU of our own.
        device = self._join_processes() or self.settings.device
        try:
            self.pipeline = load(
                self.settings.pretrained or None,
                adapter=self.settings.adapter or None,
                device=device,
                dtype=self.settings.dtype,
                quantize=self.settings.quantization,
                image_size=self.settings.image_size or None,
                think=self.settings.think,
                offline=self.settings.offline,
                server=self.settings.server,
            )
        except VlinstructError as error:
            raise reworded(error) from error.__cause__

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return getattr(self.pipeline.backend, "device", torch.device("cpu"))

    @property
    def batch_size(self) -> int:
        """Documents that go through the model together."""
        return self.settings.batch_size

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers every request, in their order."""
        items = [self._generation_request(request.args) for request in requests]
        answers: dict[int, str] = {}
        for generation, places in self._batches(items, generations(items, self.settings.generation)):
            batch = self._answers([items[place] for place in places], generation)
            for place, answer in zip(places, batch, strict=True):
                answers[place] = answer
                # `--use_cache` writes an answer at once, so that a run which breaks off keeps what it has.
                self.cache_hook.add_partial("generate_until", (items[place].context, items[place].argument), answer)
        return [answers[place] for place in range(len(items))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[Loss]:
        """Returns every option's (mean loss in nats per token, whether greedy decoding writes it), in their order."""
        items = []
        for request in requests:
            item = request_of(*request.args)
            option = item.argument  # a text, or a function of the document that gives it
            if not isinstance(option, str):
                option = option(self._content(item.document))
            items.append(replace(item, argument=str(option).removeprefix(_DELIMITER)))
        losses: dict[int, Loss] = {}
        for _, places in self._batches(items, [None] * len(items)):
            batch = self._losses([items[place] for place in places])
            for place, loss in zip(places, batch, strict=True):
                losses[place] = loss
                self.cache_hook.add_partial("loglikelihood", (items[place].context, items[place].argument), loss)
        return [losses[place] for place in range(len(items))]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuses tasks of several rounds, which lmms-eval would ask for here."""
        raise NotImplementedError("vlinstruct answers one question per document. Leave tasks of several rounds out.")

    def clean(self) -> None:
        """Frees the model's memory; lmms-eval calls it when all requests are answered."""
        del self.pipeline
        super().clean()

    def _generation_request(self, arguments: Sequence[Any]) -> Request:
        """Returns a request from the arguments in this class's order; a chat model gets them in another."""
        return request_of(*arguments)

    def _question(self, request: Request) -> Question:
        visuals = request.source(self._content(request.document))
        return question(request.document, visuals, request.context)

    def _content(self, document: Document) -> Any:
        return self.task_dict[document.task][document.split][document.number]

    def _batches(self, requests: Sequence[Request], groups: Sequence[Hashable]) -> Iterator[tuple[Any, list[int]]]:
        """Yields batches as places of requests, each with what its requests share, and shows how far it is."""
        documents = [request.document for request in requests]
        with tqdm(total=len(requests), desc="Model Responding", disable=self.rank != 0) as bar:
            for places in batches(groups, documents, self.batch_size):
                yield groups[places[0]], places
                bar.update(len(places))

    def _questions(self, requests: Sequence[Request]) -> Questions:
        """Reads what the requests ask, each question once: a document's options all ask the same one."""
        first = {request.key: request for request in reversed(requests)}
        rows = {key: row for row, key in enumerate(dict.fromkeys(request.key for request in requests))}
        questions = [self._question(first[key]) for key in rows]
        # By document, not by question: two contexts of one document share its picture.
        pictures = {question.document: question.picture for question in questions}
        outcomes = self.pipeline.see_each(list(pictures.values()))
        seen = {document: _good(outcome, document) for document, outcome in zip(pictures, outcomes, strict=True)}
        return Questions(
            seen=[seen[question.document] for question in questions],
            texts=[question.text for question in questions],
            documents=[question.document for question in questions],
            rows=[rows[request.key] for request in requests],
        )

    def _answers(self, requests: Sequence[Request], generation: Generation) -> list[str]:
        questions = self._questions(requests)
        outcomes = self.pipeline.ask_each(
            questions.seen,
            questions.texts,
            optimize=self.settings.optimize,
            optimization=self.settings.optimization,
            generation=generation.settings,
        )
        answers = [
            cut(_good(outcome, document).text, generation.until)
            for outcome, document in zip(outcomes, questions.documents, strict=True)
        ]
        return [answers[row] for row in questions.rows]

    def _losses(self, requests: Sequence[Request]) -> list[Loss]:
        questions = self._questions(requests)
        options: list[list[str]] = [[] for _ in questions.texts]
        for row, request in zip(questions.rows, requests, strict=True):
            options[row].append(request.argument)
        instructions = questions.texts
        if self.settings.optimize:
            optimized = self.pipeline.optimize_each(
                questions.seen,
                questions.texts,
                optimization=self.settings.optimization,
                answering=Answering(choices=options),
            )
            instructions = [
                _good(outcome, document).instruction
                for outcome, document in zip(optimized, questions.documents, strict=True)
            ]
        outcomes = rank(self.pipeline, questions.seen, instructions, options)
        # A question's options stand in the order of its requests, which may alternate with those of other questions.
        losses_by_row = [
            iter(_good(outcome, document)) for outcome, document in zip(outcomes, questions.documents, strict=True)
        ]
        losses = [next(losses_by_row[row]) for row in questions.rows]
        # lmms-eval takes the lowest loss, and NaN compares false with everything: no ranking rather than a wrong one.
        for row, (mean_nll, _) in zip(questions.rows, losses, strict=True):
            if not math.isfinite(mean_nll):
                document = questions.documents[row]
                raise ScoreError(f"{document}: the model gave no finite score", advice="Use dtype=float32.")
        return losses

    def _join_processes(self) -> str | None:
        """Joins the processes that `accelerate launch` started, and returns this one's device; None if it is alone."""
        _, num_processes = launched()
        if num_processes == 1:  # accelerate is imported only where it has something to do
            return None
        from accelerate import Accelerator

        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        return str(self.accelerator.device)


class Chat(Simple):
    """What `--model vlinstruct_chat` is: tasks that are written as messages; lmms-eval has no such tasks that rank."""

    is_simple = False

    def loglikelihood(self, requests: Sequence[Any]) -> list[Loss]:
        """Refuses to rank; lmms-eval itself never asks a chat model to."""
        raise NotImplementedError("vlinstruct_chat does not rank. Use --model vlinstruct.")

    def _generation_request(self, arguments: Sequence[Any]) -> Request:
        context, source, generation_kwargs, *place = arguments
        return request_of(context, generation_kwargs, source, *place)

    def _question(self, request: Request) -> Question:
        visuals, text = parts_of(request.source(self._content(request.document)))
        return question(request.document, visuals, text)


def _good(outcome: T | Failed, document: Document) -> T:
    """Returns an outcome, or raises its error with the document's name."""
    if isinstance(outcome, Failed):
        raise reworded(outcome.error, of=document)
    return outcome
