"""How each kind of language model reads a row: where its prompt begins and ends, and what its attention can be taught.

T5's encoder reads a prompt as a whole and ends it with `</s>`. Llama reads it once from left to right, behind `</s>`
(LAVIS began Vicuna's prompts with that token, too), so nothing can be known of what comes later.

Legend: R rows, Q queries, T prompt tokens, C context positions (queries, then prompt).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from pretrain_mini.encoder_attention import Looks
from pretrain_mini.labels import IGNORED, NUM_QUERY_TOKENS, VERDICT_QUERY, Ids

LanguageModelName = Literal["t5", "llama"]
LANGUAGE_MODELS: tuple[LanguageModelName, ...] = get_args(LanguageModelName)
END = 1


class Reading(Protocol):
    """What a kind of language model changes in rows."""

    def prompt_ids(self, text_ids: Sequence[int]) -> list[int]:
        """Returns what is read, from a text's own ids."""
        ...

    def verdict_places(self, prompt_ids: Ids) -> Ids:
        """Returns (R,): the position that knows a verdict first; prompt_ids is (R, T)."""
        ...

    def looks(self, looks: Looks, prompt_ids: Ids) -> Looks:
        """Returns where each position can look, (R, 2, C, C), from where it should."""
        ...

    def labels(self, labels: Ids, looks: Looks) -> Ids:
        """Returns the labels (R, C) of positions that can know them, elsewhere IGNORED; looks are the wanted ones."""
        ...


class WholeReading:
    """T5's: every position sees every other one."""

    def prompt_ids(self, text_ids: Sequence[int]) -> list[int]:
        return [*text_ids, END]

    def verdict_places(self, prompt_ids: Ids) -> Ids:
        return np.full(len(prompt_ids), VERDICT_QUERY)

    def looks(self, looks: Looks, prompt_ids: Ids) -> Looks:
        return looks

    def labels(self, labels: Ids, looks: Looks) -> Ids:
        # A relation's word has a label and no look of its own: the verdict's query reads it.
        return np.where(looks.any(axis=(1, 3)), labels, IGNORED)


class CausalReading:
    """Llama's: a position sees what stands before it."""

    def prompt_ids(self, text_ids: Sequence[int]) -> list[int]:
        return [END, *text_ids]

    def verdict_places(self, prompt_ids: Ids) -> Ids:
        return last_places(prompt_ids)

    def looks(self, looks: Looks, prompt_ids: Ids) -> Looks:
        return causal_looks(looks, last_places(prompt_ids))

    def labels(self, labels: Ids, looks: Looks) -> Ids:
        return np.where(knows_in_time(looks), labels, IGNORED)


READINGS: Mapping[LanguageModelName, Reading] = {"t5": WholeReading(), "llama": CausalReading()}


def last_places(prompt_ids: Ids) -> Ids:
    """Returns (R,): each row's last position, queries counted; prompt_ids is (R, T)."""
    return NUM_QUERY_TOKENS - 1 + (prompt_ids != 0).sum(axis=1)


def causal_looks(looks: Looks, last: Ids) -> Looks:
    """Turns looks around that would go forwards: the later of two positions compares them, and the last one asks it.

    A last position that had to look at a relation's word and, unguided, at the query that knows how things stand, was
    right about positions in 49 % after 650 steps: each of the two says nothing without the other.

    Args:
        looks: (R, 2, C, C).
        last: (R,).

    >>> looks = np.zeros((1, 2, 14, 14), np.float32)
    >>> looks[0, :, VERDICT_QUERY, 12] = 1
    >>> np.argwhere(causal_looks(looks, np.array([13]))[0]).tolist()
    [[0, 12, 11], [1, 13, 12]]
    """
    first, then = looks[:, 0], looks[:, 1]
    back = np.tril(first) + np.triu(first, k=1).swapaxes(1, 2)
    back /= np.maximum(back.sum(axis=-1, keepdims=True), 1e-6)
    kept = np.tril(then)
    # What others would have asked of later positions, and what the verdict's query asks, which cannot see the prompt.
    asked = ((then - kept).sum(axis=1) + kept[:, VERDICT_QUERY]) * back.any(axis=-1)  # (R, C)
    kept[np.arange(len(looks)), last] += asked / np.maximum(asked.sum(axis=-1, keepdims=True), 1e-6)
    return np.stack([back, kept], axis=1)


def knows_in_time(looks: Looks) -> NDArray[np.bool_]:
    """Returns (R, C), True where a position looks at nothing that comes later, nor at one that had to.

    Args:
        looks: (R, 2, C, C), as they should be.
    """
    forwards = np.triu(looks, k=1).sum(axis=-1)  # (R, 2, C)
    saw_one_that_waits = (looks[:, 1] @ forwards[:, 0, :, None])[..., 0]
    return forwards.sum(axis=1) + saw_one_that_waits == 0
