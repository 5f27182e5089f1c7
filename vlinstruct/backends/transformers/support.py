"""Can transformers run this model here: told by its settings alone, before its weights are downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vlinstruct.backends.transformers.families import FAMILIES, UNKNOWN, UNSUPPORTED
from vlinstruct.errors import CheckpointError, ResourceError, printable, shortened
from vlinstruct.files import read_json_object
from vlinstruct.weights.quantization import hushed

_OLDEST = (5, 23)  # the first with AutoModelForMultimodalLM's whole list, which our tests run on
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json")
_LAYERS = ("depth", "num_hidden_layers", "num_layers")
_MAX_LAYERS = 1000  # the deepest models have 130
# What unpacks weights that are stored in fewer bits, by `quant_method`; transformers asks for others itself.
_QUANTIZERS = {
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed_tensors",
    "gptq": "gptqmodel",
    "torchao": "torchao",
}


def require_supported(folder: Path, config: Mapping[str, Any], *, name: str) -> None:
    """Refuses a model that transformers does not know, that lacks a processor, or that needs a missing package.

    Args:
        folder: with its settings; weights may be missing.
        config: the content of its config.json.
        name: what messages call it.

    Raises:
        CheckpointError: nothing here runs it.
        ResourceError: a package that it needs is not installed, or is too old.
    """
    kind = shortened(str(config.get("model_type")), 40)
    if kind in UNSUPPORTED:
        raise _refused(name, f"models of kind {kind} are not supported: {UNSUPPORTED[kind]}", "Use another --backbone")
    _require_layers(config, name=name)
    here = version("transformers")
    if tuple(int(part) for part in here.split(".")[:2]) < _OLDEST:
        why = f"models of kind {kind} need transformers {'.'.join(map(str, _OLDEST))} or newer, here is {here}"
        raise _lacks(name, why, "Run pip install -U 'vlinstruct[vlm]'")
    _require_known(kind, name=name, here=here)
    if here in FAMILIES.get(kind, UNKNOWN).broken_in:
        why = f"transformers {here} cannot run models of kind {kind}"
        raise _lacks(name, why, f"Run pip install 'transformers!={here}'")
    for files, what in ((_PROCESSORS, "processor"), (_TOKENIZERS, "tokenizer")):
        if not any((folder / file).is_file() for file in files):
            raise _refused(name, f"it has no {what} ({' or '.join(files)})", "Give a complete model folder")
    _require_packages(folder, config, kind, name=name)


def require_safetensors(folder: Path, *, name: str) -> None:
    """Refuses a folder whose weights are not in safetensors.

    Raises:
        CheckpointError: they are pickles, or there are none.
    """
    if any(folder.glob("*.safetensors")):
        return
    if pickles := sorted([*folder.glob("*.bin"), *folder.glob("*.pth"), *folder.glob("*.pt")]):
        why = f"its weights are pickles ({printable(pickles[0].name)}), which are never loaded"
        raise _refused(name, why, "Give a folder with safetensors")
    raise _refused(name, "it holds no weights (*.safetensors)", "Give a complete model folder")


def _require_layers(values: object, *, name: str) -> None:
    """Refuses a damaged number of layers at any depth: transformers would build them one by one, for hours."""
    if not isinstance(values, Mapping):
        return
    for setting, value in values.items():
        if setting in _LAYERS and isinstance(value, int) and not 1 <= value <= _MAX_LAYERS:
            why = f"its config.json says {setting}: {shortened(str(value), 20)}"
            raise _refused(name, why, "Download it again")
        _require_layers(value, name=name)


def _require_known(kind: str, *, name: str, here: str) -> None:
    with hushed():
        from transformers import CONFIG_MAPPING
        from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    if kind in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES:
        return
    if kind in CONFIG_MAPPING:
        raise _refused(name, f"a model of kind {kind} answers no questions about pictures", "Use another --backbone")
    why = f"transformers {here} knows no models of kind {kind}"
    raise _refused(name, why, "Check its config.json, or try pip install -U transformers")


def _require_packages(folder: Path, config: Mapping[str, Any], kind: str, *, name: str) -> None:
    packages = set(FAMILIES.get(kind, UNKNOWN).packages)
    processor = folder / _PROCESSORS[0]
    # Every processor of videos is written for torchvision alone.
    if (folder / "video_preprocessor_config.json").is_file() or (
        processor.is_file() and "video_processor" in read_json_object(processor)
    ):
        packages.add("torchvision")
    for package in sorted(packages):
        if find_spec(package) is None:
            why = f"models of kind {kind} need {package}, which is not installed"
            raise _lacks(name, why, "Run pip install 'vlinstruct[vlm]'")
    if "torchvision" in packages:
        _require_torchvision(name)
    quantization = config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
    quantizer = _QUANTIZERS.get(method) if isinstance(method, str) else None
    if quantizer is not None and find_spec(quantizer) is None:
        why = f"its weights are stored as {method}, which needs {quantizer}"
        raise _lacks(name, why, f"Run pip install {quantizer}")


def _require_torchvision(name: str) -> None:
    """Makes sure that torchvision fits torch: its operators are compiled for one build of it."""
    try:
        with hushed():
            import_module("torchvision")
    except Exception as error:  # RuntimeError, OSError: whatever a library raises that does not fit
        why = f"torchvision {version('torchvision')} does not fit torch {version('torch')}"
        advice = "Install the build that belongs to it: pytorch.org/get-started"
        raise _lacks(name, why, advice) from error


def _refused(name: str, why: str, advice: str) -> CheckpointError:
    return CheckpointError.at("cannot use backbone", printable(name), why, advice)


def _lacks(name: str, why: str, advice: str) -> ResourceError:
    return ResourceError.at("cannot use backbone", printable(name), why, advice)
