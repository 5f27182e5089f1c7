"""A backbone's config.json and image settings, against what was trained.

A value that changes answers without an error is what is looked for here; one that cannot be loaded is refused before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vlinstruct.backends.instructblip.image_processor import ImageProcessor, image_settings, read_image_processor
from vlinstruct.backends.registry import of_same_shape
from vlinstruct.doctor.finding import Finding, notice, ok, problem, refusal
from vlinstruct.doctor.folder import ModelFolder
from vlinstruct.errors import CheckpointError
from vlinstruct.files import read_json_object
from vlinstruct.weights.hub import names_code

_ARCHITECTURE = "InstructBlipForConditionalGeneration"
_COPY = "Take config.json and the weights from the same model"
_CLIP = "Take the image settings from the model's repository: bicubic (3), scaled to 0 to 1, CLIP's mean and deviation"


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
    """Settings that make other libraries run a model's own code; a folder that has one is refused."""
    settings = {path.name: names_code(read_json_object(path)) for path in sorted(model.folder.glob("*config.json"))}
    places = [f"{name} ({setting})" for name, setting in settings.items() if setting is not None]
    if places:
        message = f"{', '.join(places)} asks for code of its own, which we never run and other libraries may"
        yield problem("code", message, "Remove the setting")
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
    """How pictures become pixel values, against CLIP's way, with which every model of this family was trained."""
    try:
        values, place = image_settings(model.folder)
        processor = read_image_processor(model.folder, model.config)
    except CheckpointError as error:
        yield refusal("pictures", error, _CLIP)
        return
    side = processor.image_size
    if not values:
        message = f"no settings: {side} pixels, bicubic, CLIP's mean and deviation are taken"
        yield notice("pictures", message, "Copy preprocessor_config.json from the model's repository")
        return
    usual = ImageProcessor(image_size=side)
    differences = [
        f"{name} is {getattr(processor, name)}"
        for name in ("image_mean", "image_std", "rescale_factor", "resample")
        if not np.allclose(getattr(processor, name), getattr(usual, name), atol=1e-4)
    ]
    if differences:
        message = f"{', '.join(differences)} in {Path(place).name}: the models of this family were trained with CLIP's"
        yield notice("pictures", message, _CLIP)
    else:
        yield ok("pictures", f"{side} x {side} pixels, bicubic, CLIP's mean and deviation")
