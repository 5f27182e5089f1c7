"""What a user should know before trusting a model: a picture that the model does not know, or a guess.

Only models that ship in the package, which are small and know a small world, are said to guess. No torch at import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlinstruct.backends.registry import BACKBONES

# Half of mini's answers that are less certain are wrong, and 4 % of the others: of 2,742 answers to the dev part's
# wordings 2.7 %, a quarter of all wrong ones (`tests/tools/never_worse.py guesses`).
_LEAST_CERTAINTY = 0.6

if TYPE_CHECKING:
    from vlinstruct.backend import Seen
    from vlinstruct.model import Model
    from vlinstruct.values import Answer


def doubts(model: Model, seen: Seen, answer: Answer | None = None) -> list[str]:
    """Returns what speaks against an answer, or against all that is said of a picture, in at most one sentence.

    Args:
        model: says it.
        seen: the picture.
        answer: the answer; None where nothing was answered.
    """
    name = model.backend.identity.name
    if not model.backend.knows(seen):
        other = min((b for b in BACKBONES.values() if not b.is_built_in), key=lambda backbone: backbone.download_gb)
        return [
            f"this picture is unlike those that {name} was trained on: do not trust what it says. "
            f"--backbone {other.name} sees photographs, too ({other.download_gb:g} GB to download)."
        ]
    backbone = BACKBONES.get(name)
    if backbone is None or not backbone.is_built_in:
        return []
    if answer is not None and answer.certainty is not None and answer.certainty < _LEAST_CERTAINTY:
        return [f"{backbone.name} guesses: the certainty of this answer is {answer.certainty:.2f}."]
    return []
