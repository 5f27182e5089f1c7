"""The architecture of an InstructBLIP model, read from a transformers `config.json`.

Field names and defaults are transformers' (its files leave out what equals a default), so that any InstructBLIP
folder's configuration is understood; a setting that we do not implement is refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

from vlinstruct.backends.instructblip.config_reading import as_mapping, part_fields, refuse_uneven
from vlinstruct.backends.instructblip.text_config import LlamaConfig, T5Config, TextConfig, text_config_class
from vlinstruct.errors import CheckpointError, InputError, shortened
from vlinstruct.weights.memory import Quantizable

__all__ = ["InstructBlipConfig", "LlamaConfig", "QFormerConfig", "T5Config", "TextConfig", "VisionConfig"]


_MAX_PATCHES = 64  # along a side: attention over 4,096 positions of ViT-g takes 1 GB a picture and layer
_SIDES = ("image_size", "patch_size")
_VISION = {"num_channels": 3}
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id")


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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads transformers' vision configuration, whose sizes may be two equal numbers.

        Raises:
            CheckpointError: it has a setting that we do not follow.
        """
        sides = {name: value[0] for name, value in values.items() if _is_square(value) and name in _SIDES}
        # `projection_dim` belongs to no layer of BLIP-2's tower, and a tower has no tokens.
        ignored = ("projection_dim", *_TOKEN_IDS)
        config = cls(**part_fields(cls, {**values, **sides}, "vision_config", fixed=_VISION, without_effect=ignored))
        refuse_uneven(config.hidden_size, config.num_attention_heads, "vision_config")
        return config

    @property
    def num_patches(self) -> int:
        """Patches along a side; pixels over whole patches are not seen."""
        return self.image_size // self.patch_size

    @property
    def num_positions(self) -> int:
        """Patches and the class token."""
        return self.num_patches**2 + 1

    def with_image_size(self, image_size: int) -> Self:
        """Returns the same tower for pictures of another size.

        Args:
            image_size: side in pixels.

        Raises:
            InputError: it is below a patch, or would take more positions than 4,096 patches.
        """
        if not self.patch_size <= image_size <= _MAX_PATCHES * self.patch_size:
            why = f"the tower cuts pictures into patches of {self.patch_size} pixels"
            advice = f"Take {self.patch_size} to {_MAX_PATCHES * self.patch_size}"
            raise InputError.at("cannot use --image-size", str(image_size), why, advice)
        return replace(self, image_size=image_size)


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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads transformers' Q-Former configuration.

        Raises:
            CheckpointError: it has a setting that we do not follow.
        """
        # transformers, too, takes the encoder's width from the tower; padding is masked, whatever its id.
        ignored = ("encoder_hidden_size", *_TOKEN_IDS)
        config = cls(**part_fields(cls, values, "qformer_config", without_effect=ignored))
        refuse_uneven(config.hidden_size, config.num_attention_heads, "qformer_config")
        return config


_PARTS = ("vision_config", "qformer_config", "text_config")


@dataclass(frozen=True, kw_only=True)
class _Top:
    """What `config.json` says beside its parts; `use_ema` is ours, of a folder that an adapter was merged into."""

    num_query_tokens: int
    image_token_index: int
    image_token_id: int
    use_ema: bool


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
        if (quantized := values.get("quantization_config")) is not None:
            raise _quantized(quantized)
        parts = {name: as_mapping(values.get(name) or {}, name) for name in _PARTS}
        rest = {name: value for name, value in values.items() if name not in _PARTS}
        # What the language model's own part says of both is what counts.
        derived = ("tie_word_embeddings", "use_decoder_only_language_model")
        top = part_fields(_Top, rest, "config.json", without_effect=derived)
        text = parts["text_config"]
        text_config = text_config_class(text.get("model_type"))
        if text_config is None:
            raise CheckpointError(
                f"unsupported language model {text.get('model_type')!r} in config.json: supported are t5 and llama."
            )
        return cls(
            vision_config=VisionConfig.from_dict(parts["vision_config"]),
            qformer_config=QFormerConfig.from_dict(parts["qformer_config"]),
            text_config=text_config.from_dict(text),
            num_query_tokens=top.get("num_query_tokens", cls.num_query_tokens),
            image_token_index=top.get("image_token_index", top.get("image_token_id")),
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
        vision, qformer, text = self.vision_config, self.qformer_config, self.text_config
        nested = {
            "vision_config": {"model_type": vision.model_type, **asdict(vision)},
            "qformer_config": {"model_type": qformer.model_type, **asdict(qformer)},
            "text_config": {"model_type": text.model_type, **text.to_dict()},
        }
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


def _is_square(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]


def _quantized(settings: object) -> CheckpointError:
    """Returns the error of a folder whose weights are packed in somebody's 8 or 4 bits."""
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    made_by = f" by {shortened(method, 30)}" if isinstance(method, str) else ""
    return CheckpointError(
        f"the folder's weights are quantized{made_by} (quantization_config in config.json)",
        advice="Load the model that it was made of, and quantize it here: --quantize 8bit or 4bit.",
    )
