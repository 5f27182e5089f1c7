"""Any vision-language model as one would use it with transformers alone: the processor, `generate`, a forward.

A backend, so that algorithm 2 runs on it step by step as on ours; but nothing is kept from one call to the next: the
picture goes through processor and model in every one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.backends.transformers.any_vlm import TransformersBackend
from vlinstruct.backends.transformers.chat_template import Conversation
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed, TokenScores, good


class NaiveBackend(Backend):
    """Writes greedily with `generate`, and scores each target with a forward of its own.

    Args:
        backend: ours, whose model and processor are used; of its code, `plain_nll` alone.
    """

    def __init__(self, backend: TransformersBackend) -> None:
        self.backend = backend
        self.identity = backend.identity
        self.abilities = backend.abilities

    def see(self, media: Sequence[Any]) -> list[Seen | Failed]:
        """Returns the pictures as they are."""
        return list(media)

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        """Writes rows in one batch where the kind of model allows it."""
        size = len(rows) if self.backend.family.batches else 1
        batches = [rows[start : start + size] for start in range(0, len(rows), max(size, 1))]
        return [written for batch in batches for written in self._generate(batch, settings.max_new_tokens)]

    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        """Scores every target in a forward of everything, without a cache."""
        return [
            [self._token_scores(row, target, num_first) for target in texts]
            for row, texts in zip(rows, targets, strict=True)
        ]

    def _token_scores(self, row: Row, target: str, num_first: int | None) -> TokenScores:
        seen = tuple(
            good(outcome) for outcome in self.backend.see([cast(Image.Image, picture) for picture in row.seen])
        )
        nll = self.backend.plain_nll(replace(row, seen=seen), target)[:num_first]
        return TokenScores(tokens=("",) * len(nll), token_nll=tuple(nll))

    @torch.inference_mode()
    def _generate(self, rows: Sequence[Row], num_tokens: int) -> list[Written]:
        inputs = self._inputs(rows)
        network = self.backend.model if rows[0].seen else self.backend.reader.network
        made = network.generate(**inputs, max_new_tokens=num_tokens, do_sample=False)
        # A decoder-only model returns what it read, too; an encoder-decoder the token that its decoder starts with.
        start = 1 if self.backend.is_encoder_decoder else inputs["input_ids"].shape[1]
        texts = self.backend.template.tokenizer.batch_decode(made[:, start:], skip_special_tokens=True)
        return [Written(text=text.strip(), is_complete=False) for text in texts]

    def _inputs(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Returns what the model takes, padded on the left."""
        template, family = self.backend.template, self.backend.family
        texts = [template.render(_conversation(row)) for row in rows]
        options: dict[str, Any] = {"padding": True, "padding_side": "left"} if len(rows) > 1 else {}
        if template.template is not None and not template.adds_special_tokens:
            options["add_special_tokens"] = False  # the template writes the first token itself
        if rows[0].seen:
            pictures = [list(row.seen) for row in rows]
            made = self.backend.processor(text=texts, images=pictures, return_tensors="pt", **options)
        elif template.template is not None:
            made = self.backend.processor(text=texts, return_tensors="pt", **options)
        elif family.behind_prompt:
            texts = [f"{template.tokenizer.bos_token}{text}{family.behind_prompt}" for text in texts]
            made = template.tokenizer(texts, add_special_tokens=False, return_tensors="pt")
            made["token_type_ids"] = torch.zeros_like(made["input_ids"])
        else:
            made = template.tokenizer(texts, return_tensors="pt", return_token_type_ids=False, **options)
        return self._on_device(made)

    def _on_device(self, made: Mapping[str, Any]) -> dict[str, Tensor]:
        return {
            name: value.to(self.backend.device, self.backend.dtype if value.is_floating_point() else None)
            for name, value in made.items()
            if isinstance(value, Tensor) and name != "labels"
        }


def _conversation(row: Row) -> Conversation:
    return Conversation(prompt=row.prompt, media="picture" if row.seen else None)
