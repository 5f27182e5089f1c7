"""The architecture of an InstructBLIP model, read from a transformers `config.json`.

Field names and defaults are transformers' (its files leave out what equals a default), so that any InstructBLIP
folder's configuration is understood; a setting that we do not implement is refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from vlinstruct.errors import CheckpointError


def _known_fields(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in values.items() if name in names and value is not None}


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The vision tower: a ViT without its last block (EVA-CLIP ViT-g/14 in the paper's models)."""

    model_type: ClassVar[str] = "instructblip_vision_model"

    hidden_size: int = 1408
    intermediate_size: int = 6144
    num_hidden_layers: int = 39
    num_attention_heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True

    @property
    def num_positions(self) -> int:
        """Patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True, kw_only=True)
class QFormerConfig:
    """The Q-Former: a BERT whose learned queries attend to the image in every `cross_attention_frequency`-th layer."""

    model_type: ClassVar[str] = "instructblip_qformer"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    cross_attention_frequency: int = 2


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """An encoder-decoder language model (FlanT5).

    Args:
        feed_forward_proj: `gated-gelu` means the tanh approximation unless `dense_act_fn` says otherwise.
        dense_act_fn: InstructBLIP's FlanT5 was trained with the exact `gelu`.
        tie_word_embeddings: whether the decoder's output is scaled by d_model^-0.5 (the first T5; FlanT5 is not).
    """

    model_type: ClassVar[str] = "t5"
    is_encoder_decoder: ClassVar[bool] = True

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
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0

    @property
    def hidden_size(self) -> int:
        """Width of the embeddings."""
        return self.d_model

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads transformers' T5 configuration, where the activation follows from `feed_forward_proj`."""
        known = _known_fields(cls, values)
        projection = str(known.get("feed_forward_proj", "relu"))
        implied = "gelu_new" if projection == "gated-gelu" else projection.removeprefix("gated-")
        known.setdefault("dense_act_fn", implied)
        known.setdefault("num_decoder_layers", known.get("num_layers", cls.num_layers))
        return cls(**known)


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """A decoder-only language model (Vicuna)."""

    model_type: ClassVar[str] = "llama"
    is_encoder_decoder: ClassVar[bool] = False

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
    bos_token_id: int = 1
    eos_token_id: int = 2

    @property
    def key_value_heads(self) -> int:
        """Heads of the keys and values; fewer than the queries' under grouped-query attention."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads transformers' Llama configuration, old (`rope_theta`) or new (`rope_parameters`)."""
        known = _known_fields(cls, values)
        rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise CheckpointError(
                f"unsupported rope_type in text_config: {rope}", advice="Only the default is implemented."
            )
        known.setdefault("rope_theta", rope.get("rope_theta", cls.rope_theta))
        return cls(**known)


TextConfig = T5Config | LlamaConfig
_TEXT_CONFIGS: dict[str, type[T5Config] | type[LlamaConfig]] = {"t5": T5Config, "llama": LlamaConfig}


@dataclass(frozen=True, kw_only=True)
class InstructBlipConfig:
    """A whole model.

    Args:
        vision_config: the image encoder.
        qformer_config: the Q-Former.
        text_config: the language model, T5 or Llama.
        num_query_tokens: learned queries Q; old hub snapshots leave it out and mean 32.
        image_token_index: the placeholder's id in transformers' inputs; never typed by a user (FIELD.md).
    """

    vision_config: VisionConfig
    qformer_config: QFormerConfig
    text_config: TextConfig
    num_query_tokens: int = 32
    image_token_index: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads a transformers `config.json`.

        Raises:
            CheckpointError: it is no InstructBLIP, its language model is neither T5 nor Llama, or a part is missing.
        """
        if values.get("model_type") != "instructblip":
            raise CheckpointError(
                f"not an InstructBLIP model: config.json has model_type {values.get('model_type')!r}",
                advice="Give a folder of the InstructBLIP family.",
            )
        text = values.get("text_config") or {}
        if text.get("model_type") not in _TEXT_CONFIGS:
            raise CheckpointError(
                f"unsupported language model {text.get('model_type')!r} in config.json: only t5 and llama are known."
            )
        return cls(
            vision_config=VisionConfig(**_known_fields(VisionConfig, values.get("vision_config") or {})),
            qformer_config=QFormerConfig(**_known_fields(QFormerConfig, values.get("qformer_config") or {})),
            text_config=_TEXT_CONFIGS[text["model_type"]].from_dict(text),
            num_query_tokens=values.get("num_query_tokens") or 32,
            image_token_index=values.get("image_token_index", values.get("image_token_id")),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of a `config.json` that transformers reads as the same model."""
        parts: dict[str, VisionConfig | QFormerConfig | TextConfig] = {
            "vision": self.vision_config,
            "qformer": self.qformer_config,
            "text": self.text_config,
        }
        nested = {f"{name}_config": {"model_type": part.model_type, **asdict(part)} for name, part in parts.items()}
        nested["qformer_config"]["encoder_hidden_size"] = self.vision_config.hidden_size
        return {
            "architectures": ["InstructBlipForConditionalGeneration"],
            "model_type": "instructblip",
            "is_encoder_decoder": self.text_config.is_encoder_decoder,
            "num_query_tokens": self.num_query_tokens,
            "image_token_index": self.image_token_index,
            **nested,
        }
