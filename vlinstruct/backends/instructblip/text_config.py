"""What a kind of language model is, said by itself: T5's and Llama's settings, and the facts that follow from them.

Whoever needs to know whether prompts end with an end token, which layers LoRA adapts or how many bytes the cache takes
asks the configuration, never which of the two it is: a new kind of language model is a class here, its module beside
`t5.py` and `llama.py`, and an entry in `_TEXT_CONFIGS` and `network.py`. No torch: `config.json` is read before a
download.

Legend: C context positions (image prefix and prompt), S target positions, N positions of a decoder-only sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, Self

from vlinstruct.backends.instructblip.config_reading import part_fields, refuse, refuse_uneven, token_ids

_PLACE = "text_config"  # in config.json; what messages call it
_T5_MAX_TOKENS = 2_048  # its attention's memory grows with the square: 19,000 brackets of a hostile line took 14.5 GB
_T5_TRAINING_TOKENS = 512  # it has no last position, but no longer texts were in its training


class TextConfig(Protocol):
    """The facts that the rest of the package asks for.

    Attributes:
        kind: what people call it.
        model_type: transformers' name of it.
        is_encoder_decoder: whether the context goes through an encoder; else it is the beginning of the one sequence.
        prompt_has_eos: whether a prompt ends with the end token.
        overflows_in_float16: whether it must not compute in float16.
        embedding_name: of the table of input embeddings, within the language model.
        lora_targets: the layers that LoRA adapts unless told otherwise: attention's query and value, PEFT's choice.
        unquantized: parts of names whose matrices keep their precision in 8 and 4 bits.
        unquantized_8bit: those that keep it in 8 bits alone.
        added_tokens: what InstructBLIP adds to the language model's own tokenizer, in the order of their ids.
    """

    kind: ClassVar[str]
    model_type: ClassVar[str]
    is_encoder_decoder: ClassVar[bool]
    prompt_has_eos: ClassVar[bool]
    overflows_in_float16: ClassVar[bool]
    embedding_name: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]]
    unquantized: ClassVar[tuple[str, ...]]
    unquantized_8bit: ClassVar[tuple[str, ...]]
    added_tokens: ClassVar[tuple[str, ...]]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""

    @property
    def num_blocks(self) -> int:
        """Layers, those of both stacks."""

    @property
    def hidden_size(self) -> int:
        """Width of the embeddings."""

    @property
    def num_layers(self) -> int:
        """Blocks; of an encoder-decoder the encoder's."""

    @property
    def tie_word_embeddings(self) -> bool:
        """Whether a folder may leave out the head, which then is the embedding table."""

    @property
    def pad_token_id(self) -> int:
        """The id of padding."""

    @property
    def eos_token_id(self) -> int:
        """The id that ends a text, unless the tokenizer names another one."""

    @property
    def more_eos_token_ids(self) -> tuple[int, ...]:
        """Further ids that end what is written; a text to be scored never ends with one."""

    @property
    def bos_token_id(self) -> int | None:
        """The id in front of a prompt, unless the tokenizer names another one; None where there is none."""

    @property
    def decoder_start_token_id(self) -> int | None:
        """The id that a decoder starts from; None of a decoder-only model."""

    @property
    def gated_activation(self) -> str | None:
        """The activation where folders are known to name a wrong one (T5's gated feed-forward part); else None."""

    @property
    def max_positions(self) -> int | None:
        """The longest sequence, image and answer included; None where there is no last position."""

    @property
    def max_text_tokens(self) -> int:
        """The longest prompt or target that is read."""

    def prompt_room(self, num_prefix_tokens: int) -> int:
        """Returns how many tokens a prompt may have behind an image's; 0 or below where none fits."""

    def penalized_ids(self, prompt_ids: Sequence[int]) -> tuple[int, ...]:
        """Returns what a repetition penalty counts as written already: transformers' rule for each kind of model."""

    def cache_bytes(self, num_positions: int, itemsize: int) -> int:
        """Returns what keys and values of so many positions take, in every layer that decodes."""

    def activation_bytes(self, num_rows: int, context: int, itemsize: int) -> int:
        """Returns an estimate of what the widest layer keeps while it reads C positions in each row."""

    def kept_bytes(self, context: int, num_targets: int, itemsize: int) -> int:
        """Returns an estimate of what the layers of a row keep for the backward pass, their weights frozen."""

    def flops(self, context: int, num_targets: int) -> tuple[float, float]:
        """Returns the operations of one row's matrix products, forward and backward through frozen weights.

        A product of (m, k) and (k, n) counts 2mnk. Backward costs one more product per weight, for the gradients of its
        input, and two per attention product, both of whose sides have gradients.

        Args:
            context: C.
            num_targets: S; there are logits for these alone.
        """

    def computed_values(self) -> dict[str, Any]:
        """Returns the settings by name, those filled in that a folder may leave to others."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of a `text_config` that transformers reads as the same model."""


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """An encoder-decoder language model (FlanT5).

    Args:
        feed_forward_proj: `gated-gelu` means the tanh approximation unless `dense_act_fn` says otherwise.
        dense_act_fn: InstructBLIP's FlanT5 was trained with the exact `gelu`.
        tie_word_embeddings: whether a folder may leave out the head.
        scale_decoder_outputs: whether the decoder's output is scaled by d_model^-0.5 (the first T5; FlanT5 is not).
    """

    kind: ClassVar[str] = "T5"
    model_type: ClassVar[str] = "t5"
    is_encoder_decoder: ClassVar[bool] = True
    prompt_has_eos: ClassVar[bool] = True
    # Trained in bfloat16, whose range is float32's: FlanT5 in float16 writes "ssss" (huggingface/transformers#20287).
    overflows_in_float16: ClassVar[bool] = True
    embedding_name: ClassVar[str] = "shared.weight"
    lora_targets: ClassVar[tuple[str, ...]] = ("q", "v")
    unquantized: ClassVar[tuple[str, ...]] = ("shared", "embed_tokens", "lm_head", "relative_attention_bias")
    # What `wo` reads goes through float16 in 8 bits, and FlanT5's is too large for that (transformers'
    # `_keep_in_fp32_modules`).
    unquantized_8bit: ClassVar[tuple[str, ...]] = ("wo",)
    added_tokens: ClassVar[tuple[str, ...]] = ("<image>",)
    bos_token_id: ClassVar[None] = None
    max_positions: ClassVar[None] = None

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"
    dense_act_fn: str = "relu"
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool = True
    pad_token_id: int = 0
    eos_token_id: int = 1
    more_eos_token_ids: tuple[int, ...] = ()
    decoder_start_token_id: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads transformers' T5 configuration, where the activation follows from `feed_forward_proj`.

        Whether the output is scaled is `scale_decoder_outputs` in what transformers 5 has written, which calls every
        T5 tied; in older files, which lack the key, it is whether the T5 is tied.

        Raises:
            CheckpointError: it has a setting that we do not follow.
        """
        projection = str(values.get("feed_forward_proj") or cls.feed_forward_proj)
        fixed = {"is_gated_act": projection.startswith("gated-")}
        settings = part_fields(
            cls, _without(values, "eos_token_id"), _PLACE, fixed=fixed, without_effect=("bos_token_id",)
        )
        settings |= _end_ids(values)
        implied = "gelu_new" if projection == "gated-gelu" else projection.removeprefix("gated-")
        settings.setdefault("dense_act_fn", implied)
        settings.setdefault("num_decoder_layers", settings.get("num_layers", cls.num_layers))
        settings.setdefault("scale_decoder_outputs", settings.get("tie_word_embeddings", cls.tie_word_embeddings))
        return cls(**settings)

    @property
    def hidden_size(self) -> int:
        return self.d_model

    @property
    def max_text_tokens(self) -> int:
        return _T5_MAX_TOKENS

    @property
    def inner_size(self) -> int:
        """Width of all attention heads together; not always d_model's."""
        return self.num_heads * self.d_kv

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward part is version 1.1's, one half of which gates the other."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def gated_activation(self) -> str | None:
        return self.dense_act_fn if self.is_gated else None

    def prompt_room(self, num_prefix_tokens: int) -> int:
        return _T5_TRAINING_TOKENS

    def penalized_ids(self, prompt_ids: Sequence[int]) -> tuple[int, ...]:
        return (self.decoder_start_token_id,)  # the encoder's input is not among what the decoder has read

    @property
    def num_blocks(self) -> int:
        return self.num_layers + self.num_decoder_layers

    def cache_bytes(self, num_positions: int, itemsize: int) -> int:
        return 2 * self.num_decoder_layers * num_positions * self.inner_size * itemsize

    def activation_bytes(self, num_rows: int, context: int, itemsize: int) -> int:
        position_bias = context**2 * self.num_heads  # once for all rows
        return (num_rows * context * (4 * self.d_model + 3 * self.d_ff) + position_bias) * itemsize

    def kept_bytes(self, context: int, num_targets: int, itemsize: int) -> int:
        # What a product reads is not kept, since its weight is frozen; a norm keeps its input in float32, attention
        # queries, keys, values, result and its own copy of the bias, a gate both its factors and what was activated.
        norm, attention = 4 * self.d_model, 4 * self.inner_size * itemsize
        feed_forward = norm + (3 if self.is_gated else 1) * self.d_ff * itemsize
        encoder = context * (norm + attention + feed_forward) + context**2 * self.num_heads * itemsize
        cross = num_targets * (norm + attention // 2) + context * attention // 2
        cross += context * num_targets * self.num_heads * itemsize
        decoder = num_targets * (norm + attention + feed_forward) + num_targets**2 * self.num_heads * itemsize
        return self.num_layers * encoder + self.num_decoder_layers * (decoder + cross)

    def flops(self, context: int, num_targets: int) -> tuple[float, float]:
        encoder = _added(self._attention(context, context), self._feed_forward(context))
        self_attention, cross_attention = (
            self._attention(num_targets, num_targets),
            self._attention(num_targets, context),
        )
        decoder = _added(self_attention, cross_attention, self._feed_forward(num_targets))
        head = 2.0 * num_targets * self.d_model * self.vocab_size
        forward, backward = (
            self.num_layers * of_encoder + self.num_decoder_layers * of_decoder + head
            for of_encoder, of_decoder in zip(encoder, decoder, strict=True)
        )
        # No gradient reaches the first block's self-attention and queries: nothing before them has any to learn.
        query = 2.0 * num_targets * self.inner_size * (self.d_model + context)
        return forward, backward - self_attention[1] - query

    def _attention(self, num_queries: int, num_keys: int) -> tuple[float, float]:
        weights = 2.0 * (num_queries + num_keys) * self.d_model * 2 * self.inner_size
        return _weights_and_attention(weights, num_queries, num_keys, self.inner_size)

    def _feed_forward(self, num_positions: int) -> tuple[float, float]:
        forward = 2.0 * num_positions * self.d_model * (3 if self.is_gated else 2) * self.d_ff
        return forward, forward

    def computed_values(self) -> dict[str, Any]:
        return asdict(self)

    def to_dict(self) -> dict[str, Any]:
        return _with_end_list(asdict(self))


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """A decoder-only language model (Vicuna)."""

    kind: ClassVar[str] = "Llama"
    model_type: ClassVar[str] = "llama"
    is_encoder_decoder: ClassVar[bool] = False
    prompt_has_eos: ClassVar[bool] = False
    overflows_in_float16: ClassVar[bool] = False
    embedding_name: ClassVar[str] = "model.embed_tokens.weight"
    lora_targets: ClassVar[tuple[str, ...]] = ("q_proj", "v_proj")
    unquantized: ClassVar[tuple[str, ...]] = ("embed_tokens", "lm_head")
    unquantized_8bit: ClassVar[tuple[str, ...]] = ()
    added_tokens: ClassVar[tuple[str, ...]] = ("[PAD]", "<image>")
    decoder_start_token_id: ClassVar[None] = None
    gated_activation: ClassVar[None] = None

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    pad_token_id: int = 0
    bos_token_id: int | None = 1
    eos_token_id: int = 2
    more_eos_token_ids: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads transformers' Llama configuration, old (`rope_theta`) or new (`rope_parameters`, which wins).

        Raises:
            CheckpointError: it has a setting that we do not follow.
        """
        rest = _without(values, "eos_token_id", "rope_parameters", "rope_scaling")
        settings = part_fields(cls, rest, _PLACE, fixed={"partial_rotary_factor": 1}) | _end_ids(values)
        if (rope := values.get("rope_parameters") or values.get("rope_scaling")) is not None:
            fixed = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1}
            settings |= part_fields(_Rope, rope, f"{_PLACE}.rope_parameters", fixed=fixed)
        if token_ids(values.get("bos_token_id", cls.bos_token_id), f"{_PLACE}.bos_token_id") == ():
            settings["bos_token_id"] = None
        config = cls(**settings)
        if config.head_dim is None:
            refuse_uneven(config.hidden_size, config.num_attention_heads, _PLACE)
        if config.num_attention_heads % config.key_value_heads:
            why = f"num_key_value_heads is {config.key_value_heads}, which does not divide {config.num_attention_heads}"
            refuse([why], _PLACE)
        return config

    @property
    def key_value_heads(self) -> int:
        """Heads of the keys and values; fewer than the queries' under grouped-query attention."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def max_positions(self) -> int:
        return self.max_position_embeddings

    @property
    def max_text_tokens(self) -> int:
        return self.max_position_embeddings

    def prompt_room(self, num_prefix_tokens: int) -> int:
        return self.max_position_embeddings - num_prefix_tokens

    def penalized_ids(self, prompt_ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(prompt_ids)

    @property
    def num_blocks(self) -> int:
        return self.num_hidden_layers

    def cache_bytes(self, num_positions: int, itemsize: int) -> int:
        return 2 * self.num_hidden_layers * num_positions * self.key_value_heads * self.head_size * itemsize

    def activation_bytes(self, num_rows: int, context: int, itemsize: int) -> int:
        return num_rows * context * (4 * self.hidden_size + 3 * self.intermediate_size) * itemsize

    def kept_bytes(self, context: int, num_targets: int, itemsize: int) -> int:
        positions = context + num_targets
        norms, attention = 2 * 4 * self.hidden_size, 2 * (self.num_attention_heads + self.key_value_heads)
        layer = positions * (norms + (attention * self.head_size + 3 * self.intermediate_size) * itemsize)
        mask = positions**2 * itemsize  # of one head: all share it
        return self.num_hidden_layers * (layer + mask)

    def flops(self, context: int, num_targets: int) -> tuple[float, float]:
        positions, width = context + num_targets - 1, self.hidden_size  # N: the last target is not read
        inner = self.num_attention_heads * self.head_size
        columns = 2 * inner + 2 * self.key_value_heads * self.head_size + 3 * self.intermediate_size
        layer = _weights_and_attention(2.0 * positions * width * columns, positions, positions, inner)
        head = 2.0 * num_targets * width * self.vocab_size
        return self.num_hidden_layers * layer[0] + head, self.num_hidden_layers * layer[1] + head

    def computed_values(self) -> dict[str, Any]:
        return asdict(self) | {"num_key_value_heads": self.key_value_heads, "head_dim": self.head_size}

    def to_dict(self) -> dict[str, Any]:
        return _with_end_list(asdict(self))


_TEXT_CONFIGS: Mapping[object, type[T5Config] | type[LlamaConfig]] = {"t5": T5Config, "llama": LlamaConfig}


def text_config_class(model_type: object) -> type[T5Config] | type[LlamaConfig] | None:
    """Returns the class whose `from_dict` reads a text configuration with this `model_type`; None if there is none."""
    return _TEXT_CONFIGS.get(model_type) if isinstance(model_type, str) else None


@dataclass(frozen=True, kw_only=True)
class _Rope:
    """The one fact of Llama's default rotary positions; the other kinds scale them, which we do not compute."""

    rope_theta: float


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _end_ids(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `eos_token_id`, which is one id or, in later models of the hub, a list of them."""
    ids = token_ids(values.get("eos_token_id"), f"{_PLACE}.eos_token_id")
    return {"eos_token_id": ids[0], "more_eos_token_ids": ids[1:]} if ids else {}


def _with_end_list(settings: dict[str, Any]) -> dict[str, Any]:
    more = settings.pop("more_eos_token_ids")
    return {**settings, "eos_token_id": [settings["eos_token_id"], *more]} if more else settings


def _added(*parts: tuple[float, float]) -> tuple[float, float]:
    forward, backward = zip(*parts, strict=True)
    return sum(forward), sum(backward)


def _weights_and_attention(weights: float, num_queries: int, num_keys: int, width: int) -> tuple[float, float]:
    attention = 2 * 2.0 * num_queries * width * num_keys
    return weights + attention, weights + 2 * attention
