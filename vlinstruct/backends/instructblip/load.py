"""An InstructBLIP folder in transformers' format becomes an InstructBlipBackend; nothing is dropped silently.

The module is built on the meta device, where it takes no memory, and the files' tensors become its parameters: no
second copy of the weights ever exists. On a CPU they are views of the mapped files, so that loading in the files' own
dtype takes 0.2 % of the weights' size beside them. Missing and unexpected tensors are refused together: the authors'
code loads with `strict=False` everywhere and says nothing of what did not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vlinstruct.backends.instructblip.attention import prefer_kernels_for_all_shapes
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.encoder import resized_positions
from vlinstruct.backends.instructblip.familiarity import read as read_familiarity
from vlinstruct.backends.instructblip.image_processor import read_image_processor
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.instructblip.prepacked import allow_prepacking
from vlinstruct.backends.instructblip.tokenization import QFormerTokenizer, load_tokenizer, read_tokenizer
from vlinstruct.backends.machine import keep_freed_memory
from vlinstruct.backends.registry import identity_of
from vlinstruct.errors import CheckpointError, InputError
from vlinstruct.settings import Quantization
from vlinstruct.values import Identity
from vlinstruct.weights.placement import Placement, add_transfers
from vlinstruct.weights.quantization import quantized_linear, replace_linears
from vlinstruct.weights.safetensors_files import shards, tensors

# Other names of a table that T5's encoder and decoder share; a file has one of them or all.
_SHARED = "language_model.shared.weight"
_COPIES = ("language_model.encoder.embed_tokens.weight", "language_model.decoder.embed_tokens.weight")
# Constants that some transformers versions wrote beside the parameters: 0, 1, 2, ... and Llama's frequencies.
_CONSTANTS = ("qformer.embeddings.position_ids", ".rotary_emb.inv_freq")
_HEAD = "language_model.lm_head.weight"
_POSITIONS = "vision_model.embeddings.position_embedding"


class Shaped(Protocol):
    """What has a shape: a tensor, or a weight that is still in its file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size in every dimension."""
        ...


def is_constant(name: str) -> bool:
    """Says whether a tensor of a file follows from config.json; it is not loaded."""
    return name.endswith(_CONSTANTS)


def original_name(name: str) -> str:
    """Returns the name of the parameter that a tensor of a file is, or is a copy of."""
    return _SHARED if name in _COPIES else name


def require_same_table(table: Tensor, copy: Tensor, name: str) -> None:
    """Refuses a table that its file holds twice with different numbers: which of the two counts would be a guess.

    Raises:
        CheckpointError: they differ.
    """
    if table.shape != copy.shape or not torch.equal(table, copy):
        raise CheckpointError(
            f"{name} is not {_SHARED}, of which it should be a copy",
            advice="Take config.json and weights of one model.",
        )


def vocabulary_tables(config: InstructBlipConfig) -> tuple[str, str]:
    """Returns the names of the language model's embedding and of its head."""
    return f"language_model.{config.text_config.embedding_name}", _HEAD


def optional_tensors(config: InstructBlipConfig) -> tuple[str, ...]:
    """Returns the tensors that a folder's files may leave out: the head of a tied model, which is its embedding."""
    return (_HEAD,) if config.text_config.tie_word_embeddings else ()


def load_model(
    backbone: Identity | Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: Quantization | None = None,
    placement: Placement | None = None,
    image_size: int | None = None,
) -> InstructBlipBackend:
    """Loads a folder.

    Args:
        backbone: a folder with config.json, safetensors (one file or shards), tokenizer.json and qformer_tokenizer/, or
            what `find` found for one.
        device: where the model will compute.
        dtype: what it will compute in; the files may hold another floating type.
        quantize: how the language model is stored.
        placement: where its layers lie, if not all on the device.
        image_size: side in pixels that pictures are read at, its positions interpolated; the model's own if None.

    Raises:
        CheckpointError: something is missing, damaged, of another shape or not an InstructBLIP.
        InputError: its language model overflows in that dtype.
    """
    identity = backbone if isinstance(backbone, Identity) else identity_of(backbone)
    folder, config = identity.folder, InstructBlipConfig.from_dict(identity.config)
    assert folder is not None  # a server is another backend's
    require_wide_dtype(config, dtype)
    if image_size is not None:
        config = replace(config, vision_config=config.vision_config.with_image_size(image_size))
    model = _load_weights(config, folder, placement or Placement(main=device), dtype, quantize, image_size)
    model.use_ema = identity.config.get("use_ema") is True  # only a folder that an adapter was merged into says so
    return InstructBlipBackend(
        model,
        image_processor=read_image_processor(folder, config, image_size),
        tokenizer=load_tokenizer(folder, config.text_config),
        qformer_tokenizer=QFormerTokenizer(
            read_tokenizer(folder / "qformer_tokenizer"), max_length=config.qformer_config.max_position_embeddings
        ),
        identity=identity,
        # Of pictures at the model's own size.
        familiarity=read_familiarity(folder, config.vision_config.hidden_size) if image_size is None else None,
    )


def require_wide_dtype(config: InstructBlipConfig, dtype: torch.dtype) -> None:
    """Refuses float16 for a language model that overflows in it.

    Raises:
        InputError: it does.
    """
    if dtype == torch.float16 and config.text_config.overflows_in_float16:
        why = f"{config.text_config.kind} language models overflow in float16"
        raise InputError.at("cannot use --dtype", "float16", why, "Use bfloat16 or float32")


class _WithoutInitialisation(TorchFunctionMode):
    """Skips `torch.nn.init`: random numbers on the meta device would import torch's compiler, which takes a second."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), keywords: Mapping[str, Any] | None = None
    ) -> Any:
        keywords = keywords or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return keywords["tensor"] if "tensor" in keywords else arguments[0]
        return function(*arguments, **keywords)


def empty_model(config: InstructBlipConfig) -> InstructBlip:
    """Builds the module on the meta device: shapes and names, no memory."""
    with torch.device("meta"), _WithoutInitialisation():
        return InstructBlip(config)


def _load_weights(
    config: InstructBlipConfig,
    folder: Path,
    placement: Placement,
    dtype: torch.dtype,
    quantize: Quantization | None,
    image_size: int | None,
) -> InstructBlip:
    if placement.main.type == "cuda":
        prefer_kernels_for_all_shapes()
    else:
        keep_freed_memory()
    model = empty_model(config)
    expected = model.state_dict()
    layers: dict[str, nn.Module] = {}
    state: dict[str, Tensor] = {}
    for stored_name, tensor in _stored_tensors(folder, placement):
        name = original_name(stored_name)
        if name in state and stored_name in (_SHARED, *_COPIES):
            require_same_table(state[name], _floating(name, tensor).to(dtype), stored_name)
            continue
        # Quantized one by one as they are read: the language model never lies in memory at full size.
        if quantize is not None and name in expected and config.quantizable.includes(name, tensor.shape, quantize):
            layers[name.removesuffix(".weight")] = quantized_linear(
                _floating(name, tensor), quantize, device=placement.main, dtype=dtype
            )
            state[name] = torch.empty(tensor.shape, device="meta")  # for the comparison of names and shapes below
        else:
            state[name] = _floating(name, tensor).to(dtype)
            if name == _POSITIONS and image_size is not None and tensor.dim() == 3:
                state[name] = resized_positions(state[name], config.vision_config.num_patches)
    embedding, head = vocabulary_tables(config)
    if head not in state and head in optional_tensors(config) and embedding in state:
        state[head] = state[embedding]
    require_same_tensors(state, expected, str(folder))
    model.load_state_dict(state, assign=True)
    replace_linears(model, layers)
    if placement.elsewhere or placement.offloaded:
        add_transfers(model, placement)
    model.requires_grad_(False).eval()
    allow_prepacking(model)
    return model


def _stored_tensors(folder: Path, placement: Placement) -> Iterator[tuple[str, Tensor]]:
    """Yields what the files hold, on the devices where it will lie; on the CPU as views of the mapped files."""
    is_spread = bool(placement.elsewhere or placement.offloaded)
    for path in shards(folder):
        for name, tensor in tensors(path, "cpu" if is_spread else str(placement.main)):
            if not is_constant(name):
                yield name, tensor.to(placement.device_of(name)) if is_spread else tensor


def _floating(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise CheckpointError(f"tensor {name} holds {tensor.dtype}: weights must be floating point numbers.")
    return tensor


def require_same_tensors(got: Mapping[str, Shaped], expected: Mapping[str, Shaped], where: str) -> None:
    """Refuses missing, unexpected and wrongly shaped tensors, all of them together.

    Raises:
        CheckpointError: with the first five of each kind and their count.
    """
    shapes = [
        f"{name} {tuple(got[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in got and got[name].shape != tensor.shape
    ]
    missing = [name for name in expected if name not in got]
    unexpected = [name for name in got if name not in expected]
    kinds = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}
    problems = [f"{len(names)} {kind} ({', '.join(names[:5])})" for kind, names in kinds.items() if names]
    if problems:
        raise CheckpointError(f"tensors do not fit the configuration in {where}: {'; '.join(problems)}.")
