"""What a table was measured on and with, and what its words mean, as people say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vlinstruct.evaluation.benchmark import Metric
from vlinstruct.evaluation.report.table import MEANINGS, Table

_NAMES = {
    "backbone": "model",
    "split": "part of mini's world",
    "seed": "seed of items and resamples",
    "items_per_task": "items of each task",
    "items": "items",
    "prompts": "prompts",
    "image_size": "side of a picture as the model reads it, in pixels",
    "think": "thinks before it answers",
    "ocr_tokens": "OCR tokens",
    "items_without_ocr_tokens": "items that have no OCR token",
    "ocr_pictures": "pictures whose text was read here",
    "ocr_library": "read by",
    "vqa_normalizer": "VQA answers are equal by the rules of",
    "caption_tokenizer": "captions are tokenized by",
    "least_certainty": "least certainty of a rewriting's token",
    "max_cross_nll": "largest mean nats of the cross check",
    "sure_above": "words are left alone above a certainty of",
}
_VALUES = {
    ("vqa_normalizer", "official"): "VQA v2.0's code",
    ("vqa_normalizer", "lavis"): "LAVIS",
    ("vqa_normalizer", "evalai"): "lmms-eval (EvalAI's)",
    ("caption_tokenizer", "built-in"): "rules of our own",
    ("caption_tokenizer", "stanford-corenlp-3.4.1"): "Stanford CoreNLP 3.4.1",
    ("think", "True"): "yes",
}
_METRICS: Mapping[Metric, str] = {
    "cider": "CIDEr",
    "accuracy": "exact match",
    "ranked_accuracy": "accuracy of the likeliest option",
    "vqa_accuracy": "VQA accuracy",
    "mrr": "mean reciprocal rank",
    "roc_auc": "area under the ROC curve",
}
_WORDS = {
    "canonical": "as the paper asks",
    "paraphrased": "in other words of the same meaning",
    "poor": "as people type in a hurry",
}


def facts_in_words(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields every fact with its name."""
    for name, value in facts.items():
        if name == "id":
            continue
        if isinstance(value, Mapping):  # tasks have one each
            said = ", ".join(f"{task} {_number(of_task)}" for task, of_task in value.items())
        else:
            said = _VALUES.get((name, str(value)), _number(value))
        yield _NAMES.get(name, name.replace("_", " ")), said


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def metric_in_words(metric: Metric) -> str:
    """Returns a metric's name."""
    return _METRICS[metric]


def words_in_words(table: Table) -> Iterator[tuple[str, str]]:
    """Yields what a table calls its kinds of words, its ways to choose and its first model, each with its meaning."""
    for words in table.words:
        yield f"{words} words", _WORDS[words]
    for column in table.columns:
        yield column, MEANINGS[column]
    if "vanilla" in table.models:
        yield "vanilla", "the model without an adapter"
