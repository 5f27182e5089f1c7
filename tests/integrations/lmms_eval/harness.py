"""A stand-in for what our plug-in takes from lmms-eval 0.7.3: base class, results, manifest, requests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from PIL import Image

Doc = Mapping[str, Any]
TASK, SPLIT = "toy", "test"


class lmms:
    """The base class of models (`lmms_eval/api/model.py`)."""

    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size = 0, 1
        self.cache_hook = CacheHook()
        self.task_dict: dict[str, dict[str, Sequence[Doc]]] = {}

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size

    def clean(self) -> None:
        pass


class CacheHook:
    """Keeps what a model hands it."""

    def __init__(self) -> None:
        self.added: list[tuple[str, Any, Any]] = []

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self.added.append((attr, req, res))


@dataclass
class GenerationResult:
    """The wrapper that lmms-eval's evaluator takes off (`lmms_eval/api/instance.py`)."""

    text: str
    token_counts: Any = None


@dataclass(frozen=True)
class ModelManifest:
    """What a plug-in registers (`lmms_eval/models/registry_v2.py`)."""

    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None


@dataclass
class Instance:
    """A request (`lmms_eval/api/instance.py`)."""

    arguments: tuple[Any, ...]

    @property
    def args(self) -> tuple[Any, ...]:
        return self.arguments


def modules() -> dict[str, ModuleType]:
    """Returns the modules that our plug-in imports, by name."""
    contents: dict[str, dict[str, Any]] = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": lmms},
        "lmms_eval.api.instance": {"GenerationResult": GenerationResult},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    made = {}
    for name, content in contents.items():
        made[name] = ModuleType(name)
        vars(made[name]).update(content)
    return made


OURS = (
    "vlinstruct.integrations.lmms_eval.model",
    "vlinstruct.integrations.lmms_eval.ranking",
    "vlinstruct.integrations.lmms_eval.manifest",
)


def forget_ours() -> None:
    """Lets the next import of our plug-in's modules find lmms-eval anew."""
    for name in OURS:
        sys.modules.pop(name, None)


def docs(num_docs: int) -> list[Doc]:
    """Returns documents with pictures and questions of different lengths."""
    colours = ("red", "lime", "blue", "white", "black", "yellow", "purple")
    return [
        {
            "image": Image.new("RGB", (30 + number, 20), colours[number % len(colours)]),
            "question": "what is it, " * (number % 3) + f"and number {number}?",
            "options": [f"{number}", "a long answer", "no", "yes, it is"][: 2 + number % 3],
        }
        for number in range(num_docs)
    ]


def doc_to_visual(doc: Doc) -> list[Any]:
    return [doc["image"]]


def generate(
    documents: Sequence[Doc],
    *,
    context: str = "{}",
    visuals: Callable[[Doc], Any] = doc_to_visual,
    **wanted: Any,
) -> list[Instance]:
    """Returns one request per document, as `generate_until` gets it."""
    return [
        Instance((context.replace("{}", doc["question"]), dict(wanted), visuals, number, TASK, SPLIT))
        for number, doc in enumerate(documents)
    ]


def rank(documents: Sequence[Doc], *, delimiter: str = " ") -> list[Instance]:
    """Returns one request per option of each document, as `loglikelihood` gets them."""
    return [
        Instance((doc["question"], f"{delimiter}{option}", doc_to_visual, number, TASK, SPLIT))
        for number, doc in enumerate(documents)
        for option in doc["options"]
    ]


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Returns what a chat model gets of a document."""
    content = [{"type": "image", "url": doc["image"]}, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]


def chat(documents: Sequence[Doc], **wanted: Any) -> list[Instance]:
    """Returns one request per document, as `generate_until` of a chat model gets it."""
    return [Instance(("", doc_to_messages, dict(wanted), number, TASK, SPLIT)) for number in range(len(documents))]
