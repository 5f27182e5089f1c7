"""The architecture of an InstructBLIP model, read from a transformers `config.json`.

Field names and defaults are transformers' (its files leave out what equals a default), so that any InstructBLIP
folder's configuration is understood; a setting that we do not implement is refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from vlinstruct.backends.instructblip.text_config import (
    LlamaConfig,
    T5Config,
    TextConfig,
    known_fields,
    text_config_class,
)
from vlinstruct.errors import CheckpointError
from vlinstruct.weights.memory import Quantizable

__all__ = ["InstructBlipConfig", "LlamaConfig", "QFormerConfig", "T5Config", "TextConfig", "VisionConfig"]


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
class InstructBlipConfig:
    """A whole model.

    Args:
        vision_config: the image encoder.
        qformer_config: the Q-Former.
        text_config: the language model, T5 or Llama.
        num_query_tokens: learned queries Q; old hub snapshots leave it out and mean 32.
        image_token_index: the placeholder's id in transformers' inputs; never typed by a user.
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
        text_config = text_config_class(text.get("model_type"))
        if text_config is None:
            raise CheckpointError(
                f"unsupported language model {text.get('model_type')!r} in config.json: supported are t5 and llama."
            )
        return cls(
            vision_config=VisionConfig(**known_fields(VisionConfig, values.get("vision_config") or {})),
            qformer_config=QFormerConfig(**known_fields(QFormerConfig, values.get("qformer_config") or {})),
            text_config=text_config.from_dict(text),
            num_query_tokens=values.get("num_query_tokens") or 32,
            image_token_index=values.get("image_token_index", values.get("image_token_id")),
        )

    @property
    def quantizable(self) -> Quantizable:
        """The layers that 8 and 4 bits store: those of the language model's blocks."""
        text = self.text_config
        return Quantizable(part="language_model", kept=text.unquantized, kept_in_8bit=text.unquantized_8bit)

    def num_prefix_tokens(self, *, use_ema: bool) -> int:
        """Returns how many positions an image takes in front of a prompt: Q, or 2Q where CMAA's U_mm follows."""
        return self.num_query_tokens * (2 if use_ema else 1)

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of a `config.json` that transformers reads as the same model."""
        parts: dict[str, VisionConfig | QFormerConfig | TextConfig] = {
            "vision": self.vision_config,
            "qformer": self.qformer_config,
            "text": self.text_config,
        }
        nested = {f"{name}_config": {"model_type": part.model_type, **asdict(part)} for name, part in parts.items()}
        # The one fact that transformers keeps twice; read from the tower, so that the two cannot disagree.
        nested["qformer_config"]["encoder_hidden_size"] = self.vision_config.hidden_size
        return {
            "architectures": ["InstructBlipForConditionalGeneration"],
            "model_type": "instructblip",
            "is_encoder_decoder": self.text_config.is_encoder_decoder,
            "num_query_tokens": self.num_query_tokens,
            "image_token_index": self.image_token_index,
            **nested,
        }
