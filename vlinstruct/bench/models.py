"""A backbone loaded twice, as ours and as transformers' model: from its folder, or its shapes with random weights.

Random weights show a backbone's speed and memory without a download. InstructBLIP's tokenizers are mini's then, whose
ids every vocabulary has; what is written is laid down anyway. Other models are built once, for all arms.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vlinstruct.backends.instructblip.attention import prefer_kernels_for_all_shapes
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.image_processor import ImageProcessor
from vlinstruct.backends.instructblip.load import empty_model
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.backends.instructblip.prepacked import allow_prepacking, is_prepacked
from vlinstruct.backends.instructblip.tokenization import QFormerTokenizer, TextTokenizer, read_tokenizer
from vlinstruct.backends.machine import compute_device, compute_dtype, keep_freed_memory
from vlinstruct.backends.recordings import recordings_on
from vlinstruct.backends.registry import BACKBONES, config_of, identity_of, known_backbone, mini_folder
from vlinstruct.errors import CheckpointError
from vlinstruct.values import Identity
from vlinstruct.weights.quantization import hushed

if TYPE_CHECKING:
    from vlinstruct.backends.transformers.any_vlm import TransformersBackend

_SPREAD = 0.02  # standard deviation


def load_both(
    backbone: str | Identity | None, *, device: str, dtype: str, compile: bool = False
) -> tuple[InstructBlipBackend, Any]:
    """Loads a folder as our backend and as transformers' model.

    Args:
        backbone: a name, a folder or a hub id; `$VLINSTRUCT_BACKBONE` or mini if None. Or what `find` found for one.
        device: as `vlinstruct.load` takes it.
        dtype: as `vlinstruct.load` takes it.
        compile: as `vlinstruct.load` takes it; ours has them, transformers' not.
    """
    model_class = architecture()
    ours = load_backend(backbone, device=device, dtype=dtype, compile=compile)
    theirs = model_class.from_pretrained(
        ours.identity.folder,
        dtype=ours.dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    return ours, theirs.to(ours.device).eval()


def architecture() -> Any:
    """Returns transformers' InstructBLIP class; its log lines and progress bars are switched off in this process."""
    with hushed():  # it imports torchao, where that is installed, which prints
        from transformers import InstructBlipForConditionalGeneration
        from transformers.utils import logging
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return InstructBlipForConditionalGeneration


def load_both_random(
    backbone: str, *, device: str, dtype: str, compile: bool = False
) -> tuple[InstructBlipBackend, Any]:
    """Builds both models on the same random weights.

    Args:
        backbone: a known name, or a folder with a config.json.
        device: as `vlinstruct.load` takes it.
        dtype: as `vlinstruct.load` takes it.
        compile: as `vlinstruct.load` takes it; ours has them, transformers' not.

    Raises:
        CheckpointError: there is no such configuration, or its vocabularies are smaller than mini's.
    """
    model_class = architecture()
    ours = random_backbone(backbone, device=device, dtype=dtype)
    settings = model_class.config_class.from_dict(config_of(backbone))
    theirs = model_class.from_pretrained(
        None,
        config=settings,
        state_dict=ours.network.state_dict(),
        dtype=ours.network.query_tokens.dtype,
        trust_remote_code=False,
    )
    if compile:
        ours.recordings = recordings_on(ours.device, backbone, is_prepacked=is_prepacked(ours.network))
    return ours, theirs.to(ours.device).eval()


def random_backbone(backbone: str, *, device: str, dtype: str) -> InstructBlipBackend:
    """Builds our backend alone, with random weights.

    Args:
        backbone: a known name, or a folder with a config.json.
        device: as `vlinstruct.load` takes it.
        dtype: as `vlinstruct.load` takes it.

    Raises:
        CheckpointError: there is no such configuration, or its vocabularies are smaller than mini's.
    """
    where = compute_device(device)
    config = InstructBlipConfig.from_dict(config_of(backbone))
    # The texts that are written are tokenized by mini's tokenizers, whose ids must have rows in this model's tables.
    mini = InstructBlipConfig.from_dict(BACKBONES["mini"].config())
    for part in ("text_config", "qformer_config"):
        size, needed = getattr(config, part).vocab_size, getattr(mini, part).vocab_size
        if size < needed:
            why = f"the vocabulary of its {part} has {size} tokens, the texts that are written need mini's {needed}"
            raise CheckpointError.at("cannot measure backbone", backbone, why, "Give a larger vocab_size")
    identity = Identity(name=backbone, entry=known_backbone(backbone))
    return _with_minis_tokenizers(random_model(config, where, compute_dtype(dtype, where)), identity)


def random_model(config: InstructBlipConfig, device: torch.device, dtype: torch.dtype) -> InstructBlip:
    """Builds a model with normally distributed matrices; gains are 1 and biases 0, so that everything stays finite."""
    if device.type == "cuda":
        prefer_kernels_for_all_shapes()
    else:
        keep_freed_memory()
    model = empty_model(config).to(dtype).to_empty(device=device).requires_grad_(False).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, _SPREAD)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    allow_prepacking(model)
    return model


def random_vlm(backbone: str, *, device: str, dtype: str) -> TransformersBackend:
    """Builds any vision-language model of transformers with random weights, as its class draws them.

    Args:
        backbone: a folder with a config.json and the processor's files.
        device: as `vlinstruct.load` takes it.
        dtype: as `vlinstruct.load` takes it.

    Raises:
        CheckpointError: it has no processor, or nothing here runs it.
    """
    # Here, not above: an older transformers than they take measures InstructBLIP.
    from vlinstruct.backends.transformers.any_vlm import TransformersBackend
    from vlinstruct.backends.transformers.families import FAMILIES, UNKNOWN
    from vlinstruct.backends.transformers.opening import failures_named, quietly
    from vlinstruct.backends.transformers.support import require_supported

    folder, where = Path(backbone).expanduser(), compute_device(device)
    if not any((folder / f"{kind}_config.json").is_file() for kind in ("processor", "preprocessor")):
        why = "random weights need the model's own processor, which is not here"
        raise CheckpointError.at(
            "cannot measure backbone", backbone, why, "Give a folder with all files but the weights"
        )
    identity = identity_of(folder, backbone)
    require_supported(folder, identity.config, name=backbone)
    with quietly():
        from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor

        with failures_named(identity, "processor"):
            processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                folder, local_files_only=True, trust_remote_code=False
            )
        with failures_named(identity, "model"), where:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model = AutoModelForMultimodalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=compute_dtype(dtype, where), trust_remote_code=False
            )
    family = FAMILIES.get(config.model_type, UNKNOWN)
    return TransformersBackend(model.eval(), processor, family=family, identity=identity)


def _with_minis_tokenizers(model: InstructBlip, identity: Identity) -> InstructBlipBackend:
    config = model.config
    text = config.text_config  # gives the special ids; mini's tokenizers give the others
    return InstructBlipBackend(
        model,
        image_processor=ImageProcessor(image_size=config.vision_config.image_size),
        tokenizer=TextTokenizer(
            read_tokenizer(mini_folder()),
            eos_id=text.eos_token_id,
            prompt_prefix=() if text.bos_token_id is None else (text.eos_token_id,),
            prompt_suffix=(text.eos_token_id,) if text.prompt_has_eos else (),
        ),
        qformer_tokenizer=QFormerTokenizer(
            read_tokenizer(mini_folder() / "qformer_tokenizer"),
            max_length=config.qformer_config.max_position_embeddings,
        ),
        identity=identity,
    )
