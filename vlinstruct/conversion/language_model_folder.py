"""FlanT5's or Vicuna's own folder, from which LAVIS's files lack the language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig, LlamaConfig, T5Config, TextConfig
from vlinstruct.backends.registry import BACKBONES
from vlinstruct.errors import CheckpointError
from vlinstruct.files import read_json_object

PREFIX = "language_model."
# InstructBLIP's own choices: more tokens, FlanT5's exact gelu; the length is a limit and no weight depends on it.
_MAY_DIFFER = ("vocab_size", "dense_act_fn", "max_position_embeddings")


def configuration_for(folder: Path) -> dict[str, Any]:
    """Returns the shipped `config.json` of the InstructBLIP that has this language model.

    Raises:
        CheckpointError: none has, or the folder's own is missing or damaged.
    """
    wanted = _size(_text_config(folder))
    for backbone in BACKBONES.values():
        values = backbone.config()
        if _size(InstructBlipConfig.from_dict(values).text_config) == wanted:
            return values
    why = f"no InstructBLIP is known with a {' '.join(map(str, wanted))}"
    raise _refused(folder, why, "Give FlanT5-XL, -XXL, Vicuna-7B or -13B, or --config FILE")


def require_same_language_model(folder: Path, text_config: TextConfig) -> None:
    """Refuses a language model that computes otherwise, which its tensors' shapes would not tell.

    Raises:
        CheckpointError: with the first three differences.
    """
    theirs = _text_config(folder)
    if theirs.model_type != text_config.model_type:
        why = f"it is a {theirs.model_type}, the configuration wants a {text_config.model_type}"
        raise _refused(folder, why, "Give the folder that belongs to the .pth file")
    got, wanted = _facts(theirs), _facts(text_config)
    differences = [f"{name} {got[name]} instead of {value}" for name, value in wanted.items() if got[name] != value]
    if differences:
        raise _refused(folder, ", ".join(differences[:3]), "InstructBLIP has FlanT5 or Vicuna v1.1")


def _text_config(folder: Path) -> TextConfig:
    values = read_json_object(folder / "config.json")
    kinds: Mapping[object, type[T5Config] | type[LlamaConfig]] = {"t5": T5Config, "llama": LlamaConfig}
    kind = kinds.get(values.get("model_type"))
    if kind is None:
        why = f"its model_type is {str(values.get('model_type'))[:30]!r}, neither t5 nor llama"
        raise _refused(folder, why, "Give the folder of FlanT5 or Vicuna")
    return kind.from_dict(values)


def _size(config: TextConfig) -> tuple[str, int, int]:
    num_layers = config.num_layers if isinstance(config, T5Config) else config.num_hidden_layers
    return config.model_type, config.hidden_size, num_layers


def _facts(config: TextConfig) -> dict[str, Any]:
    facts = {
        name: value
        for name, value in asdict(config).items()
        if name not in _MAY_DIFFER and not name.endswith("_token_id")
    }
    if isinstance(config, LlamaConfig):
        facts |= {"num_key_value_heads": config.key_value_heads, "head_dim": config.head_size}
    return facts


def _refused(folder: Path, why: str, advice: str) -> CheckpointError:
    return CheckpointError.at("cannot use language model", folder, why, advice)
