"""What the real weights write, as transformers' own tests have published it: how near we come, with `--deep`.

The tests of this package run on tiny models; these outputs are of FlanT5-XL's and Vicuna-7B's InstructBLIP itself.
Numbers of another device or type differ in their last bits, and a text may part where two tokens are nearly as likely:
so a difference is told, with its place, and is no problem by itself.

Source: transformers, tests/models/instructblip/test_modeling_instructblip.py (commit 003f0098).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.decoding import generate
from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.doctor.finding import DoctorSettings, Finding, notice, ok, refusal
from vlinstruct.errors import VlinstructError
from vlinstruct.media.fetch import Url, fetch
from vlinstruct.media.images import load_image
from vlinstruct.settings import GenerationSettings, Quantization

_LAVIS_PICTURE = "https://raw.githubusercontent.com/salesforce/LAVIS/main/docs/_static/Confusing-Pictures.jpg"
_BEACH_PICTURE = "https://huggingface.co/hf-internal-testing/blip-test-image/resolve/main/demo.jpg"
_COMPARE = "Compare at the published run's type and quantization, on a GPU; if it stays, report it with this output"
_LOGITS_TOLERANCE = 0.05  # 8-bit layers in float16 differ so much between two GPUs


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One published output.

    Args:
        picture: where the picture is published.
        prompt: what the Q-Former and the language model read.
        ids: of the new tokens, without the end token.
        settings: how it was written.
        dtype: what the model computed in.
        quantize: how its language model was stored.
        image_size: side in pixels where it was not the model's own.
        logits: of the first positions, for the first ids of the vocabulary; of a decoder-only model.
    """

    picture: str
    prompt: str
    ids: tuple[int, ...]
    settings: GenerationSettings
    dtype: str
    quantize: Quantization | None = None
    image_size: int | None = None
    logits: tuple[tuple[float, ...], ...] = ()


def _ids(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


GOLDENS: Mapping[str, Sequence[Golden]] = {
    "flant5-xl": (
        Golden(
            picture=_LAVIS_PICTURE,
            prompt="What is unusual about this image?",
            ids=_ids(
                "37 7225 1023 9850 7 3 9 388 3575 53 4954 30 8 223 13 3 9 4459 4049 16 8 2214 13 3 9 3164 690 2815 5 "
                "37 388 19 5119 3 9 4459 8677 28 46 3575 53 1476 5223 12 34 6 15495 24 3 88 19 692 112 293 10428 44 "
                "234 1066 145 338 3 9 50 1106 3522 144 42 2192 7919 31 7 5 37 1023 92 1267 3 9 381 13 119 3203 16 8 "
                "2458 6 379 14264 6 9256 7 6 11 11718 7 5"
            ),
            settings=GenerationSettings(num_beams=5, max_new_tokens=256, repetition_penalty=1.5, length_penalty=1.0),
            dtype="bfloat16",
        ),
        Golden(
            picture=_BEACH_PICTURE,
            prompt="What's in the image?",
            ids=_ids("37 1023 753 3 9 2335 3823 30 8 2608 28 3 9 1782 5"),
            settings=GenerationSettings(max_new_tokens=30),
            dtype="bfloat16",
            image_size=500,
        ),
    ),
    "vicuna-7b": (
        Golden(
            picture=_LAVIS_PICTURE,
            prompt="What is unusual about this image?",
            ids=_ids(
                "450 22910 9565 310 445 1967 338 393 263 767 338 13977 292 22095 373 278 1250 310 263 13328 20134 "
                "29963 1550 19500 373 263 19587 4272 11952 29889"
            ),
            settings=GenerationSettings(max_new_tokens=30),
            dtype="float16",
            quantize="8bit",
            logits=((-3.3926, -12.2969, 8.4922), (-5.0195, -11.9531, 8.1406), (-4.0039, -13.3594, 9.2578)),
        ),
    ),
}


def compare_deeply(settings: DoctorSettings, goldens: Sequence[Golden] | None = None) -> Iterator[Finding]:
    """Yields how near the backbone comes to each of its published outputs.

    Args:
        settings: what is examined; its picture takes the place of the first output's, its dtype of all of theirs.
        goldens: the outputs; those of the backbone's name if None.
    """
    if goldens is None:
        goldens = GOLDENS.get(settings.backbone, ())
    if not goldens:
        names = " and ".join(GOLDENS)
        yield notice("published output", f"none of {settings.backbone} is known", f"Take {names}")
    for place, golden in enumerate(goldens):
        check = f"published {place + 1}"
        picture = settings.picture if place == 0 else None
        if picture is None and settings.offline:
            yield notice(
                check, "not tried: its picture is to be fetched", f"Get {golden.picture}, give it by --picture"
            )
            continue
        try:
            yield from _compared(check, golden, settings, picture)
        except VlinstructError as error:
            yield refusal(check, error, "Fix it and run doctor --deep again")


def _compared(check: str, golden: Golden, settings: DoctorSettings, picture: Path | None) -> Iterator[Finding]:
    image = load_image(picture if picture is not None else fetch(Url(address=golden.picture))).image
    backend = load_backend(
        settings.backbone,
        device=settings.device,
        dtype=golden.dtype if settings.dtype == "auto" else settings.dtype,
        quantize=golden.quantize if settings.dtype == "auto" else None,
        image_size=golden.image_size,
        offline=True,
    )
    with torch.inference_mode():
        yield from _as_written(check, backend, image, golden)


def _as_written(check: str, backend: InstructBlipBackend, image: Image.Image, golden: Golden) -> Iterator[Finding]:
    network, how = backend.network, f"{str(backend.dtype).removeprefix('torch.')} on {backend.device}"
    prefix = network.image_prefix(
        network.encode_image(backend.pixel_values([image])), *backend.qformer_ids([golden.prompt])
    )
    context = backend.context([golden.prompt], list(prefix))
    (text,) = generate(network.language_model, context, golden.settings, backend.tokenizer.stop_ids)
    pairs = zip(text.ids, golden.ids, strict=False)
    length = min(len(text.ids), len(golden.ids))
    num_equal = next((place for place, (token, right) in enumerate(pairs) if token != right), length)
    if num_equal == len(golden.ids) == len(text.ids):
        yield ok(check, f"all {num_equal} tokens are the published ones ({how})")
    else:
        rest = [backend.tokenizer.decode(ids[num_equal : num_equal + 8]).strip() for ids in (text.ids, golden.ids)]
        message = f"{num_equal} of {len(golden.ids)} tokens are the published ones ({how}), then {rest[0]!r}"
        yield notice(check, f"{message} in place of {rest[1]!r}", _COMPARE)
    if golden.logits:
        # A picture's first positions see nothing of what is behind them.
        mask = torch.ones(prefix.shape[:2], device=prefix.device)
        lengths = range(1, len(golden.logits) + 1)
        rows = [network.language_model.prefill(prefix[:, :size], mask[:, :size])[0][0, -1] for size in lengths]
        first = torch.stack(rows)[:, : len(golden.logits[0])].float().cpu()
        difference = float((first - torch.tensor(golden.logits)).abs().max())
        message = f"the first logits differ from the published ones by up to {difference:.4f} ({how})"
        yield ok(check, message) if difference <= _LOGITS_TOLERANCE else notice(check, message, _COMPARE)
