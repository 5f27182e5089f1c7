"""From a folder in transformers' format to a loaded backend.

What has no entry among the families is asked a few questions when it is loaded whose answers are known: whether a
likelihood behind a shared prefix is that of the whole prompt, whether it reads texts alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vlinstruct.backend import Row
from vlinstruct.backends.machine import keep_freed_memory
from vlinstruct.backends.recordings import recordings_on
from vlinstruct.backends.transformers.any_vlm import TransformersBackend
from vlinstruct.backends.transformers.chat_template import can_think
from vlinstruct.backends.transformers.families import FAMILIES, UNKNOWN
from vlinstruct.backends.transformers.memory import require_room
from vlinstruct.backends.transformers.support import require_safetensors, require_supported
from vlinstruct.errors import CheckpointError, InputError, VlinstructError, cause_of
from vlinstruct.settings import Quantization
from vlinstruct.values import Failed, Identity, good
from vlinstruct.weights.quantization import hushed, let_bitsandbytes_run

# Of likelihoods in nats: what other orders of the same sums differ by.
_TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}


def open_backend(
    identity: Identity,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: Quantization | None = None,
    may_spread: bool = False,
    compile: bool = False,
    think: bool = False,
) -> TransformersBackend:
    """Loads a model of transformers.

    Args:
        identity: of its folder.
        device: where it computes.
        dtype: what it computes in.
        quantize: how the language model's linear layers are stored.
        may_spread: whether other GPUs and memory may help out where `device` is a GPU that is too small.
        compile: as `vlinstruct.load` takes it, of the tokens that are written.
        think: whether it may think before it answers.

    Raises:
        CheckpointError: it was refused.
        ResourceError: it does not fit into memory, or a package is missing.
    """
    folder = identity.folder
    assert folder is not None  # a server is another backend's
    require_supported(folder, identity.config, name=identity.name)
    require_safetensors(folder, name=identity.name)
    if not (may_spread and device.type == "cuda"):
        require_room(identity, device, dtype=dtype, quantize=quantize)
    if device.type == "cpu":
        keep_freed_memory()
    with quietly():
        import transformers

        family = FAMILIES.get(str(identity.config.get("model_type")), UNKNOWN)
        model_class = getattr(transformers, family.model_class or "AutoModelForMultimodalLM")
        with failures_named(identity, "processor"):
            processor = transformers.AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                folder, local_files_only=True, trust_remote_code=False
            )
        if think and not can_think(processor):
            raise InputError.at(
                "cannot use --think", identity.name, "it does not think before it answers", "Leave it out"
            )
        with failures_named(identity, "model"):
            quantization = None if quantize is None else _quantization(quantize, model_class, folder, device, dtype)
            config = _config_of(model_class, folder)
            # FlashAttention is a package that few have; transformers chooses, whatever a folder was saved with.
            if config._attn_implementation not in (None, "eager", "sdpa"):
                config._attn_implementation = None
            model, report = model_class.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                device_map="auto" if may_spread and device.type == "cuda" else str(device),
                use_safetensors=True,
                output_loading_info=True,
                quantization_config=quantization,
                local_files_only=True,
                trust_remote_code=False,
            )
    # transformers gives what is missing random numbers, and says so in a log line alone.
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:
        names = f"{len(missing)} tensors are missing or of another shape ({', '.join(missing[:3])})"
        raise CheckpointError.at("cannot use model", identity.name, names, "Download the folder again")
    let_bitsandbytes_run(model)
    try:
        backend = TransformersBackend(model.eval(), processor, family=family, identity=identity, think=think)
    except (CheckpointError, InputError) as error:  # over its chat template or its tokenizer
        why = error.problem.rstrip(".")
        raise CheckpointError.at("cannot use model", identity.name, why, "Download the folder again") from error
    if not backend.abilities.media:
        why = f"its processor ({type(processor).__name__}) takes no pictures, clips or sounds"
        raise CheckpointError.at("cannot use model", identity.name, why, "Give a complete model folder")
    if backend.template.template is None and isinstance(backend.see([Image.new("RGB", (64, 64))])[0], Failed):
        why = "it has no chat template, and its processor takes no picture without one"
        raise CheckpointError.at("cannot use model", identity.name, why, "Give its version for instructions or chats")
    if not family.is_verified:
        check_unknown(backend)
    if compile:
        is_spread = len(set(getattr(model, "hf_device_map", {}).values())) > 1
        backend.recordings = recordings_on(device, identity.name, is_spread=is_spread)
    return backend


def check_unknown(backend: TransformersBackend) -> None:
    """Refuses a kind of model of which the common path does not hold.

    Raises:
        CheckpointError: with what does not hold.
    """
    kind = backend.model.config.model_type
    problem = ""
    try:
        if mistaken := backend.template.mistaken_tokens():
            raise CheckpointError(f"its tokenizer cannot keep a typed {mistaken[0]!r} apart")
        # A picture of another size in between: what stays behind of it in the model would change the first one's.
        pictures = [Image.new("RGB", size, colour) for size, colour in (((96, 64), "red"), ((64, 128), "blue"))]
        first, second = (good(backend.see([picture])[0]) for picture in pictures)
        targets = ["What is it?", "red"]
        row, other_row = (Row(prompt="Describe the image", seen=(picture,)) for picture in (first, second))
        for each in (row, other_row, row):
            together = good(backend.score([each], [targets])[0])
        differences = [
            abs(one - other)
            for scores, target in zip(together, targets, strict=True)
            for one, other in zip(scores.token_nll, backend.plain_nll(row, target), strict=True)
        ]
        if not max(differences) <= _TOLERANCES.get(backend.dtype, 0.2):
            problem = f"a likelihood behind a shared picture is off by {max(differences):.2g} nats"
        else:
            good(backend.score([Row(prompt="Describe the image")], [targets])[0])
    except VlinstructError as error:
        problem = error.problem.rstrip(".")
    except Exception as error:  # the forward of an unknown model raises anything
        problem = cause_of(error, 120)
    if problem:
        why = f"models of kind {kind} are not known here, and the common path does not hold: {problem}"
        raise CheckpointError.at("cannot use model", backend.identity.name, why, "Ask for its family in an issue")


def _config_of(model_class: Any, folder: Path) -> Any:
    """Returns a folder's configuration as a class of models takes it."""
    from transformers import AutoConfig

    config_class = AutoConfig if hasattr(model_class, "from_config") else model_class.config_class
    return config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _quantization(
    quantize: Quantization, model_class: Any, folder: Path, device: torch.device, dtype: torch.dtype
) -> Any:
    with hushed():
        from transformers import BitsAndBytesConfig, TorchAoConfig

        with torch.device("meta"):
            config = _config_of(model_class, folder)
            if hasattr(model_class, "from_config"):
                model = model_class.from_config(config, trust_remote_code=False)
            else:
                model = model_class(config)
        kept = _beside_decoder(model)
        if quantize == "4bit":
            return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=dtype,
                llm_int8_skip_modules=kept,
            )
        if device.type == "cuda":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)  # type: ignore[no-untyped-call]
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=kept)


def _beside_decoder(model: Any) -> list[str]:
    """Returns what keeps its precision: all modules beside the language model's layers, its head among them."""
    names = {module: name for name, module in model.named_modules()}
    path = names[model.get_decoder()].split(".")
    kept = [names[model.get_output_embeddings()]]  # BLIP-2's decoder has it in it
    for depth, part in enumerate(path):
        parent = model.get_submodule(".".join(path[:depth]))
        kept += [names[child] for name, child in parent.named_children() if name != part]
    return kept


@contextmanager
def quietly() -> Iterator[None]:
    """Keeps transformers' bars and log lines of loading to itself."""
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with hushed():
            yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def failures_named(identity: Identity, what: str) -> Iterator[None]:
    """Turns what transformers raises over a folder into one line."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, VlinstructError):
        raise
    except Exception as error:
        why = cause_of(error, 160)
        if "ignore_mismatched_sizes" in why:  # it speaks of a table in the log
            why = "its tensors have other shapes than its config.json says"
        raise CheckpointError.at(f"cannot load {what}", identity.name, why, "Run vlinstruct doctor on it") from error
