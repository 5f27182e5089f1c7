"""Does a model of transformers fit: what it takes by its configuration, and the refusal of one that is too large.

Weights are counted on the meta device, or in the headers of a folder's files. Keys, values, activations and the
positions of a picture are estimated from the configuration.

Legend: B rows, C context positions (picture and prompt), S written tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
from torch import nn

from vlinstruct.backends.memory import Load, working_bytes
from vlinstruct.errors import CheckpointError, cause_of, shortened
from vlinstruct.settings import Quantization
from vlinstruct.values import Identity
from vlinstruct.weights.memory import WeightCount, require_memory, stored_shapes
from vlinstruct.weights.placement import free_bytes
from vlinstruct.weights.quantization import hushed

_SIDE = 1024  # of a photograph of a million pixels, where a picture's size decides how many positions it has
_PATCH = 14  # where a configuration has another name for it
_TILES = 17  # SmolVLM and Idefics3 enlarge a picture to four tiles a side, and add the whole of it


class TransformersNeeds:
    """What a model of transformers takes, by its configuration.

    Args:
        values: the content of its config.json.
        name: what messages call it.

    Raises:
        CheckpointError: transformers cannot build it.
    """

    overflows_in_float16 = False

    def __init__(self, values: Mapping[str, Any], *, name: str) -> None:
        self._name = name
        with hushed():
            from transformers import CONFIG_MAPPING, AutoConfig
        if values.get("model_type") not in CONFIG_MAPPING:
            raise self._refusal(f"this transformers knows no models of kind {values.get('model_type')}")
        try:
            # Without the part of Qwen2.5-Omni that talks, as it is loaded.
            config = AutoConfig.for_model(**values)
            self._config = getattr(config, "thinker_config", config)
            self._text = self._config.get_text_config(decoder=True)
        except Exception as error:  # whatever a damaged file makes it raise
            raise self._refusal(cause_of(error, 120)) from error
        for number in ("num_hidden_layers", "hidden_size", "vocab_size"):
            if not isinstance(_first(self._text, number), int):
                raise self._refusal(f"its language model has no {number}")

    @cached_property
    def weights(self) -> WeightCount:
        """Its numbers; those of the language model's linear layers, without its head, can be quantized."""
        try:
            with hushed(), torch.device("meta"):  # it imports the kind's module
                from transformers import AutoModelForMultimodalLM

                model = AutoModelForMultimodalLM.from_config(  # type: ignore[no-untyped-call]
                    self._config, trust_remote_code=False
                )
            decoder, head = model.get_decoder(), model.get_output_embeddings()
        except Exception as error:  # a kind that answers nothing, numbers that do not go together
            raise self._refusal(cause_of(error, 120)) from error
        parts: dict[str, int] = {}
        for name, weight in model.named_parameters():
            part = name.removeprefix("model.").partition(".")[0]
            parts[part] = parts.get(part, 0) + weight.numel()
        # T5's `wo`, which overflows: transformers leaves it as it is.
        kept = {name for part in decoder.modules() for name in getattr(part, "_keep_in_fp32_modules", None) or ()}
        layers = (
            module
            for name, module in decoder.named_modules()
            if isinstance(module, nn.Linear) and module is not head and name.rpartition(".")[2] not in kept
        )
        return WeightCount(parts=parts, quantizable=sum(layer.weight.numel() for layer in layers))

    @property
    def media_tokens(self) -> int:
        """The positions of one picture in front of a prompt; estimated where they depend on its size."""
        vision = _first(self._config, "vision_config")
        if vision is None or hasattr(self._text, "cross_attention_layers"):  # Mllama's have no positions in the text
            return 0
        fixed = _first(self._config, "mm_tokens_per_image", "vision_soft_tokens_per_image", "num_query_tokens")
        if fixed is not None:
            return int(fixed)
        # How many patches a side become one position.
        merged = _first(vision, "spatial_merge_size", "pooling_kernel_size")
        merged = merged or _first(self._config, "spatial_merge_size", "scale_factor", "downsample_factor")
        merged = merged or 1 / (_first(self._config, "downsample_ratio") or 1)
        return round(self._num_patches / merged**2)

    @property
    def _num_patches(self) -> int:
        """Returns how many patches of one picture the vision tower sees."""
        vision = self._config.vision_config
        side, patch = (_side(_first(vision, name)) for name in ("image_size", "patch_size"))
        if strides := _first(vision, "patch_stride"):  # Florence-2 makes patches of patches
            patch = math.prod(strides)
        # What reads clips in patches of several frames reads pictures at their own size; Pixtral's is the largest one.
        if side is None or hasattr(vision, "temporal_patch_size") or side > _SIDE:
            return (_SIDE // (patch or _PATCH)) ** 2
        num_tiles = 1
        if hasattr(self._config, "scale_factor"):
            num_tiles = _TILES
        elif any(hasattr(self._config, name) for name in ("image_grid_pinpoints", "downsample_ratio")):
            num_tiles = math.ceil(_SIDE / side) ** 2 + 1
        return int(num_tiles * (side // (patch or _PATCH)) ** 2)

    def cache_bytes(self, load: Load, itemsize: int) -> int:
        """Returns what keys and values take: of context and answer, in every layer whose cache grows with them."""
        text = self._text
        length = self.media_tokens + load.prompt_tokens + load.new_tokens
        kinds = list(_first(text, "layer_types") or ["full_attention"] * text.num_hidden_layers)
        # The last layers of Gemma 3n and 4 read the caches of others.
        kinds = kinds[: len(kinds) - (_first(text, "num_kv_shared_layers") or 0)]
        # Gemma 4's layers differ in more than their window; all others' have the numbers of the whole.
        layers = _first(text, "per_layer_config") or [text] * len(kinds)
        numbers = sum(
            self._positions(kind, length) * _key_width(layer)
            for kind, layer in zip(kinds, layers, strict=False)  # those that share their caches are left out
        )
        return 2 * load.rows * numbers * itemsize

    def _positions(self, kind: str, length: int) -> int:
        """Returns how many positions a layer keeps; linear attention has a state that does not grow."""
        if kind == "sliding_attention":
            return min(length, self._text.sliding_window or length)
        if kind == "chunked_attention":
            return min(length, self._text.attention_chunk_size or length)
        return length if kind == "full_attention" else 0

    def activation_bytes(self, load: Load, itemsize: int) -> int:
        """Returns what the widest layer keeps at once, the vision tower's or the language model's, and the logits."""
        text_positions = self.media_tokens + load.prompt_tokens
        text_bytes = load.rows * text_positions * _layer_width(self._text) * itemsize
        vision = _first(self._config, "vision_config")
        num_patches = 0 if vision is None else self._num_patches
        vision_bytes = load.rows * num_patches * _layer_width(vision) * itemsize
        logits_bytes = load.rows * self._text.vocab_size * (4 + itemsize)  # once more in float32
        return max(vision_bytes, text_bytes) + logits_bytes

    def _refusal(self, why: str) -> CheckpointError:
        why = shortened(why, 120)
        return CheckpointError.at("cannot plan memory", self._name, why, "Check its config.json")


def require_room(
    identity: Identity, device: torch.device, *, dtype: torch.dtype, quantize: Quantization | None
) -> None:
    """Refuses a model that does not fit, before a tensor of it is read.

    Args:
        identity: of its folder.
        device: where it computes.
        dtype: what it computes in.
        quantize: how the language model's linear layers are stored.

    Raises:
        ResourceError: it does not fit; says what would make it fit.
        CheckpointError: a file is missing or damaged.
    """
    folder = identity.folder
    assert folder is not None  # a server is another backend's
    if "quantization_config" in identity.config:  # its tensors hold several numbers in one
        return
    total, available = sum(math.prod(shape) for _, shape in stored_shapes(folder)), free_bytes(device)
    try:
        needs = TransformersNeeds(identity.config, name=identity.name)
        working = working_bytes(needs, Load(), dtype.itemsize)
        if quantize is None and (available is None or total * dtype.itemsize + working <= available):
            return
        weights = WeightCount(parts={"model": total}, quantizable=needs.weights.quantizable)
    except (CheckpointError, AttributeError, TypeError):
        # An estimate of a kind that has names of its own must not keep it from loading.
        return
    require_memory(
        weights, identity.name, itemsize=dtype.itemsize, quantize=quantize, available=available, working=working
    )


def _key_width(layer: Any) -> int:
    """Returns the numbers of a position's keys in a layer."""
    width = _first(layer, "head_dim", "d_kv") or layer.hidden_size // layer.num_attention_heads
    return int(_first(layer, "num_key_value_heads", "num_attention_heads") * width)


def _layer_width(config: Any) -> int:
    """Returns how many numbers of a position a layer keeps at once: four of its width, two of its feed-forward's."""
    width = _widest(_first(config, "hidden_size", "embed_dim") or 0)
    return 4 * width + 2 * _widest(_first(config, "intermediate_size", "ffn_dim", "encoder_ffn_dim") or 4 * width)


def _widest(size: Any) -> int:
    return int(max(size) if isinstance(size, list | tuple) else size)


def _first(config: Any, *names: str) -> Any:
    """Returns the first of these settings that a configuration has as a whole."""
    for name in names:
        with suppress(RuntimeError):  # it differs from layer to layer
            if (value := getattr(config, name, None)) is not None:
                return value
    return None


def _side(size: Any) -> int | None:
    return int(size[0] if isinstance(size, list | tuple) else size) if size is not None else None
