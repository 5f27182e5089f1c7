"""What is written is laid down: a model computes its logits as ever and then favours the next token of a script.

How fast a text is written depends on how much of it a draft gives, so drafts are laid down, too: of what will be
written, and right in a given share of tokens. `ReplayedBackend` is the one place that knows what a stage writes.

Legend: B rows, S fed tokens, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vlinstruct.backend import Row, Stage, Written
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.language_model import DecoderState, Reader
from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.backends.instructblip.speculative import DraftedRow
from vlinstruct.bench.workload import ANSWER, OPTIMIZED, REWRITTEN
from vlinstruct.mini.draw import draw
from vlinstruct.mini.questions import ask, facts
from vlinstruct.mini.world import sample_scene
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed

_CERTAIN = 1e4  # a logit above all others, finite in float16
_WRONG_WORD = "red"  # in no text of the workload's instructions
_POOR_SHARE = 0.5  # of the instructions on which mini's acceptance is measured


class ReplayedState:
    """A state, and how many tokens each row has written into it."""

    def __init__(self, state: DecoderState, script: Sequence[int], num_rows: int) -> None:
        self.state = state
        self.script = script
        self.written = [0] * num_rows

    def drop(self, counts: Sequence[int]) -> None:
        self.state.drop(counts)
        self.written = [written - count for written, count in zip(self.written, counts, strict=True)]


class ReplayedReader:
    """Reads as another reader does, and favours what is laid down.

    Args:
        reader: computes.
        script: ids with their end token, of every text that is written.
    """

    def __init__(self, reader: Reader, script: Sequence[int]) -> None:
        self.inner = reader
        self.script = script

    def prefill(
        self, inputs_embeds: Tensor, attention_mask: Tensor, draft_ids: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        logits, state = self.inner.prefill(inputs_embeds, attention_mask, draft_ids)
        replayed = ReplayedState(state, self.script, len(logits))
        favour(logits, replayed.script, replayed.written)
        # Drafted tokens are in the state already; `drop` takes back those that were not accepted.
        replayed.written = [logits.shape[1] - 1] * len(logits)
        return logits, replayed

    def decode(self, input_ids: Tensor, state: DecoderState) -> Tensor:
        assert isinstance(state, ReplayedState)
        logits = self.inner.decode(input_ids, state.state)
        favour(logits, state.script, [written + 1 for written in state.written])
        state.written = [written + input_ids.shape[1] for written in state.written]
        return logits

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        return self.inner.target_logits(inputs_embeds, attention_mask, target_ids)


class ReplayedBackend(InstructBlipBackend):
    """A backend that writes what is laid down, with drafts of it that are right in a given share.

    It shares the weights of the backend that it is made of, which itself is not changed.

    Args:
        backend: computes.
        acceptance: share of the tokens of instructions that drafts give, 0 to 1.
    """

    def __init__(self, backend: InstructBlipBackend, acceptance: float) -> None:
        super().__init__(
            backend.network,
            image_processor=backend.image_processor,
            tokenizer=backend.tokenizer,
            qformer_tokenizer=backend.qformer_tokenizer,
            identity=backend.identity,
            recordings=backend.recordings,
        )
        tokenizer = backend.tokenizer
        self.scripts: dict[Stage, list[int]] = {
            "rewrite": tokenizer.target_ids(REWRITTEN),
            "compare": tokenizer.target_ids(OPTIMIZED),
            "answer": tokenizer.encode(ANSWER),
            "judge": tokenizer.encode(ANSWER),
        }
        self.script: list[int] = []
        self.guesses: dict[Stage, str] = {
            "rewrite": draft_of(REWRITTEN, acceptance, tokenizer.target_ids),
            "compare": draft_of(OPTIMIZED, acceptance, tokenizer.target_ids),
        }

    def reader(self, settings: GenerationSettings | None = None) -> Reader:
        """Returns a reader that writes what is laid down for the stage at hand."""
        reader = super().reader(settings)
        return reader if settings is None else ReplayedReader(reader, self.script)

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        """Writes what is laid down for the rows' stage; where they come with a guess, with the workload's own."""
        (stage,) = {row.stage for row in rows}
        self.script = self.scripts[stage]
        guessed = [replace(row, guess=self.guesses.get(stage, row.guess)) if row.guess else row for row in rows]
        return super().write(guessed, settings)


def favour(logits: Tensor, script: Sequence[int], starts: Sequence[int]) -> None:
    """Makes the script's tokens the likeliest, in place.

    Args:
        logits: (B, S, V).
        script: ids; behind its end, its last one.
        starts: per row, which of the script's tokens the first logits are for.
    """
    num_new = logits.shape[1]
    next_ids = [[script[min(start + i, len(script) - 1)] for i in range(num_new)] for start in starts]
    logits.scatter_(2, torch.tensor(next_ids, device=logits.device)[..., None], _CERTAIN)


class ScriptedLogits:
    """A logits processor with which transformers' `generate` writes a script.

    Args:
        script: ids; behind its end, its last one.
    """

    def __init__(self, script: Sequence[int]) -> None:
        self.script = script
        self.written = 0

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        favour(scores[:, None], self.script, [self.written] * len(scores))
        self.written += 1
        return scores


def num_passes(draft: Sequence[int], written: Sequence[int]) -> int:
    """Returns how many passes a model takes to write a text from a draft.

    >>> num_passes([5, 6, 7, 1], [5, 6, 7, 1]), num_passes([5, 9, 7, 1], [5, 6, 7, 1]), num_passes([], [5, 6, 7, 1])
    (1, 2, 4)
    """
    row, passes = DraftedRow(draft, len(written), (written[-1],)), 0
    while not row.is_finished:
        likeliest = written[len(row.written) : len(row.written) + 1 + len(row.proposed)]
        row.accept(likeliest, [0.0] * len(likeliest))
        passes += 1
    return passes


def acceptance(draft: Sequence[int], written: Sequence[int]) -> float:
    """Returns the share of a text's tokens that a draft gives, 0 to 1; the first pass's own token does not count."""
    return 1 - (num_passes(draft, written) - 1) / (len(written) - 1)


def draft_of(text: str, share: float, ids: Callable[[str], list[int]]) -> str:
    """Returns a draft of a text with evenly spread wrong words, whose acceptance is nearest to a share.

    Args:
        text: what will be written.
        share: acceptance, 0 to 1.
        ids: the tokenizer, end token included.
    """
    words = text.split(" ")
    drafts = []
    for num_wrong in range(len(words) + 1):
        wrong_places = {int((i + 0.5) * len(words) / num_wrong) for i in range(num_wrong)}
        drafts.append(" ".join(_WRONG_WORD if place in wrong_places else word for place, word in enumerate(words)))
    return min(drafts, key=lambda draft: abs(acceptance(ids(draft), ids(text)) - share))


def measured_acceptance(items: int) -> float:
    """Returns the share of the tokens of rewritten and optimized instructions that drafts gave, 0 to 1.

    Measured on mini's world, where rewriting and comparing write what they mean to write. Every text's first pass
    writes a token in any case, and does not count. Half of the instructions are poorly worded.

    Args:
        items: pictures of the dev part, drawn without installed fonts, with one instruction each.
    """
    backend, rng = load_backend("mini", device="cpu"), random.Random("acceptance")
    model, ids = Model(backend), backend.tokenizer.target_ids
    passes = tokens = 0
    for seed in range(items):
        scene = sample_scene(seed, split="dev", fonts=("pillow",))
        fact = rng.choice([fact for fact in facts(scene, rng) if fact.is_fitting])
        result = model.optimize(ask(fact, rng, "dev", _POOR_SHARE).instruction, draw(scene))
        assert result.rewritten is not None  # all of algorithm 2 ran
        assert result.optimized is not None
        better = min(result.initial, result.rewritten, key=lambda scored: scored.ias)
        for draft, written in ((result.initial, result.rewritten), (better, result.optimized)):
            passes += num_passes(ids(draft.text), ids(written.text)) - 1
            tokens += len(ids(written.text)) - 1
    return 1 - passes / tokens
