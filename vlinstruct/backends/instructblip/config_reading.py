"""Reads a model folder's JSON files key by key: what changes the computation is followed, or refused by name.

A key is one of four kinds: a field, whose value must have the field's type; one whose value must be what we compute;
one that is known to change nothing, listed here with the reason; or unknown, and then refused, unless it is null. To
skip what is unknown would be quicker and wrong: `scale_decoder_outputs: false`, which transformers 5 writes for FlanT5,
was once such a key, and every score was off by a factor of sqrt(d_model).

Keys and defaults are transformers' (5.24, and 4.31, which wrote the hub's InstructBLIP folders with every default).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from vlinstruct.errors import CheckpointError, shortened

_MAX_SHOWN = 4
_MOST, _MOST_LAYERS = 10_000_000, 1_000  # ten times what the largest models have

# What is on in training alone, or sets weights that a file replaces.
_TRAINING = (
    "attention_dropout",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "drop_path_rate",
    "dropout",
    "dropout_rate",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "initializer_factor",
    "initializer_range",
)
# What transformers returns beside the logits, how it saves memory, and what it notes of a file's origin.
_BOOKKEEPING = (
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "auto_map",  # names code, for which a folder is refused as a whole (`weights.hub.refuse_code`)
    "chunk_size_feed_forward",
    "dtype",
    "finetuning_task",
    "id2label",
    "is_encoder_decoder",  # `model_type` says it
    "label2id",
    "max_sequence_length",  # the first LLaMA's files; `max_position_embeddings` is what counts
    "model_type",
    "n_positions",  # T5 has no last position
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "prefix",
    "pretraining_tp",  # computes a product in slices: the same sum
    "problem_type",
    "return_dict",
    "task_specific_params",
    "tf_legacy_loss",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_bfloat16",
    "use_cache",
)
# Defaults of `generate`, which transformers 4 wrote into every part; ours are GenerationSettings', said in `--help`.
# Not the ones that forbid or force tokens: these have no option here, so that a file with one is refused.
_GENERATION = (
    "_from_model_config",
    "cache_implementation",
    "disable_compile",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "is_assistant",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "output_logits",
    "remove_invalid_values",
    "renormalize_logits",
    "repetition_penalty",
    "return_dict_in_generate",
    "temperature",
    "top_h",
    "top_k",
    "top_p",
    "typical_p",
)
WITHOUT_EFFECT = frozenset((*_TRAINING, *_BOOKKEEPING, *_GENERATION))
GENERATION_WITHOUT_EFFECT = frozenset((*_BOOKKEEPING, *_GENERATION))

# What other architectures set; of these alone a value other than null is known to mean "off".
FIXED: Mapping[str, Any] = {
    "add_cross_attention": False,
    "is_decoder": False,
    "position_embedding_type": "absolute",
    "pruned_heads": {},
    "tie_encoder_decoder": False,
}


def part_fields(
    kind: type,
    values: object,
    place: str,
    *,
    fixed: Mapping[str, Any] | None = None,
    without_effect: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the values that a dataclass has fields for.

    Args:
        kind: a dataclass whose fields are numbers, texts and flags, or may be None; tuples are not read.
        values: what the file has; null of a key means the field's default, as transformers takes it.
        place: what messages call it, e.g. `text_config`.
        fixed: further keys, with the only value that we compute.
        without_effect: further keys that change nothing.

    Raises:
        CheckpointError: it is no object, or a key has a value that we cannot follow; every such key is named.
    """
    values = as_mapping(values, place)
    types = get_type_hints(kind)
    known = {field.name for field in fields(kind) if get_origin(types[field.name]) is not tuple}
    allowed = {**FIXED, **(fixed or {})}
    read: dict[str, Any] = {}
    problems = []
    for name, value in values.items():
        if value is None or (name not in known and (name in WITHOUT_EFFECT or name in without_effect)):
            continue
        if name in known:
            read[name] = value
            if (wrong := _wrong_type(name, value, types[name])) is not None:
                problems.append(f"{name} should be {wrong}, got {_shown(value)}")
        elif name not in allowed:
            problems.append(f"{name} is {_shown(value)}, which this version does not know")
        elif value != allowed[name]:
            problems.append(f"{name} is {_shown(value)}, only {_shown(allowed[name])} is computed")
    refuse(problems, place)
    return read


def as_mapping(values: object, place: str) -> Mapping[str, Any]:
    """Returns a part that must be an object.

    Raises:
        CheckpointError: it is none.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{place} is {_shown(values)}: an object was expected.")
    return values


def refuse(problems: Sequence[str], place: str) -> None:
    """Raises the error that names what cannot be followed; nothing where there is nothing.

    Raises:
        CheckpointError: there are problems.
    """
    if problems:
        rest = f" and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
        raise CheckpointError(
            f"cannot follow {place}: {'; '.join(problems[:_MAX_SHOWN])}{rest}",
            advice="Remove what changes no answer; the rest needs another model folder.",
        )


def _wrong_type(name: str, value: object, kind: Any) -> str | None:
    """Returns what a field's value should have been, in words; None where it is right."""
    kinds = [part for part in (get_args(kind) or (kind,)) if part is not NoneType]
    if bool in kinds:
        return None if isinstance(value, bool) else "true or false"
    if str in kinds:
        return None if isinstance(value, str) else "a text"
    if float in kinds:
        is_right = is_number(value) and float(value) > 0  # type: ignore[arg-type]  # is_number says so
        return None if is_right else "a number above 0"
    # Ids may be -1, which means none; sizes and counts may not. A module is built before its weights are looked for, so
    # a billion layers would be built for hours.
    least = -1 if name.endswith(("_token_id", "_token_index")) else 1
    most = _MOST_LAYERS if name.endswith("layers") else _MOST
    is_right = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    return None if is_right else f"a whole number from {least} to {most:,}"


def refuse_uneven(width: int, num_heads: int, place: str) -> None:
    """Refuses a width that cannot be cut into so many heads.

    Raises:
        CheckpointError: it cannot.
    """
    if width % num_heads:
        refuse([f"hidden_size is {width}, which {num_heads} attention heads do not divide"], place)


def is_number(value: object) -> bool:
    """Says whether a value of JSON is a finite number; to Python true is one, and 1e999 is infinite.

    >>> is_number(0.5), is_number(True), is_number(float("inf")), is_number("1")
    (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def token_ids(value: object, place: str) -> tuple[int, ...]:
    """Returns the ids of a key that holds one or a list of them; none for null and for -1.

    Raises:
        CheckpointError: it holds anything else.
    """
    ids = value if isinstance(value, list) else [value]
    ids = [token for token in ids if token is not None and token != -1]
    if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids):
        raise CheckpointError(f"{place} is {_shown(value)}: an id or a list of ids was expected.")
    return tuple(ids)


def _shown(value: object) -> str:
    return shortened(repr(value), 60)
