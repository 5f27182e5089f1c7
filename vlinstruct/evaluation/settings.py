"""How an evaluation is done; what is evaluated, and where its records go, are `evaluate`'s own arguments. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlinstruct.metrics.vqa_accuracy import Normalizer
from vlinstruct.mini import Split
from vlinstruct.settings import GenerationSettings, Quantization


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How an evaluation is done; None leaves a setting to the benchmark.

    Args:
        ablation: give the backbone without an adapter a row of its own beside those of the adapters; without any
            adapter named, mini's are those that ship with it.
        split: which part of mini's world.
        seed: of mini's items and of the resamples behind the intervals.
        ocr: read the pictures that textvqa's files have no OCR tokens of (needs vlinstruct[ocr]).
        batch_size: items that go through the model together; moves the last decimals of a score, nothing else.
        num_beams: of the search for an answer.
        max_new_tokens: most tokens of an answer.
        repetition_penalty: above 1: tokens that an answer has are less likely.
        vqa_normalizer: whose rules make two answers equal: VQA v2.0's code, LAVIS' or lmms-eval's.
        device: where the model runs, e.g. "cuda:1".
        dtype: what the model computes in: auto, float32, bfloat16 or float16.
        quantize: store the language model's layers in fewer bits.
        offline: open no connection, use what is cached.
    """

    ablation: bool = False
    split: Split = "test"
    seed: int = 0
    ocr: bool = False
    batch_size: int = 16
    num_beams: int | None = None
    max_new_tokens: int | None = None
    repetition_penalty: float | None = None
    vqa_normalizer: Normalizer = "official"
    device: str = "auto"
    dtype: str = "auto"
    quantize: Quantization | None = None
    offline: bool = False

    def generation(self, own: GenerationSettings) -> GenerationSettings:
        """Returns a benchmark's own settings with what is set here in their place.

        Raises:
            UsageError: a number is out of range.
        """
        return replace(
            own,
            num_beams=own.num_beams if self.num_beams is None else self.num_beams,
            max_new_tokens=own.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens,
            repetition_penalty=own.repetition_penalty if self.repetition_penalty is None else self.repetition_penalty,
        )
