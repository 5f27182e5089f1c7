"""What the rest of the model knows of a language model, and what T5 and Llama share.

Encoder-decoder and decoder-only look alike behind the interface: a context (image prefix and prompt) is read once; then
tokens are fed and logits come back. T5's context is its encoder's input, Llama's is the beginning of its sequence:
nobody above has to know.

Padding is on the left of a context, so that prompt and answer are neighbours in every row, and on the right of targets.

Legend: B rows, C context positions, S fed tokens, N positions of all rows, L the model's width, V the vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vlinstruct.backends.instructblip.attention import Part, Reserved
from vlinstruct.backends.instructblip.prepacked import prepacked
from vlinstruct.backends.instructblip.text_config import TextConfig

Block = Callable[..., Any]

_TALL = 4_000_000  # numbers in a head's matrix, from which its product is turned round; mini's has 330,000
_FEW = 32  # positions, up to which it is
LOSS_CHUNK = 1024  # positions whose logits are there at once in a loss: 131 MB of 32,000 words in float32


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the language model reads before it writes.

    Args:
        inputs_embeds: (B, C, L), padded on the left.
        attention_mask: (B, C), True where a position is no padding.
        penalized_ids: per row the ids that the repetition penalty counts as written already: the prompt of a
            decoder-only model, the start token of an encoder-decoder.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    penalized_ids: tuple[tuple[int, ...], ...]


class DecoderState(Protocol):
    """Keys and values of everything read so far; `decode` appends to it."""

    def drop(self, counts: Sequence[int]) -> None:
        """Forgets the last tokens that were fed, `counts[b]` of them in row b; rows may then be of different length."""
        ...


class Reader(Protocol):
    """What reads a context and writes on: a `LanguageModel`, or what stands in front of one."""

    def prefill(
        self, inputs_embeds: Tensor, attention_mask: Tensor, draft_ids: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        """As `LanguageModel.prefill`."""
        ...

    def decode(self, input_ids: Tensor, state: DecoderState) -> Tensor:
        """As `LanguageModel.decode`."""
        ...

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        """As `LanguageModel.target_logits`."""
        ...


class RowState:
    """How far every row has read; what T5's and Llama's states share.

    Args:
        num_rows: B.
        is_checkpointed: whether the blocks that read on are checkpointed; they then remember nothing of their own.
        reserved: where its caches never move; how far a row has read is then asked of the device, so that a pass is the
            same kernels every time, and `lengths` tells nothing.
    """

    def __init__(self, num_rows: int, *, is_checkpointed: bool, reserved: Reserved | None = None) -> None:
        self.lengths = [0] * num_rows
        self.is_checkpointed = is_checkpointed
        self.reserved = reserved

    def next_positions(self, num_new: int, device: torch.device) -> tuple[Tensor, int]:
        """Returns where the next tokens stand, (B, S), padding counted, and K, how many keys each of them may look at.

        A key that stands behind a token is for the mask to hide.
        """
        if self.reserved is not None:
            return self.reserved.place(num_new), self.reserved.num_keys
        if len(set(self.lengths)) == 1:  # without a copy to the device, which nothing recorded may make
            ends = torch.arange(self.lengths[0], self.lengths[0] + num_new, device=device)
            return ends.expand(len(self.lengths), -1), self.lengths[0] + num_new
        starts = torch.tensor(self.lengths, device=device)
        return starts[:, None] + torch.arange(num_new, device=device), max(self.lengths) + num_new

    def drop(self, counts: Sequence[int]) -> None:
        # Lengths alone: what is behind them is hidden by the mask, and overwritten by what comes next.
        self.lengths = [length - count for length, count in zip(self.lengths, counts, strict=True)]

    def select(self, rows: Tensor) -> None:
        """Keeps the rows at `rows` (N,), in that order; a row may occur more than once (beams, candidates)."""
        self.lengths = [self.lengths[row] for row in rows.tolist()]


class LanguageModel(nn.Module, ABC):
    """A language model that reads embeddings and continues with tokens.

    Attributes:
        config: what kind of language model it is, and how large.
        lm_head: the last layer, which makes logits.
        gradient_checkpointing: whether of targets only the blocks' inputs are kept for the backward pass, in which the
            rest is computed anew; without gradients it changes nothing.
    """

    _no_split_modules: ClassVar[list[str]]  # accelerate reads it: the classes whose weights FSDP gathers as one
    config: TextConfig
    lm_head: Head
    gradient_checkpointing: bool = False

    @property
    def is_checkpointing(self) -> bool:
        """Whether a pass that begins now is one that keeps only the blocks' inputs."""
        return self.gradient_checkpointing and torch.is_grad_enabled()

    @abstractmethod
    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        """(B, S) -> (B, S, L)."""

    @abstractmethod
    def prefill(
        self, inputs_embeds: Tensor, attention_mask: Tensor, draft_ids: Tensor | None = None
    ) -> tuple[Tensor, RowState]:
        """Reads a context, and what perhaps follows it.

        Args:
            inputs_embeds: (B, C, L), padded on the left.
            attention_mask: (B, C), nonzero where a position is no padding.
            draft_ids: (B, S) tokens that are fed in the same pass.

        Returns:
            The logits of the first token to generate and of the one after each draft token, (B, 1 + S, V), and the
            state to go on from.
        """

    @abstractmethod
    def reserve(self, num_rows: int, num_context: int, num_keys: int) -> RowState:
        """Returns an empty state whose memory never moves, for `prefill_reserved`.

        Args:
            num_rows: B.
            num_context: C, padding included.
            num_keys: the most tokens that are fed behind the context, those that are dropped again included.
        """

    @abstractmethod
    def prefill_reserved(
        self, state: RowState, inputs_embeds: Tensor, attention_mask: Tensor, draft_ids: Tensor
    ) -> Tensor:
        """Reads a context into a reserved state, whatever that held before, and drafts behind it, as `prefill`.

        Args:
            state: of `reserve`; its `starts` are set by whoever feeds.
            inputs_embeds: (B, C, L), padded on the left.
            attention_mask: (B, C), nonzero where a position is no padding.
            draft_ids: (B, S) tokens that are fed in the same pass; S may be 0.

        Returns:
            (B, 1 + S, V), as `prefill`.
        """

    @abstractmethod
    def decode(self, input_ids: Tensor, state: DecoderState) -> Tensor:
        """Feeds tokens.

        Args:
            input_ids: (B, S), the tokens that follow what `state` has read.
            state: is moved on by S tokens.

        Returns:
            The logits of the token after each of them, (B, S, V).
        """

    @abstractmethod
    def target_hidden(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        """Teacher forcing: one pass over context and target; differentiable.

        Args:
            inputs_embeds: (B, C, L), padded on the left.
            attention_mask: (B, C), nonzero where a position is no padding.
            target_ids: (B, S), padded on the right; padding does not change what comes before it.

        Returns:
            What the head reads, (B, S, L): position i predicts `target_ids[:, i]`.
        """

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        """Returns the logits of `target_hidden`, (B, S, V)."""
        return self.lm_head(self.target_hidden(inputs_embeds, attention_mask, target_ids))

    def summed_nll(
        self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor, lengths: Sequence[int]
    ) -> Tensor:
        """Returns the negative log-likelihood of all targets, summed, in nats, float32; differentiable once.

        The logits of a few positions are there at once, and none of padding.

        Args:
            inputs_embeds: (B, C, L), padded on the left.
            attention_mask: (B, C), nonzero where a position is no padding.
            target_ids: (B, S), padded on the right.
            lengths: how many of each row's targets are no padding.
        """
        width = target_ids.shape[1]
        # Counted, not looked up in a mask, and before the pass: to copy them, or to ask a GPU which positions count,
        # waits for all that it has to do.
        places = [row * width + place for row, length in enumerate(lengths) for place in range(length)]
        positions = torch.tensor(places).to(target_ids.device)
        hidden = self.target_hidden(inputs_embeds, attention_mask, target_ids)
        read = hidden.flatten(0, 1).index_select(0, positions)
        return cross_entropy_sum(self.lm_head, read, target_ids.flatten()[positions])


class RMSNorm(Part):
    """Scales to unit root mean square (Zhang and Sennrich, 2019), computed in float32; no mean, no bias."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def ready(self) -> Callable[..., Tensor]:
        weight, eps = self.weight, self.eps

        def norm(hidden: Tensor) -> Tensor:
            if hidden.dtype == torch.float32:
                return torch.rms_norm(hidden, weight.shape, weight, eps)
            wide = hidden.float()
            normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
            return weight * normed.to(weight.dtype)  # rounded before the product, as transformers does it

        return norm


class Head(nn.Linear):
    """The layer that gives every token of the vocabulary its logit: the widest by far.

    Writing feeds few positions at once. MKL multiplies a matrix of 32,000 rows by few columns in half the time that it
    takes for the same product the other way round (width 512, 2 to 8 positions: 4.6 to 8.1 against 11 to 13 ms on two
    cores of an EPYC 7003, torch 2.13), and by one column in one thread only.
    """

    def forward(self, input: Tensor) -> Tensor:
        keeper = prepacked(self)
        product = None if keeper is None else keeper.product(input, self.weight, self.bias)
        if product is not None:
            return product
        num_positions = input.numel() // self.in_features
        is_plain = type(self.weight) is nn.Parameter and input.device.type == "cpu" and input.dtype == torch.float32
        if not is_plain or self.weight.numel() < _TALL or num_positions > _FEW:
            return super().forward(input)
        columns = input.reshape(num_positions, self.in_features)
        if num_positions == 1 and torch.get_num_threads() > 1:
            columns = columns.repeat(2, 1)
        logits = torch.mm(self.weight, columns.t())[:, :num_positions]
        return logits.t().contiguous().view(*input.shape[:-1], self.out_features)


def cross_entropy_sum(head: Head, hidden: Tensor, target_ids: Tensor) -> Tensor:
    """Returns the cross-entropy of a head's logits, summed, in nats, float32; chunk by chunk.

    torch documents one of its own, `linear_cross_entropy`, from 2.13 on. On a CPU that takes 3 to 9 times as long (400
    and 2,000 positions, width 512, 32,128 words: 2.5 and 3.9 s, here 0.3 and 1.1 s on two cores, torch 2.13).

    Args:
        head: makes logits, (N, V).
        hidden: what it reads, (N, L).
        target_ids: (N,).
    """
    if torch.is_grad_enabled() and hidden.requires_grad and not head.weight.requires_grad:
        return cast(Tensor, _FrozenHeadLoss.apply(hidden, head, target_ids))  # type: ignore[no-untyped-call]
    total = torch.zeros((), device=hidden.device)
    for part, ids in zip(torch.split(hidden, LOSS_CHUNK), torch.split(target_ids, LOSS_CHUNK), strict=True):
        total = total + F.cross_entropy(head(part).float(), ids, reduction="sum")
    return total


class _FrozenHeadLoss(torch.autograd.Function):
    """The loss of a head that does not learn: the gradient of what it reads is computed with it, no logits are kept.

    Source: Liger Kernel (Hsu et al., 2024), fused linear cross-entropy.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Head, target_ids: Tensor) -> Tensor:
        total = torch.zeros((), device=hidden.device)
        gradients = []
        for part, ids in zip(
            torch.split(hidden.detach(), LOSS_CHUNK), torch.split(target_ids, LOSS_CHUNK), strict=True
        ):
            log_probs = head(part).float().log_softmax(-1)  # (N, V)
            of_targets = ids[:, None]
            total -= log_probs.gather(1, of_targets).sum()
            # The gradient of the logits: p, and p - 1 at the target.
            slopes = log_probs.exp_().scatter_add_(1, of_targets, log_probs.new_full(of_targets.shape, -1.0))
            gradients.append((slopes.to(part.dtype) @ head.weight).float())
        ctx.save_for_backward(torch.cat(gradients))
        ctx.dtype = hidden.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * slope).to(ctx.dtype), None, None


def checkpointed(blocks: Iterable[Block]) -> list[Block]:
    """Returns what runs each block and keeps only its inputs: activations are computed anew in the backward pass.

    Memory then grows by what goes into a block instead of all that happens in it; the price is a second forward pass,
    which draws the random numbers of the first one, so that a dropout drops the same. No cache among the blocks'
    inputs may be filled by that second run. Source: Training Deep Nets with Sublinear Memory Cost (Chen et al., 2016).
    """
    return [partial(checkpoint, block, use_reentrant=False) for block in blocks]
