"""What lmms-eval reads first: the names of our models. It is imported by lmms-eval alone, and loads nothing.

Two names, because lmms-eval prefers a chat class wherever a model has one and refuses to rank with it: `vlinstruct`
answers and ranks, `vlinstruct_chat` is for tasks that are written as messages only.
"""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

_MODULE = "vlinstruct.integrations.lmms_eval.model"


def manifests() -> list[ModelManifest]:
    """Returns what the entry point `lmms_eval.models` promises."""
    return [
        ModelManifest(model_id="vlinstruct", simple_class_path=f"{_MODULE}.Simple"),
        ModelManifest(model_id="vlinstruct_chat", chat_class_path=f"{_MODULE}.Chat"),
    ]
