"""lmms-eval's requests: what they hold, how each is answered, and which go through the model together. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vlinstruct.integrations.lmms_eval.documents import Document
from vlinstruct.integrations.lmms_eval.generation import Generation, read_generation
from vlinstruct.settings import GenerationSettings


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request of lmms-eval's.

    Args:
        document: what it is about.
        context: the instruction as the task's template makes it.
        wanted: the task's `generation_kwargs`, or the option whose loss is asked for.
        source: gives the document's pictures, or its messages.
    """

    document: Document
    context: str
    wanted: Any
    source: Callable[[Any], Any]

    @property
    def key(self) -> tuple[Document, str]:
        """What requests with the same question have in common."""
        return self.document, self.context


def request_of(context: str, wanted: Any, source: Any, number: int, task: str, split: str) -> Request:
    """Returns a request from its arguments, in the order that lmms-eval gives them to simple models."""
    document = Document(task=task, split=split, number=number)
    return Request(document=document, context=context, wanted=wanted, source=source)


def generations(requests: Sequence[Request], default: GenerationSettings) -> list[Generation]:
    """Returns how every request is answered.

    A request may come more than once (`--repeats`): where its task samples, it is drawn anew each time.

    Args:
        requests: of tasks that generate.
        default: what holds where a task says nothing.
    """
    seen: Counter[tuple[Document, str]] = Counter()
    found = []
    for request in requests:
        found.append(read_generation(request.wanted, default).repeated(seen[request.key]))
        seen[request.key] += 1
    return found


def batches(groups: Sequence[Hashable], documents: Sequence[Document], batch_size: int) -> Iterator[list[int]]:
    """Yields the places of requests that go through the model together: whole documents, `batch_size` at a time.

    Args:
        groups: per request what all requests of a batch must share.
        documents: per request the document it is about.
        batch_size: most documents of a batch.
    """
    places: dict[Hashable, dict[Document, list[int]]] = {}
    for place, (group, document) in enumerate(zip(groups, documents, strict=True)):
        places.setdefault(group, {}).setdefault(document, []).append(place)
    for by_document in places.values():
        rows = list(by_document.values())
        for start in range(0, len(rows), batch_size):
            yield [place for row in rows[start : start + batch_size] for place in row]
