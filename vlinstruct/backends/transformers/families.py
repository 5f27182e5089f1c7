"""Where kinds of models differ from the common path, as data; a kind without an entry is tried and checked at load.

Seen with transformers 5.23 and 5.24, on tiny random models of every kind that has an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one `model_type` departs from the common path.

    Args:
        decoder: attribute of the part that reads on behind a cache, and reads texts without a picture, where the whole
            model insists on pixels; empty for the whole model.
        text_model: where the language model's layers are whose output `lm_head` reads, if nothing else is done to a
            token behind a cache: what the whole model looks for at each token then costs nothing (2 % of a token on a
            CPU, at 30 M weights). Empty where the whole model is asked.
        is_prefix_lm: whether picture and prompt see each other in both directions, so that what was read of a picture
            depends on the prompt, and a text alone needs types of tokens to be read so (off by 0.2 nats otherwise).
        before_prompt: what the processor wants in front of a prompt, for a model without a chat template.
        behind_prompt: what the processor writes behind one.
        batches: whether pictures of several rows go through it together, padded on the left.
        model_class: transformers' class that loads it, where the automatic one takes more than is needed.
        packages: what its processor imports beyond transformers' own requirements.
        broken_in: versions of transformers that cannot run it.
        is_verified: whether our tests compare it with transformers; others are checked when they are loaded.
    """

    decoder: str = ""
    text_model: str = ""
    is_prefix_lm: bool = False
    before_prompt: str = ""
    behind_prompt: str = ""
    batches: bool = True
    model_class: str = ""
    packages: tuple[str, ...] = ()
    broken_in: tuple[str, ...] = ()
    is_verified: bool = True


_VERIFIED = Family()
_TORCHVISION = ("torchvision",)  # a processor that is written for it alone
_USUAL = "model.language_model"
_COMMON = Family(text_model=_USUAL, packages=_TORCHVISION)

FAMILIES: Mapping[str, Family] = {
    "blip-2": Family(decoder="language_model", batches=False),  # its forward and `generate` insist on pixels
    "florence2": Family(batches=False),  # an encoder-decoder: padding on the left changes what its encoder reads
    "gemma3": _VERIFIED,
    "gemma4": Family(packages=_TORCHVISION),
    "idefics3": Family(text_model="model.text_model"),
    "internvl": _COMMON,
    "llama4": Family(packages=_TORCHVISION, broken_in=("5.24.0",)),  # AttributeError: image_outputs
    "llava": Family(text_model=_USUAL),
    "llava_next_video": _COMMON,
    "llava_onevision": _COMMON,
    "mistral3": _COMMON,
    "mllama": _VERIFIED,
    "paligemma": Family(is_prefix_lm=True, before_prompt="<image>", behind_prompt="\n", batches=False),
    "phi4_multimodal": Family(packages=_TORCHVISION, batches=False),  # its processor does not pad
    # Without the part that talks.
    "qwen2_5_omni": Family(
        model_class="Qwen2_5OmniThinkerForConditionalGeneration", text_model="model", packages=_TORCHVISION
    ),
    "qwen2_5_omni_thinker": Family(text_model="model", packages=_TORCHVISION),
    "qwen2_5_vl": _COMMON,
    "qwen3_5": _COMMON,
    "qwen3_vl": _COMMON,
    "smolvlm": Family(text_model="model.text_model", packages=("torchvision", "num2words")),
}
UNKNOWN = Family(is_verified=False)

UNSUPPORTED: Mapping[str, str] = {
    "kosmos-2": "what it has read of a picture cannot be shared, and scores of several texts differ by 0.5 nats",
    "instructblipvideo": "its weights are InstructBLIP's; give the InstructBLIP model, which takes clips, too",
}
"""Kinds that are refused by name, and why."""
