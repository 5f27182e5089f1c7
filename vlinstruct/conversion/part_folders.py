"""The folders that LAVIS's files lack something of: FlanT5's or Vicuna's, for the language model, and BERT's tokenizer.

InstructBLIP has a few tokens more than they: `<image>` (and Vicuna's `[PAD]` before it), and `[DEC]` for the Q-Former.

Source: transformers' conversion script of InstructBLIP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig, TextConfig
from vlinstruct.backends.instructblip.text_config import text_config_class
from vlinstruct.backends.instructblip.tokenization import read_tokenizer
from vlinstruct.backends.registry import instructblip_backbones
from vlinstruct.errors import CheckpointError
from vlinstruct.files import read_json_object

# InstructBLIP's own choices: more tokens, FlanT5's exact gelu; the length is a limit and no weight depends on it; and
# transformers 5 calls every T5 tied, whatever head its file holds.
_MAY_DIFFER = ("vocab_size", "dense_act_fn", "max_position_embeddings", "tie_word_embeddings")
_IMAGE, _PAD, _DEC = "<image>", "[PAD]", "[DEC]"
# Any class of transformers that has a name of its own rebuilds the tokenizer in its own way; this one takes the file.
_CLASS = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}


def configuration_for(folder: Path) -> dict[str, Any]:
    """Returns the shipped `config.json` of the InstructBLIP that has this language model.

    Raises:
        CheckpointError: none has, or the folder's own is missing or damaged.
    """
    size = _size(_text_config(folder))
    for backbone in instructblip_backbones():
        values = backbone.config()
        if _size(InstructBlipConfig.from_dict(values).text_config) == size:
            return values
    why = f"no InstructBLIP is known with a {' '.join(map(str, size))}"
    raise _refused("language model", folder, why, "Give FlanT5-XL, -XXL, Vicuna-7B or -13B, or --config FILE")


def require_same_language_model(folder: Path, text_config: TextConfig) -> None:
    """Refuses a language model that computes otherwise, which its tensors' shapes would not tell.

    Raises:
        CheckpointError: with the first three differences.
    """
    kind = read_json_object(folder / "config.json").get("model_type")
    if text_config_class(kind) is not None and kind != text_config.model_type:
        why = f"it is a {kind}, the configuration wants a {text_config.model_type}"
        raise _refused("language model", folder, why, "Give the folder that belongs to the .pth file")
    theirs = _text_config(folder)
    values, expected = theirs.computed_values(), text_config.computed_values()
    differences = [
        f"{name} {values[name]} instead of {value}"
        for name, value in expected.items()
        if values[name] != value and name not in _MAY_DIFFER and not name.endswith(("_token_id", "_token_ids"))
    ]
    if differences:
        raise _refused("language model", folder, ", ".join(differences[:3]), "InstructBLIP has FlanT5 or Vicuna v1.1")


def _text_config(folder: Path) -> TextConfig:
    values = read_json_object(folder / "config.json")
    kind = text_config_class(values.get("model_type"))
    if kind is None:
        why = f"its model_type is {str(values.get('model_type'))[:30]!r}, neither t5 nor llama"
        raise _refused("language model", folder, why, "Give the folder of FlanT5 or Vicuna")
    return kind.from_dict(values)


def _size(config: TextConfig) -> tuple[str, int, int]:
    return config.model_type, config.hidden_size, config.num_layers


def language_tokenizer(folder: Path, config: InstructBlipConfig) -> Tokenizer:
    """Reads the language model's tokenizer and gives it InstructBLIP's tokens.

    Args:
        folder: FlanT5's or Vicuna's.
        config: the whole model's; it knows the id of `<image>`.

    Raises:
        CheckpointError: it is missing or damaged, or the tokens do not get the ids that the model knows.
    """
    tokenizer, text = read_tokenizer(folder), config.text_config
    if tokenizer.token_to_id(_IMAGE) is None:
        _add(tokenizer, *text.added_tokens)
    image_id, expected_id = tokenizer.token_to_id(_IMAGE), config.image_token_index
    if expected_id is not None and image_id != expected_id:
        why = f"{_IMAGE} gets the id {image_id}, the configuration says {expected_id}"
        raise _refused(
            "the language model's tokenizer", folder, why, "Give the tokenizer that the model was trained with"
        )
    if tokenizer.get_vocab_size() > text.vocab_size:
        why = f"it has {tokenizer.get_vocab_size()} tokens, the configuration {text.vocab_size}"
        raise _refused("the language model's tokenizer", folder, why, "Give the model's own one")
    end = tokenizer.id_to_token(text.eos_token_id)
    if end is None:
        why = f"it has no token {text.eos_token_id}, which ends a text"
        raise _refused("the language model's tokenizer", folder, why, "Give the model's own one")
    # LAVIS trained Vicuna with `</s>` in front of its prompts, not `<s>`; FlanT5's end with it.
    _surround(tokenizer, ["$A", end] if text.prompt_has_eos else [end, "$A"])
    return tokenizer


def qformer_tokenizer(folder: Path, config: InstructBlipConfig) -> Tokenizer:
    """Reads BERT's tokenizer and gives it the Q-Former's `[DEC]`.

    Raises:
        CheckpointError: it is missing or damaged, or does not fit the Q-Former's embeddings.
    """
    tokenizer, size = read_tokenizer(folder), config.qformer_config.vocab_size
    _add(tokenizer, _DEC)
    if any(tokenizer.token_to_id(token) is None for token in ("[CLS]", "[SEP]")):
        raise _refused("the Q-Former's tokenizer", folder, "it has no [CLS] or [SEP]", "Give bert-base-uncased's")
    if tokenizer.get_vocab_size() > size:
        why = f"it has {tokenizer.get_vocab_size()} tokens with {_DEC}, the Q-Former {size}"
        raise _refused("the Q-Former's tokenizer", folder, why, "Give bert-base-uncased's")
    _surround(tokenizer, ["[CLS]", "$A", "[SEP]"])
    return tokenizer


def save_tokenizers(folder: Path, language: Tokenizer, qformer: Tokenizer, config: InstructBlipConfig) -> None:
    """Writes both as an InstructBLIP folder has them."""
    _save(folder, language, _language_facts(language, config))
    facts = {"bos_token": _DEC, "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    _save(folder / "qformer_tokenizer", qformer, {**facts, "truncation_side": "left"})


def _add(tokenizer: Tokenizer, *tokens: str) -> None:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])


def _surround(tokenizer: Tokenizer, template: list[str]) -> None:
    """Says what transformers puts around a text; we do it ourselves (`tokenization.py`)."""
    special = [(token, tokenizer.token_to_id(token)) for token in template if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)


def _language_facts(tokenizer: Tokenizer, config: InstructBlipConfig) -> dict[str, Any]:
    text = config.text_config
    end = tokenizer.id_to_token(text.eos_token_id)
    facts = {"eos_token": end, "truncation_side": "left"}
    if text.bos_token_id is not None:
        pad = _PAD if tokenizer.token_to_id(_PAD) is not None else tokenizer.id_to_token(text.pad_token_id)
        return {**facts, "bos_token": end, "unk_token": end, "pad_token": pad, "padding_side": "left"}
    unknown = {"unk_token": "<unk>"} if tokenizer.token_to_id("<unk>") is not None else {}
    return {**facts, **unknown, "pad_token": tokenizer.id_to_token(text.pad_token_id)}


def _save(folder: Path, tokenizer: Tokenizer, facts: Mapping[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    content = json.dumps({**_CLASS, **facts}, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(content, encoding="utf-8")


def _refused(what: str, place: Path, why: str, advice: str) -> CheckpointError:
    return CheckpointError.at(f"cannot use {what}", place, why, advice)
