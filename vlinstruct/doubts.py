"""What a user should know of an answer before trusting it: a picture that the model does not know, or a guess.

Only models that ship in the package, which are small and know a small world, are said to guess. No torch at import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlinstruct.backends.registry import BACKBONES

# A token of the answer was less likely than all others together.
_LEAST_CERTAINTY = 0.5

if TYPE_CHECKING:
    from vlinstruct.backend import Seen
    from vlinstruct.model import Model
    from vlinstruct.values import Answer


def doubts(model: Model, seen: Seen, answer: Answer) -> list[str]:
    """Returns what speaks against an answer, in at most one sentence.

    Args:
        model: gave it.
        seen: about this picture.
        answer: the answer.
    """
    name = model.backend.identity.name
    if not model.backend.knows(seen):
        other = min((b for b in BACKBONES.values() if not b.is_built_in), key=lambda backbone: backbone.download_gb)
        return [
            f"this picture is unlike those that {name} was trained on: do not trust the answer. "
            f"--backbone {other.name} sees photographs, too ({other.download_gb:g} GB to download)."
        ]
    backbone = BACKBONES.get(name)
    if backbone is None or not backbone.is_built_in:
        return []
    if answer.certainty is not None and answer.certainty < _LEAST_CERTAINTY:
        return [f"{backbone.name} guesses: the certainty of this answer is {answer.certainty:.2f}."]
    return []
