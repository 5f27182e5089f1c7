"""Texts and pictures in, texts and scores out: the InstructBLIP family as the rest of the package talks to it.

Implements `instruction.protocol.InstructionModel`. The vision tower runs in `encode` and nowhere else.

Legend: B rows, C context positions, L the language model's width, T Q-Former tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlinstruct.backends.instructblip.candidates import candidate_nll, target_nll
from vlinstruct.backends.instructblip.configuration import LlamaConfig
from vlinstruct.backends.instructblip.decoding import generate, stream, text_pieces
from vlinstruct.backends.instructblip.image_processor import ImageProcessor
from vlinstruct.backends.instructblip.language_model import Context
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.instructblip.tokenization import QFormerTokenizer, TextTokenizer
from vlinstruct.errors import TextError
from vlinstruct.settings import DraftedGeneration, GenerationSettings
from vlinstruct.values import Percept, TokenScores

_T5_TRAINING_TOKENS = 512


class InstructBlipBackend:
    """A loaded model with its tokenizers and its image processor.

    Args:
        network: the torch module, in eval mode, on its device.
        image_processor: pictures to pixel values.
        tokenizer: the language model's.
        qformer_tokenizer: the Q-Former's.
    """

    def __init__(
        self,
        network: InstructBlip,
        *,
        image_processor: ImageProcessor,
        tokenizer: TextTokenizer,
        qformer_tokenizer: QFormerTokenizer,
    ) -> None:
        self.network = network
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.qformer_tokenizer = qformer_tokenizer

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.network.query_tokens.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.network.query_tokens.dtype

    @torch.inference_mode()
    def encode(self, media: Sequence[Image.Image]) -> Percept:
        """Runs the vision tower, once per picture.

        Args:
            media: RGB pictures of any size.

        Returns:
            A percept with one item per picture.
        """
        return Percept(image_embeds=self.network.encode_image(self.pixel_values(media)))

    def pixel_values(self, media: Sequence[Image.Image]) -> Tensor:
        """Returns what the vision tower reads, (B, 3, image_size, image_size)."""
        return self.image_processor(media).to(self.device, self.dtype)

    @torch.inference_mode()
    def generate_text(self, prompts: Sequence[str], config: GenerationSettings) -> list[str]:
        """Continues every prompt with the language model alone; no picture, no Q-Former."""
        return self._generate(self.context(prompts, None), config)

    @torch.inference_mode()
    def generate(
        self, percept: Percept, prompts: Sequence[str], qformer_texts: Sequence[str], config: GenerationSettings
    ) -> list[str]:
        """Continues every prompt given its row's picture; `qformer_texts` is what the Q-Former reads."""
        return self._generate(self.context(prompts, self._image_prefix(percept, qformer_texts)), config)

    @torch.inference_mode()
    def stream(self, percept: Percept, prompt: str, qformer_text: str, config: GenerationSettings) -> Iterator[str]:
        """Continues one prompt given its picture, piece by piece; the pieces joined are what `generate` returns."""
        context = self.context([prompt], self._image_prefix(percept, [qformer_text]))
        ids = stream(self.network.language_model, context, config, (self.tokenizer.eos_id,))
        yield from text_pieces(self.tokenizer, ids)

    @torch.inference_mode()
    def token_nll(
        self, percept: Percept, prompts: Sequence[str], qformer_texts: Sequence[str], targets: Sequence[str]
    ) -> list[TokenScores]:
        """Scores every target, end token included, as the continuation of its row's prompt; nats, one batch."""
        context = self.context(prompts, self._image_prefix(percept, qformer_texts))
        target_ids = [self.tokenizer.target_ids(target) for target in targets]
        scores = target_nll(self.network.language_model, context, target_ids)
        return [self._scores(ids, nll) for ids, nll in zip(target_ids, scores, strict=True)]

    @torch.inference_mode()
    def text_nll(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TokenScores]:
        """Scores every target as `token_nll` does, with the language model alone; no picture, no Q-Former."""
        target_ids = [self.tokenizer.target_ids(target) for target in targets]
        scores = target_nll(self.network.language_model, self.context(prompts, None), target_ids)
        return [self._scores(ids, nll) for ids, nll in zip(target_ids, scores, strict=True)]

    @torch.inference_mode()
    def candidate_nll(
        self,
        percept: Percept,
        prompts: Sequence[str],
        qformer_texts: Sequence[str],
        candidates: Sequence[Sequence[str]],
    ) -> list[list[TokenScores]]:
        """Scores every candidate of every row; a row's picture and prompt are read once for all its candidates."""
        context = self.context(prompts, self._image_prefix(percept, qformer_texts))
        candidate_ids = [[self.tokenizer.target_ids(text) for text in row] for row in candidates]
        scores = candidate_nll(self.network.language_model, context, candidate_ids)
        return [
            [self._scores(ids, nll) for ids, nll in zip(row_ids, row_nll, strict=True)]
            for row_ids, row_nll in zip(candidate_ids, scores, strict=True)
        ]

    def _scores(self, ids: Sequence[int], nll: Sequence[float]) -> TokenScores:
        return TokenScores(tokens=self.tokenizer.pieces(ids), token_nll=tuple(nll))

    def _generate(self, context: Context, config: GenerationSettings) -> list[str]:
        stop_ids = (self.tokenizer.eos_id,)
        drafts = config.drafts if isinstance(config, DraftedGeneration) else ()
        sources = [self.tokenizer.target_ids(draft) for draft in drafts]
        texts = generate(self.network.language_model, context, config, stop_ids, sources)
        return [self.tokenizer.decode(ids).strip() for ids in texts]

    def _image_prefix(self, percept: Percept, qformer_texts: Sequence[str]) -> Sequence[Tensor]:
        """Returns every row's projected queries, (Q, L), or (2Q, L) under EMA; none is computed twice for a percept."""
        pairs = list(zip(percept.prefixes, qformer_texts, strict=True))
        new = {(id(memory), text): row for row, (memory, text) in enumerate(pairs) if text not in memory}
        if new:
            rows = list(new.values())
            computed = self._compute_image_prefix(percept.select(rows), [qformer_texts[row] for row in rows])
            for row, prefix in zip(rows, computed, strict=True):
                percept.prefixes[row][qformer_texts[row]] = prefix
        return [memory[text] for memory, text in pairs]

    def qformer_ids(self, texts: Sequence[str], num_tokens: int = 0) -> tuple[Tensor, Tensor]:
        """Returns what the Q-Former reads, (B, T), and its mask, (B, T), 1 where it is no padding.

        Args:
            texts: B of them.
            num_tokens: the least T; more where a text is longer.
        """
        rows = [self.qformer_tokenizer.encode(text) for text in texts]
        width = max([num_tokens, *map(len, rows)])
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        return ids, (torch.arange(width, device=self.device) < lengths[:, None]).long()

    def _compute_image_prefix(self, percept: Percept, qformer_texts: Sequence[str]) -> Tensor:
        return self.network.image_prefix(percept.image_embeds, *self.qformer_ids(qformer_texts))

    def context(self, prompts: Sequence[str], prefix: Sequence[Tensor] | None) -> Context:
        """Joins each row's prefix and prompt and pads on the left, so that the two stay neighbours.

        Args:
            prompts: one per row.
            prefix: per row what stands in front of it, (2Q, L) or (Q, L); differentiable. None for the text alone.
        """
        return self.context_of_ids([self.prompt_ids(prompt) for prompt in prompts], prefix)

    def context_of_ids(self, ids: Sequence[Sequence[int]], prefix: Sequence[Tensor] | None) -> Context:
        """Does what `context` does, with prompts that `prompt_ids` made."""
        flat = torch.tensor([token for row in ids for token in row], device=self.device)
        rows = list(torch.split(self.network.language_model.embed_tokens(flat), [len(row) for row in ids]))
        if prefix is not None:
            rows = [torch.cat(pair) for pair in zip(prefix, rows, strict=True)]
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        inputs_embeds = pad_sequence(rows, batch_first=True, padding_side="left")
        num_positions = inputs_embeds.shape[1]
        return Context(
            inputs_embeds=inputs_embeds,
            attention_mask=torch.arange(num_positions, device=self.device) >= num_positions - lengths[:, None],
            seen_ids=tuple(self._seen_ids(row) for row in ids),
        )

    def prompt_ids(self, prompt: str) -> list[int]:
        """Returns a prompt's token ids.

        Raises:
            TextError: it has more tokens than the language model takes.
        """
        ids, config = self.tokenizer.prompt_ids(prompt), self.network.config.text_config
        if isinstance(config, LlamaConfig) and len(ids) > config.max_position_embeddings:
            raise TextError(
                f"prompt too long: {len(ids)} tokens, the language model takes {config.max_position_embeddings}",
                advice="Shorten the instruction.",
                code="text_too_long",
            )
        return ids

    def num_prompt_tokens(self, max_new_tokens: int) -> int:
        """Returns how many tokens a prompt may have that tells what was said before.

        Args:
            max_new_tokens: room that is left for what is written after it.

        Returns:
            For Llama what its positions leave beside the image's tokens, 0 or below where they leave none. T5 has no
            last position: 512, the length it was trained with.
        """
        config = self.network.config
        if not isinstance(config.text_config, LlamaConfig):
            return _T5_TRAINING_TOKENS
        num_image_tokens = config.num_query_tokens * (2 if self.network.use_ema else 1)
        return config.text_config.max_position_embeddings - num_image_tokens - max_new_tokens

    def _seen_ids(self, prompt_ids: Sequence[int]) -> tuple[int, ...]:
        """Returns what a repetition penalty counts as written: transformers' rule for each kind of model."""
        config = self.network.config.text_config
        return tuple(prompt_ids) if isinstance(config, LlamaConfig) else (config.decoder_start_token_id,)
