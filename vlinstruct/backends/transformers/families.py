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
        is_prefix_lm: whether picture and prompt see each other in both directions, so that what was read of a picture
            depends on the prompt, and a text alone needs types of tokens to be read so (off by 0.2 nats otherwise).
        behind_prompt: what the processor writes behind a prompt, for a model without a chat template.
        batches: whether pictures of several rows go through it together, padded on the left.
        model_class: transformers' class that loads it, where the automatic one takes more than is needed.
        is_verified: whether our tests compare it with transformers; others are checked when they are loaded.
    """

    decoder: str = ""
    is_prefix_lm: bool = False
    behind_prompt: str = ""
    batches: bool = True
    model_class: str = ""
    is_verified: bool = True


_VERIFIED = Family()
_ONE_BY_ONE = Family(batches=False)

FAMILIES: Mapping[str, Family] = {
    "blip-2": Family(decoder="language_model", batches=False),  # its forward and `generate` insist on pixels
    "florence2": _ONE_BY_ONE,  # an encoder-decoder: padding on the left changes what its encoder reads
    "gemma3": _VERIFIED,
    "gemma4": _VERIFIED,
    "idefics3": _VERIFIED,
    "internvl": _VERIFIED,
    "llama4": _VERIFIED,
    "llava": _VERIFIED,
    "llava_next_video": _VERIFIED,
    "llava_onevision": _VERIFIED,
    "mistral3": _VERIFIED,
    "mllama": _VERIFIED,
    "paligemma": Family(is_prefix_lm=True, behind_prompt="\n", batches=False),
    "phi4_multimodal": _ONE_BY_ONE,  # its processor does not pad
    "qwen2_5_omni": Family(model_class="Qwen2_5OmniThinkerForConditionalGeneration"),  # without the part that talks
    "qwen2_5_omni_thinker": _VERIFIED,
    "qwen2_5_vl": _VERIFIED,
    "qwen3_5": _VERIFIED,
    "qwen3_vl": _VERIFIED,
    "smolvlm": _VERIFIED,
}
UNKNOWN = Family(is_verified=False)
