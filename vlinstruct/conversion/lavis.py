"""LAVIS's `.pth` files as weights with transformers' names, and InstructBLIP folders made of them.

A file holds `{"model": {...}}`, in whole or what was trained only, perhaps with an optimizer beside it; `eva_vit_g.pth`
holds the image encoder's tensors without any prefix, and one block more than InstructBLIP uses. The four published
files (`instruct_blip_*_trimmed.pth`) have neither the image encoder nor the language model, so several sources become
one folder. LAVIS itself loads with strict=False and says nothing; here every tensor is used, or named with its count.

Source: github.com/salesforce/LAVIS, models/blip2_models and models/eva_vit.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.image_processor import ImageProcessor
from vlinstruct.backends.instructblip.load import optional_tensors, vocabulary_tables
from vlinstruct.backends.instructblip.tokenization import read_tokenizer
from vlinstruct.conversion.model_folder import (
    LANGUAGE_MODEL,
    Notify,
    Writing,
    Written,
    is_left_out,
    stored_weights,
    write_json,
    write_model_folder,
)
from vlinstruct.conversion.part_folders import (
    language_tokenizer,
    qformer_tokenizer,
    require_same_language_model,
    save_tokenizers,
)
from vlinstruct.conversion.pickle_file import load_pickle
from vlinstruct.conversion.weights import DTYPES, Weight, joined, listed, stored, with_mean_rows
from vlinstruct.errors import CheckpointError

_VISION = "visual_encoder."
_LAYER = r"vision_model.encoder.layers.\1."
_NAMES = tuple(
    (re.compile(theirs), ours)
    for theirs, ours in (
        (r"visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
        (r"visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
        (r"visual_encoder\.patch_embed\.proj\.(\w+)", r"vision_model.embeddings.patch_embedding.\1"),
        (r"visual_encoder\.blocks\.(\d+)\.norm([12])\.(\w+)", _LAYER + r"layer_norm\2.\3"),
        (r"visual_encoder\.blocks\.(\d+)\.attn\.proj\.(\w+)", _LAYER + r"self_attn.projection.\2"),
        (r"visual_encoder\.blocks\.(\d+)\.attn\.(\w+(?:\.\w+)?)", _LAYER + r"self_attn.\2"),
        (r"visual_encoder\.blocks\.(\d+)\.mlp\.(\w+\.\w+)", _LAYER + r"mlp.\2"),
        (r"ln_vision\.(\w+)", r"vision_model.post_layernorm.\1"),
        (r"Qformer\.bert\.embeddings\.LayerNorm\.(\w+)", r"qformer.embeddings.layernorm.\1"),
        (r"Qformer\.bert\.(.+attention)\.self\.(.+)", r"qformer.\1.attention.\2"),
        (r"Qformer\.bert\.(.+)", r"qformer.\1"),
        (r"(?:t5|llm)_proj\.(\w+)", r"language_projection.\1"),
        (r"(?:t5|llm)_model\.(.+)", r"language_model.\1"),
    )
)
# The Q-Former's own language head, a buffer, and what EVA-CLIP has behind its blocks.
_WITHOUT_USE = re.compile(
    r"Qformer\.cls\..*|Qformer\.bert\.embeddings\.position_ids|visual_encoder\.(?:norm|fc_norm|head)\..*"
)


@dataclass(frozen=True, kw_only=True)
class LavisFile:
    """What a file brings.

    Args:
        weights: by transformers' name; a name that nobody knows is as it was.
        is_encoder: whether it is the image encoder alone, without prefixes (eva_vit_g.pth).
        language_model: `t5` or `llama` where a name tells which; None if none does.
    """

    weights: Mapping[str, Weight]
    is_encoder: bool
    language_model: str | None


def read_lavis(path: Path, *, num_vision_layers: int, notify: Notify) -> LavisFile:
    """Reads a file.

    Args:
        path: a .pth file.
        num_vision_layers: of the image encoder; one block more is left out.
        notify: is told what is left out.

    Raises:
        CheckpointError: it is not safe, damaged, without a 'model' entry, or names a tensor twice.
    """
    named, is_encoder = _named_tensors(path, notify)
    named, dropped = _without_useless(named, num_vision_layers)
    if dropped:
        # Counted by the beginning of their names, a block of the image encoder by its number.
        beginnings = [name.split(".")[: 3 if ".blocks." in name else 2] for name in dropped]
        groups = ", ".join(f"{group} {count}" for group, count in Counter(map(".".join, beginnings)).items())
        notify(f"{path.name}: {len(dropped)} tensors are left out, the model has no use for them: {groups}")
    weights: dict[str, Weight] = {}
    for name, tensor in named.items():
        _add(weights, transformers_name(name), stored(tensor), path)
    _fuse_biases(weights, path)
    return LavisFile(weights=weights, is_encoder=is_encoder, language_model=_language_model(named))


def transformers_name(name: str) -> str:
    """Returns a tensor's name in transformers; as it is where LAVIS has no such name.

    >>> transformers_name("Qformer.bert.encoder.layer.0.crossattention.self.key.bias")
    'qformer.encoder.layer.0.crossattention.attention.key.bias'
    """
    for pattern, replacement in _NAMES:
        if pattern.fullmatch(name):
            return pattern.sub(replacement, name)
    return name


def _named_tensors(path: Path, notify: Notify) -> tuple[dict[str, Tensor], bool]:
    """Returns the tensors by LAVIS's name, `module.` stripped, and whether they are the image encoder's alone."""
    values = load_pickle(path)
    is_encoder = "model" not in values and {"cls_token", "pos_embed"} <= values.keys()
    model = values if is_encoder else values.get("model")
    if not isinstance(model, dict):
        why, advice = "no 'model' entry with its tensors", "Give a checkpoint that LAVIS wrote, or eva_vit_g.pth"
        raise CheckpointError.at("cannot read checkpoint", path, why, advice)
    ignored = [str(name) for name in values if name != "model"] if not is_encoder else []
    if ignored:
        notify(f"{path.name}: {len(ignored)} entries beside 'model' are ignored: {listed(ignored)}")
    prefix = _VISION if is_encoder else ""
    named: dict[str, Tensor] = {}
    for name, tensor in model.items():
        _require_plain_tensor(name, tensor, path)
        _add(named, prefix + name.removeprefix("module."), tensor, path)
    return named, is_encoder


def _require_plain_tensor(name: object, tensor: object, path: Path) -> None:
    is_plain = type(tensor) in (Tensor, torch.nn.Parameter) and isinstance(name, str)
    if not is_plain or tensor.layout != torch.strided or tensor.device.type != "cpu":  # type: ignore[attr-defined]
        why = f"its 'model' holds {str(name)[:60]!r}, a {type(tensor).__name__} and no plain tensor"
        raise CheckpointError.at("cannot read checkpoint", path, why, "Save its state_dict alone")


def _add(named: dict[str, Any], name: str, value: object, path: Path) -> None:
    if name in named:
        why = f"two of its tensors are {name[:80]}"
        raise CheckpointError.at("cannot read checkpoint", path, why, "Save one model's state_dict alone")
    named[name] = value


def _without_useless(named: Mapping[str, Tensor], num_vision_layers: int) -> tuple[dict[str, Tensor], list[str]]:
    last_block = f"{_VISION}blocks.{num_vision_layers}."
    dropped = [
        name
        for name in named
        if _WITHOUT_USE.fullmatch(name) or name.startswith(last_block) or is_left_out(transformers_name(name))
    ]
    return {name: tensor for name, tensor in named.items() if name not in set(dropped)}, dropped


def _fuse_biases(weights: dict[str, Weight], path: Path) -> None:
    """Puts `qkv.bias` = (q_bias, 0, v_bias) in the place of the two: EVA's keys have no bias."""
    for q_name in [name for name in weights if name.endswith("self_attn.q_bias")]:
        stem = q_name.removesuffix("q_bias")
        query, value = weights[q_name], weights.get(f"{stem}v_bias")
        if value is not None and _is_bias(query) and _is_bias(value):
            del weights[q_name], weights[f"{stem}v_bias"]
            key = stored(torch.zeros(value.shape, dtype=value.dtype))
            _add(weights, f"{stem}qkv.bias", joined(query, key, value), path)


def _is_bias(weight: Weight) -> bool:
    """Says whether it may be joined to another one; what may not is named in the end, as it is."""
    return len(weight.shape) == 1 and weight.dtype in DTYPES


def _language_model(names: Collection[str]) -> str | None:
    kinds = {"t5": ("t5_proj.", "t5_model."), "llama": ("llm_proj.", "llm_model.")}
    named = [kind for kind, prefixes in kinds.items() if any(name.startswith(prefixes) for name in names)]
    return named[0] if len(named) == 1 else None


@dataclass(frozen=True, kw_only=True)
class LavisParts:
    """What an InstructBLIP folder is made of.

    Args:
        files: .pth files, with or without the image encoder and the language model. Of a tensor that several have, the
            last file's is taken; `eva_vit_g.pth` only fills in what none has.
        language_model: FlanT5's or Vicuna's folder: config.json, tokenizer, and safetensors where no file has them.
        bert: the folder of the Q-Former's tokenizer, bert-base-uncased.
        config: the content of the new folder's `config.json`.
    """

    files: Sequence[Path]
    language_model: Path
    bert: Path
    config: Mapping[str, Any]


def import_lavis(parts: LavisParts, writing: Writing) -> Written:
    """Makes an InstructBLIP folder.

    Raises:
        CheckpointError: something is missing, damaged, unsafe or does not fit; what, is named.
        InputError: something stands at the target.
        ResourceError: the disk is full or not writable.
    """
    writing.require_target()
    config = InstructBlipConfig.from_dict(parts.config)
    require_same_language_model(parts.language_model, config.text_config)
    tokenizers = language_tokenizer(parts.language_model, config), qformer_tokenizer(parts.bert, config)
    weights = gathered(parts.files, config, writing.notify)
    if any(name.startswith(LANGUAGE_MODEL) for name in weights):
        name = parts.language_model.name
        writing.notify(f"{name}: only its tokenizer is used, the language model is in the .pth files")
    else:
        weights |= stored_weights(parts.language_model, writing.notify, prefix=LANGUAGE_MODEL)
    own_tokens = read_tokenizer(parts.language_model).get_vocab_size()
    _lengthen_tables(weights, config, own_tokens, writing.notify)

    def write_others(folder: Path) -> None:
        save_tokenizers(folder, *tokenizers, config)
        _write_settings(folder, config)

    return write_model_folder(
        weights,
        parts.config,
        writing,
        source=", ".join(path.name for path in (*parts.files, parts.language_model)),
        write_others=write_others,
        optional=optional_tensors(config),
    )


def gathered(files: Sequence[Path], config: InstructBlipConfig, notify: Notify) -> dict[str, Weight]:
    """Reads LAVIS's files as one set of weights, by transformers' name.

    Args:
        files: see `LavisParts`.
        config: what they are meant for.
        notify: is told what is left out, and which file's tensors are not used.

    Raises:
        CheckpointError: a file is damaged, unsafe or made for another language model.
    """
    num_layers = config.vision_config.num_hidden_layers
    read = {path: read_lavis(path, num_vision_layers=num_layers, notify=notify) for path in files}
    text_config = config.text_config
    for path, file in read.items():
        if file.language_model not in (None, text_config.model_type):
            why = f"it is for a {file.language_model}, the configuration has a {text_config.model_type}"
            raise CheckpointError.at("cannot use checkpoint", path, why, "Give files that belong together")
    weights: dict[str, Weight] = {}
    for path, file in sorted(read.items(), key=lambda item: not item[1].is_encoder):
        replaced = [name for name in weights if name in file.weights]
        if replaced:
            notify(f"{path.name}: {len(replaced)} tensors are taken in place of another file's: {listed(replaced)}")
        weights |= file.weights
    return weights


def _lengthen_tables(weights: dict[str, Weight], config: InstructBlipConfig, own_tokens: int, notify: Notify) -> None:
    """Gives the tokens that InstructBLIP adds their rows: no weight of theirs is ever used, but there must be one.

    A table that is shorter than its own tokenizer is left alone: it is damaged, and refused further on.
    """
    for name in vocabulary_tables(config):
        table = weights.get(name)
        if table is None or len(table.shape) != 2:
            continue
        num_missing = config.text_config.vocab_size - table.shape[0]
        if num_missing > 0 and table.shape[0] >= own_tokens:
            weights[name] = with_mean_rows(table, num_missing)
            notify(f"{name}: {num_missing} rows are added, the mean of its {table.shape[0]}, for InstructBLIP's tokens")


def _write_settings(folder: Path, config: InstructBlipConfig) -> None:
    """Writes the files that transformers' processor and generate() look for beside `config.json`."""
    text, processor = config.text_config, ImageProcessor(image_size=config.vision_config.image_size)
    names = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")
    tokens = {name: value for name in names if (value := text.to_dict().get(name)) is not None}
    write_json(folder / "generation_config.json", tokens)
    image_settings = {
        "image_processor_type": "BlipImageProcessor",
        "processor_class": "InstructBlipProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": processor.image_mean,
        "image_std": processor.image_std,
        "resample": int(processor.resample),
        "rescale_factor": 1 / 255,
        "size": {"height": processor.image_size, "width": processor.image_size},
    }
    write_json(folder / "preprocessor_config.json", image_settings)
    classes = {"processor_class": "InstructBlipProcessor", "num_query_tokens": config.num_query_tokens}
    write_json(folder / "processor_config.json", classes)
