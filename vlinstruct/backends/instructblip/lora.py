"""LoRA on the language model, in PEFT's own folder format; the adapted layers are PEFT's.

adapter_config.json          PEFT's settings
adapter_model.safetensors    the low-rank matrices A, (r, in), and B, (out, r), of every adapted layer

Our language models have transformers' module names, hence a folder can be exchanged: PEFT loads ours onto transformers'
model, we load PEFT's. A and B stay beside the layer's own weight, which is as it was when they are taken off again.
An adapter that PEFT made with any option that we do not compute is refused by the option's name: loading it as plain
LoRA would give other numbers without a word.

Source: LoRA (Hu et al., 2021): W x + alpha / r * B A x.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from vlinstruct.backends.instructblip.language_model import LanguageModel
from vlinstruct.backends.instructblip.load import require_same_tensors
from vlinstruct.errors import CheckpointError, ResourceError, UsageError, shortened
from vlinstruct.files import read_json_object, written_atomically
from vlinstruct.weights.quantization import hushed
from vlinstruct.weights.safetensors_files import tensors, write_tensors

CONFIG_FILE = "adapter_config.json"
TENSORS_FILE = "adapter_model.safetensors"

_ADAPTER = "default"  # PEFT's name for the only adapter; no file holds it
_PREFIX = "base_model.model."
_PART = "language_model."  # of transformers' InstructBLIP
_KINDS: Mapping[str, tuple[type, ...]] = {
    "r": (int,),
    "lora_alpha": (int, float),
    "lora_dropout": (int, float),
    "target_modules": (list,),
}
_FACTS = ("auto_mapping", "base_model_name_or_path", "peft_type", "peft_version", "revision", "task_type")
_WITHOUT_EFFECT = ("inference_mode", "megatron_core", "qalora_group_size")  # the last two need options that are refused
# An option that has one of these values is off, whatever it is called.
_OFF: tuple[Any, ...] = (None, False, "none", [], {})


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Which layers get low-rank matrices, and of what kind.

    Args:
        r: their rank, 1 to 4096.
        alpha: what they compute is multiplied by alpha / r; above 0.
        dropout: the share of a layer's inputs that they do not see in training, 0 to below 1.
        target_modules: names of linear layers, or ends of names after a dot; empty for the attention's query and value
            matrices (PEFT's choice for T5 and Llama).
    """

    r: int = 8
    alpha: float = 16
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            f"LoRA's r must be 1 to 4096, got {self.r}": 1 <= self.r <= 4096,
            f"LoRA's alpha must be above 0 and finite, got {self.alpha}": 0 < self.alpha < math.inf,
            f"LoRA's dropout must be 0 to below 1, got {self.dropout}": 0 <= self.dropout < 1,
        }
        problems = [problem for problem, holds in checks.items() if not holds]
        if problems:
            raise UsageError("; ".join(problems))


def add_lora(language_model: LanguageModel, settings: LoraSettings, *, seed: int) -> None:
    """Gives the language model new LoRA matrices, float32, which are then all that can learn of it.

    They change nothing until B, which is zero, has learned. Their dropout is on in train mode alone.

    Args:
        language_model: is changed in place.
        settings: which layers, and how.
        seed: of A; torch's own random state stays as it is.

    Raises:
        UsageError: the model has no such layers, or has LoRA already.
    """
    if lora_parameters(language_model):
        raise UsageError(
            "cannot add LoRA: the language model has it already", advice="Load the backbone without its adapter."
        )
    unknown = _unknown_targets(language_model, settings)
    if unknown:
        why = "no such linear layer in the language model's blocks"
        names = dict.fromkeys(name.rpartition(".")[-1] for name in _linears(language_model))
        raise UsageError.at("cannot add LoRA", ", ".join(unknown), why, f"It has {', '.join(names)}")
    _inject(language_model, settings, seed)


def lora_parameters(language_model: LanguageModel) -> dict[str, Parameter]:
    """Returns the LoRA matrices by their names in the language model, e.g. `...q_proj.lora_A.default.weight`."""
    return {name: parameter for name, parameter in language_model.named_parameters() if ".lora_" in name}


def save_lora(folder: Path, language_model: LanguageModel) -> None:
    """Writes the language model's LoRA as a PEFT folder; each file is whole or as it was.

    Args:
        folder: where to; made if it is missing.
        language_model: one that has LoRA.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    parameters = lora_parameters(language_model)
    assert len(parameters) > 0
    matrices = {_file_name(name): parameter for name, parameter in parameters.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ResourceError.at("cannot write LoRA", folder, reason, "Give another folder") from error
    with written_atomically(folder / TENSORS_FILE) as path:
        write_tensors(matrices, path, metadata={"format": "pt"})
    # As PEFT writes it: sets as lists, and the adapter not to be trained on when somebody loads it.
    config = cast(Any, language_model).peft_config[_ADAPTER].to_dict()
    values = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    with written_atomically(folder / CONFIG_FILE) as path:
        text = json.dumps({**values, "inference_mode": True}, indent=2, sort_keys=True)
        path.write_text(text, encoding="utf-8")


def load_lora(folder: Path, language_model: LanguageModel) -> None:
    """Puts a PEFT folder's LoRA onto the language model, in place of what LoRA it has.

    The model is in eval mode then, and nothing of it learns.

    Raises:
        CheckpointError: the folder is damaged, incomplete, made for another model or by another method; the model is
            unchanged then.
    """
    settings, matrices = read_lora(folder, language_model)
    _inject(language_model, settings, seed=0)
    for name, parameter in lora_parameters(language_model).items():
        parameter.data.copy_(matrices[_file_name(name)])
    language_model.requires_grad_(False).eval()


def read_lora(folder: Path, language_model: LanguageModel) -> tuple[LoraSettings, dict[str, Tensor]]:
    """Reads a PEFT folder's LoRA for a language model, which may lie on the meta device and stays as it is.

    Returns:
        Its settings, and its matrices by their names in the file.

    Raises:
        CheckpointError: the folder is damaged, incomplete, or made for another model or by another method.
    """
    settings = _read_settings(folder / CONFIG_FILE)
    matrices = _of_language_model(_read_tensors(folder / TENSORS_FILE), folder)
    unknown = _unknown_targets(language_model, settings)
    if unknown:
        why = f"the language model has no layers named {_listed(unknown)}"
        raise _refused(folder, why, "It was made for another backbone")
    require_same_tensors(matrices, _expected(language_model, settings), str(folder))
    return settings, matrices


def _of_language_model(matrices: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Returns a file's matrices by their names in the language model alone.

    PEFT names them from the model that it was given: transformers' InstructBLIP has the language model as a part.
    """
    whole = f"{_PREFIX}{_PART}"
    if not any(name.startswith(whole) for name in matrices):
        return dict(matrices)
    elsewhere = [name.removeprefix(_PREFIX) for name in matrices if not name.startswith(whole)]
    if elsewhere:
        why = f"it adapts layers outside of the language model ({_listed(elsewhere)})"
        raise _refused(folder, why, "Merge it into the model with PEFT's merge_and_unload, and save that")
    return {_PREFIX + name.removeprefix(whole): tensor for name, tensor in matrices.items()}


def _inject(language_model: LanguageModel, settings: LoraSettings, seed: int) -> None:
    with hushed():  # it imports torchao and bitsandbytes where they are there
        import peft  # 4.6 to 6.6 s on two cores: only who uses LoRA waits for it

    _remove(language_model)
    config = peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # computed with as any number
        lora_dropout=settings.dropout,
        target_modules=list(_targets(language_model, settings)),
        task_type="SEQ_2_SEQ_LM" if language_model.config.is_encoder_decoder else "CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=()), warnings.catch_warnings():
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change the GPUs' random state, too
        # Of 8 bits on a CPU: it could not merge them, which we never ask for.
        warnings.filterwarnings("ignore", "TorchaoLoraLinear was instantiated", UserWarning)
        peft.inject_adapter_in_model(config, language_model, adapter_name=_ADAPTER)
    for parameter in lora_parameters(language_model).values():
        # PEFT gives them the layer's dtype; a step of a bfloat16 parameter is often smaller than its last bit.
        parameter.data = parameter.data.float()
    language_model.train(language_model.training)  # PEFT's new layers are in train mode


def _remove(language_model: LanguageModel) -> None:
    adapted = [name for name, module in language_model.named_modules() if hasattr(module, "base_layer")]
    for name in adapted:
        language_model.set_submodule(name, language_model.get_submodule(f"{name}.base_layer"))
    if adapted:
        del language_model.peft_config


def _linears(language_model: LanguageModel) -> dict[str, nn.Linear]:
    """Returns the layers that can be adapted, under the names that they have without LoRA.

    Not the head: PEFT writes an adapted head's own weights to the folder as well.
    """
    return {
        name.removesuffix(".base_layer"): module
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name and not name.startswith("lm_head")
    }


def _targets(language_model: LanguageModel, settings: LoraSettings) -> Sequence[str]:
    return settings.target_modules or language_model.config.lora_targets


def _is_meant(name: str, target: str) -> bool:
    """Says whether PEFT's rule takes a layer for a target."""
    return name == target or name.endswith(f".{target}")


def _unknown_targets(language_model: LanguageModel, settings: LoraSettings) -> list[str]:
    names = _linears(language_model)
    targets = _targets(language_model, settings)
    return [target for target in targets if not any(_is_meant(name, target) for name in names)]


def _expected(language_model: LanguageModel, settings: LoraSettings) -> dict[str, Tensor]:
    """Returns the matrices that the file must hold, on the meta device."""
    expected = {}
    for name, linear in _linears(language_model).items():
        if any(_is_meant(name, target) for target in _targets(language_model, settings)):
            shapes = {"A": (settings.r, linear.in_features), "B": (linear.out_features, settings.r)}
            for letter, shape in shapes.items():
                expected[f"{_PREFIX}{name}.lora_{letter}.weight"] = torch.empty(shape, device="meta")
    return expected


def _file_name(parameter_name: str) -> str:
    return _PREFIX + parameter_name.replace(f".{_ADAPTER}.", ".")


def _read_settings(path: Path) -> LoraSettings:
    values = read_json_object(path)
    if values.get("peft_type") != "LORA":
        raise _refused(path, f"its peft_type is {_shown(values.get('peft_type'))}", "Only LORA can be loaded")
    # By type, not isinstance: JSON's true would be the int 1.
    wrong = [name for name, kinds in _KINDS.items() if type(values.get(name)) not in kinds]
    if wrong:
        raise _refused(path, f"{', '.join(wrong)} missing or of the wrong type", "Copy it again")
    targets = values["target_modules"]
    if not targets or not all(isinstance(target, str) for target in targets):
        raise _refused(path, "target_modules must be names of layers", "Copy it again")
    _require_plain_lora(path, values)
    try:
        return LoraSettings(
            r=values["r"],
            alpha=values["lora_alpha"],
            dropout=values["lora_dropout"],
            target_modules=tuple(target.removeprefix(_PART) for target in targets),
        )
    except UsageError as error:
        raise _refused(path, error.message, "Copy it again") from error


def _require_plain_lora(path: Path, values: Mapping[str, Any]) -> None:
    """Refuses what would change the result if it were ignored, options of later versions of PEFT included."""
    understood = (*_KINDS, *_FACTS, *_WITHOUT_EFFECT)
    options = [name for name, value in values.items() if name not in understood and value not in _OFF]
    # Other ways to begin than these two change the layer's own weight.
    unsupported = [name for name in options if name != "init_lora_weights" or values[name] not in (True, "gaussian")]
    if unsupported:
        why = f"peft {_shown(values.get('peft_version'))} made it with {_listed(unsupported)}"
        raise _refused(path, why, "Only LoRA without further options can be loaded")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        why = f"no {TENSORS_FILE}; .bin files are never loaded"
        raise _refused(path.parent, why, "Save it with PEFT's safe_serialization")
    matrices = dict(tensors(path))
    integers = [name for name, tensor in matrices.items() if not tensor.is_floating_point()]
    if integers:
        raise _refused(path, f"{_listed(integers)} not of floating point numbers", "Copy it again")
    not_finite = [name for name, tensor in matrices.items() if not bool(tensor.float().isfinite().all())]
    if not_finite:
        raise _refused(path, f"{_listed(not_finite)} with values that are not finite", "Train it again")
    return matrices


def _refused(place: Path, why: str, advice: str) -> CheckpointError:
    return CheckpointError.at("cannot load LoRA", place, why, advice)


def _listed(names: Sequence[str]) -> str:
    """Returns the first five names and how many there are."""
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(shortened(name, 60) for name in names[:5]) + rest


def _shown(value: object) -> str:
    return shortened(repr(value) if not isinstance(value, str) else value, 30)
