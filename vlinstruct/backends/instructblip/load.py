"""An InstructBLIP folder in transformers' format becomes an InstructBlipBackend; nothing is dropped silently.

The module is built on the meta device, where it takes no memory, and the files' tensors become its parameters: no
second copy of the weights ever exists. On a CPU they are views of the mapped files, so that loading in the files' own
dtype takes 0.2 % of the weights' size beside them. Missing and unexpected tensors are refused together: the authors'
code loads with `strict=False` everywhere and says nothing of what did not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vlinstruct.backends.instructblip.attention import prefer_kernels_for_all_shapes
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.image_processor import ImageProcessor
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.instructblip.tokenization import QFormerTokenizer, TextTokenizer, special_token
from vlinstruct.backends.registry import identity_of
from vlinstruct.errors import CheckpointError, InputError
from vlinstruct.files import read_json_object
from vlinstruct.settings import Quantization
from vlinstruct.values import Identity
from vlinstruct.weights.placement import Placement, add_transfers
from vlinstruct.weights.quantization import quantized_linear, replace_linears
from vlinstruct.weights.safetensors_files import shards, tensors

# Copies of `language_model.shared.weight` and constants that some transformers versions wrote beside the parameters.
_REDUNDANT = (
    "language_model.encoder.embed_tokens.weight",
    "language_model.decoder.embed_tokens.weight",
    "qformer.embeddings.position_ids",
)
_HEAD = "language_model.lm_head.weight"


class Shaped(Protocol):
    """What has a shape: a tensor, or a weight that is still in its file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size in every dimension."""
        ...


def is_redundant(name: str) -> bool:
    """Says whether a tensor of a file repeats another one or is a constant; it is not loaded."""
    return name in _REDUNDANT


def vocabulary_tables(config: InstructBlipConfig) -> tuple[str, str]:
    """Returns the names of the language model's embedding and of its head; a missing head is the embedding."""
    return f"language_model.{config.text_config.embedding_name}", _HEAD


def load_model(
    backbone: Identity | Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: Quantization | None = None,
    placement: Placement | None = None,
) -> InstructBlipBackend:
    """Loads a folder.

    Args:
        backbone: a folder with config.json, safetensors (one file or shards), tokenizer.json and qformer_tokenizer/, or
            what `find` found for one.
        device: where the model will compute.
        dtype: what it will compute in; the files may hold another floating type.
        quantize: how the language model is stored.
        placement: where its layers lie, if not all on the device.

    Raises:
        CheckpointError: something is missing, damaged, of another shape or not an InstructBLIP.
        InputError: its language model overflows in that dtype.
    """
    identity = backbone if isinstance(backbone, Identity) else identity_of(backbone)
    folder, config = identity.folder, InstructBlipConfig.from_dict(identity.config)
    assert folder is not None  # a server is another backend's
    require_wide_dtype(config, dtype)
    model = _load_weights(config, folder, placement or Placement(main=device), dtype, quantize)
    model.use_ema = identity.config.get("use_ema") is True  # only a folder that an adapter was merged into says so
    preprocessor = folder / "preprocessor_config.json"  # may be missing: the family's values are the default
    image_values = read_json_object(preprocessor) if preprocessor.exists() else {}
    return InstructBlipBackend(
        model,
        image_processor=ImageProcessor.from_dict(image_values, config.vision_config.image_size),
        tokenizer=_load_tokenizer(folder, config),
        qformer_tokenizer=QFormerTokenizer(
            read_tokenizer(folder / "qformer_tokenizer"), max_length=config.qformer_config.max_position_embeddings
        ),
        identity=identity,
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
) -> InstructBlip:
    if placement.main.type == "cuda":
        prefer_kernels_for_all_shapes()
    model = empty_model(config)
    expected = model.state_dict()
    layers: dict[str, nn.Module] = {}
    state: dict[str, Tensor] = {}
    for name, tensor in _stored_tensors(folder, placement):
        # Quantized one by one as they are read: the language model never lies in memory at full size.
        if quantize is not None and name in expected and config.quantizable.includes(name, tensor.shape, quantize):
            layers[name.removesuffix(".weight")] = quantized_linear(
                _floating(name, tensor), quantize, device=placement.main, dtype=dtype
            )
            state[name] = torch.empty(tensor.shape, device="meta")  # for the comparison of names and shapes below
        else:
            state[name] = _floating(name, tensor).to(dtype)
    if _HEAD not in state:  # files of a tied model leave it out
        state[_HEAD] = state.get(vocabulary_tables(config)[0], torch.empty(0))
    require_same_tensors(state, expected, str(folder))
    model.load_state_dict(state, assign=True)
    replace_linears(model, layers)
    if placement.elsewhere or placement.offloaded:
        add_transfers(model, placement)
    return model.requires_grad_(False).eval()


def _stored_tensors(folder: Path, placement: Placement) -> Iterator[tuple[str, Tensor]]:
    """Yields what the files hold, on the devices where it will lie; on the CPU as views of the mapped files."""
    is_spread = bool(placement.elsewhere or placement.offloaded)
    for path in shards(folder):
        for name, tensor in tensors(path, "cpu" if is_spread else str(placement.main)):
            if name not in _REDUNDANT:
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


def _load_tokenizer(folder: Path, config: InstructBlipConfig) -> TextTokenizer:
    text_config, tokenizer = config.text_config, read_tokenizer(folder)
    # Fewer is no mistake: tables are padded, FlanT5's from 32101 to 32128 rows.
    if tokenizer.get_vocab_size() > text_config.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {folder} has {tokenizer.get_vocab_size()} tokens, the language model "
            f"{text_config.vocab_size}: they do not belong together."
        )
    bos_id = text_config.bos_token_id
    if bos_id is not None:
        # The tokenizer's own beginning token wins: InstructBLIP's Vicuna was trained with `</s>` there (LAVIS).
        name = special_token(folder, "bos_token")
        named_id = None if name is None else tokenizer.token_to_id(name)
        bos_id = bos_id if named_id is None else int(named_id)
    return TextTokenizer(
        tokenizer, bos_id=bos_id, eos_id=text_config.eos_token_id, prompt_has_eos=text_config.prompt_has_eos
    )


def read_tokenizer(folder: Path) -> Tokenizer:
    """Reads a folder's tokenizer.json; where there is only an old file, transformers converts it.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        if not any((folder / name).exists() for name in ("tokenizer.model", "spiece.model", "vocab.txt")):
            raise CheckpointError(f"tokenizer.json is missing in {folder}", advice="Give a complete model folder.")
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, use_fast=True, local_files_only=True).backend_tokenizer
    read_json_object(path)  # the library's own messages do not name the file
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path} is not a tokenizer that this version can read: {error}.") from error
