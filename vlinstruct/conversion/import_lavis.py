"""LAVIS's files become an InstructBLIP folder; see `lavis` for what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig, TextConfig
from vlinstruct.backends.instructblip.image_processor import ImageProcessor
from vlinstruct.backends.instructblip.load import read_tokenizer, vocabulary_tables
from vlinstruct.conversion.lavis import LavisFile, read_lavis
from vlinstruct.conversion.model_folder import (
    LANGUAGE_MODEL,
    Notify,
    Writing,
    Written,
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
from vlinstruct.conversion.weights import Weight, listed, with_mean_rows
from vlinstruct.errors import CheckpointError


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
    _add_language_model(weights, parts, writing.notify)
    own_tokens = read_tokenizer(parts.language_model).get_vocab_size()
    _lengthen_tables(weights, config, own_tokens, writing.notify)

    def write_others(folder: Path) -> None:
        save_tokenizers(folder, *tokenizers, config)
        _write_settings(folder, config)

    _, head = vocabulary_tables(config)
    return write_model_folder(
        weights,
        parts.config,
        writing,
        source=", ".join(path.name for path in (*parts.files, parts.language_model)),
        write_others=write_others,
        optional=(head,) if config.text_config.tie_word_embeddings else (),
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
    for path, file in read.items():
        _require_kind(path, file, config.text_config)
    weights: dict[str, Weight] = {}
    for path, file in sorted(read.items(), key=lambda item: not item[1].is_encoder):
        replaced = [name for name in weights if name in file.weights]
        if replaced:
            notify(f"{path.name}: {len(replaced)} tensors are taken in place of another file's: {listed(replaced)}")
        weights |= file.weights
    return weights


def _require_kind(path: Path, file: LavisFile, text_config: TextConfig) -> None:
    if file.language_model not in (None, text_config.model_type):
        why = f"it is for a {file.language_model}, the configuration has a {text_config.model_type}"
        raise CheckpointError.at("cannot use checkpoint", path, why, "Give files that belong together")


def _add_language_model(weights: dict[str, Weight], parts: LavisParts, notify: Notify) -> None:
    if any(name.startswith(LANGUAGE_MODEL) for name in weights):
        notify(f"{parts.language_model.name}: only its tokenizer is used, the language model is in the .pth files")
        return
    weights |= stored_weights(parts.language_model, notify, prefix=LANGUAGE_MODEL)


def _lengthen_tables(weights: dict[str, Weight], config: InstructBlipConfig, own_tokens: int, notify: Notify) -> None:
    """Gives the tokens that InstructBLIP adds their rows: no weight of theirs is ever used, but there must be one."""
    for name in vocabulary_tables(config):
        table = weights.get(name)
        if table is None or len(table.shape) != 2:
            continue
        num_missing = config.text_config.vocab_size - table.shape[0]
        if num_missing > 0 and table.shape[0] >= own_tokens:
            weights[name] = with_mean_rows(table, num_missing)
            notify(f"{name}: {num_missing} rows are added, the mean of its {table.shape[0]}, for InstructBLIP's tokens")


def _write_settings(folder: Path, config: InstructBlipConfig) -> None:
    text, processor = config.text_config, ImageProcessor(image_size=config.vision_config.image_size)
    names = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")
    tokens = {name: getattr(text, name) for name in names if getattr(text, name) is not None}
    write_json(folder / "generation_config.json", tokens)
    write_json(folder / "preprocessor_config.json", _image_settings(processor))
    classes = {"processor_class": "InstructBlipProcessor", "num_query_tokens": config.num_query_tokens}
    write_json(folder / "processor_config.json", classes)


def _image_settings(processor: ImageProcessor) -> dict[str, Any]:
    return {
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
