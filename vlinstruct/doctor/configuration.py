"""A backbone's config.json and preprocessor_config.json, against what was trained and what we compute.

A value that changes answers without an error is what is looked for here; one that cannot be loaded is refused before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vlinstruct.backends.registry import of_same_shape
from vlinstruct.doctor.finding import Finding, notice, ok, problem
from vlinstruct.doctor.folder import ModelFolder
from vlinstruct.files import read_json_object
from vlinstruct.weights.hub import names_code

_ARCHITECTURE = "InstructBlipForConditionalGeneration"
_COPY = "Take config.json and the weights from the same model"
# CLIP's, with which every model of this family was trained.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3  # Pillow's number
_CLIP = f"Write image_mean {list(_MEAN)}, image_std {list(_STD)} and resample 3 into preprocessor_config.json"
_DOES: Mapping[str, bool] = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_center_crop": False}


def architecture(model: ModelFolder) -> Iterator[Finding]:
    """What kind of model it is, and which known one has its shape."""
    kind = model.config.text_config.kind
    twin = of_same_shape(model.values)
    shape = "" if twin is None else f", the shape of {twin.name}"
    yield ok("architecture", f"InstructBLIP with {kind}{shape}, {model.config.num_query_tokens} query tokens")
    architectures = model.values.get("architectures") or [_ARCHITECTURE]
    if _ARCHITECTURE not in architectures:
        message = f"config.json names {architectures}, {_ARCHITECTURE} was expected"
        yield notice("architecture", message, _COPY)


def code(model: ModelFolder) -> Iterator[Finding]:
    """Settings that make other libraries run a model's own code; we refuse to load a hub repository that has one."""
    settings = {path.name: names_code(read_json_object(path)) for path in sorted(model.folder.glob("*config.json"))}
    places = [f"{name} ({setting})" for name, setting in settings.items() if setting is not None]
    if places:
        message = f"{', '.join(places)} asks for code of its own: we never run it, other libraries may"
        yield notice("code", message, "Remove the setting")
    else:
        yield ok("code", "none is asked for")


def old_snapshot(model: ModelFolder) -> Iterator[Finding]:
    """Settings that snapshots from before transformers 4.46 leave out."""
    if model.values.get("num_query_tokens") is None:
        fix = 'Write "num_query_tokens": 32 into config.json, or download a newer snapshot'
        yield notice("num_query_tokens", "missing (an old snapshot): taken for 32", fix)
    if model.config.image_token_index is None:
        fix = "Download a newer snapshot, where transformers is to load it, too"
        yield notice("image_token_index", "missing (an old snapshot): we do without, transformers cannot", fix)


def activation(model: ModelFolder) -> Iterator[Finding]:
    """Whether FlanT5 computes the exact gelu, with which InstructBLIP trained it."""
    text = model.config.text_config
    if text.gated_activation is None:
        return
    if text.gated_activation == "gelu":
        yield ok("activation", "gelu, as InstructBLIP's FlanT5 was trained")
    else:
        message = f"{text.gated_activation}, but InstructBLIP's FlanT5 was trained with gelu: answers may change"
        yield notice("activation", message, 'Write "dense_act_fn": "gelu" into text_config in config.json')


def decoder_start(model: ModelFolder) -> Iterator[Finding]:
    """Whether T5's decoder begins with the padding token, as it was trained."""
    text = model.config.text_config
    start, pad = text.decoder_start_token_id, text.pad_token_id
    if start is None:
        return
    if not 0 <= start < text.vocab_size:
        yield problem("decoder start", f"id {start} is outside of the vocabulary ({text.vocab_size})", _COPY)
    elif start != pad:
        message = f"id {start}, but T5 was trained to begin with its padding, id {pad}"
        yield notice("decoder start", message, f'Write "decoder_start_token_id": {pad} into text_config in config.json')
    else:
        yield ok("decoder start", f"id {start}, the padding")


def positions(model: ModelFolder) -> Iterator[Finding]:
    """How long a prompt may be; T5 has no limit of its own."""
    text = model.config.text_config
    qformer = model.config.qformer_config.max_position_embeddings
    limit = "any length" if text.max_positions is None else f"{text.max_positions} tokens"
    yield ok("positions", f"prompts of {limit}; the Q-Former reads {qformer - 2} tokens of an instruction")


def pictures(model: ModelFolder) -> Iterator[Finding]:
    """How pictures become pixel values."""
    path, side = model.folder / "preprocessor_config.json", model.config.vision_config.image_size
    if not path.exists():
        message = f"preprocessor_config.json is missing: {side} pixels, bicubic, CLIP's mean and deviation are taken"
        yield notice("pictures", message, "Copy preprocessor_config.json from the model's repository")
        return
    values = read_json_object(path)
    findings = [*_wrong_normalisation(values)]
    size = values.get("size")
    sides = set(size.values()) if isinstance(size, dict) else {size}
    if size is not None and sides != {side}:  # the vision tower's positions are trained for its own size
        message = f"preprocessor_config.json says {size}, the vision tower reads {side} pixels, which wins"
        findings.insert(0, notice("pictures", message, _COPY))
    steps = [name for name, is_done in _DOES.items() if bool(values.get(name, is_done)) != is_done]
    if steps:
        message = f"{', '.join(steps)} are not followed: pictures are squeezed to a square, scaled and normalised"
        findings.append(notice("pictures", message, "Compare a few answers with those of the model's authors"))
    yield from findings or [ok("pictures", f"{side} x {side} pixels, bicubic, CLIP's mean and deviation")]


def _wrong_normalisation(values: Mapping[str, Any]) -> Iterator[Finding]:
    for name, trained in (("image_mean", _MEAN), ("image_std", _STD)):
        numbers = values.get(name) or trained
        are_numbers = isinstance(numbers, list | tuple) and all(isinstance(value, int | float) for value in numbers)
        if not are_numbers or len(numbers) != 3 or (name == "image_std" and 0 in numbers):  # which is divided by
            yield problem("pictures", f"{name} is {numbers}: three numbers were expected, none of image_std 0", _CLIP)
        elif any(not math.isclose(value, usual, abs_tol=1e-4) for value, usual in zip(numbers, trained, strict=True)):
            yield notice("pictures", f"{name} is {numbers}, the models of this family were trained with CLIP's", _CLIP)
    resample = values.get("resample", _BICUBIC)
    if resample != _BICUBIC:
        yield notice("pictures", f"resample is {resample}, the models were trained with bicubic (3)", _CLIP)
