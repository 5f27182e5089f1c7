"""What a benchmark is: its task, its items, and where its authors' files come from. No torch.

How answers are generated is what InstructBLIP's own evaluation in LAVIS does (github.com/salesforce/LAVIS): the files
under lavis/projects/instructblip, and the defaults of `predict_answers` in
lavis/models/blip2_models/blip2_t5_instruct.py. It follows from the metric, so that no benchmark says it again.

Chat models are asked as LLaVA-1.5's evaluation asks them, in lmms-eval's spelling (lmms_eval/tasks/ of
github.com/EvolvingLMMs-Lab/lmms-eval), and answer greedily, in 16 tokens (gqa.yaml there) or 64 (flickr30k's). Where
options are offered their letters are ranked, which is what these prompts ask for.

Where we differ: LAVIS' `generate` has a repetition penalty of 1.5, we have none unless `--repetition-penalty` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image

from vlinstruct.settings import GenerationSettings

SHORT_ANSWER = GenerationSettings(max_new_tokens=10, num_beams=5, length_penalty=-1.0)
CAPTION = GenerationSettings(max_new_tokens=30, num_beams=5, length_penalty=1.0)
CHAT_SHORT_ANSWER = GenerationSettings(max_new_tokens=16)
CHAT_CAPTION = GenerationSettings(max_new_tokens=64)
# They are printed beside the scores: whoever compares figures sees whose settings made them.
_SHORT_ANSWER_SOURCE = (
    "LAVIS, predict_answers and instructblip/qa_okvqa_*_eval.yaml: 5 beams, length penalty -1, 10 tokens"
)
_CAPTION_SOURCE = (
    "LAVIS, instructblip/caption_nocaps_*_eval.yaml: 5 beams, length penalty 1; 30 tokens are ours (10 to 80 there)"
)
_RANKED_SOURCE = "nothing is generated: the candidates are ranked by their likelihood"

Words = Literal["canonical", "paraphrased", "poor"]
"""How an item is asked: as the paper does, in other words of the same meaning, or as people type in a hurry."""
WORDS: tuple[Words, ...] = ("canonical", "paraphrased", "poor")

Metric = Literal["cider", "accuracy", "ranked_accuracy", "vqa_accuracy", "mrr", "roc_auc"]
_RANKED: frozenset[Metric] = frozenset({"ranked_accuracy", "mrr", "roc_auc"})


@dataclass(frozen=True, kw_only=True)
class Task:
    """A benchmark as far as its scores go.

    Args:
        name: what it is called.
        metric: how its answers are scored.
    """

    name: str
    metric: Metric

    @property
    def is_ranked(self) -> bool:
        """Whether the answer is one of an item's candidates, chosen by likelihood, in place of a generated one."""
        return self.metric in _RANKED


@dataclass(frozen=True, kw_only=True)
class Item:
    """A picture and a question.

    Args:
        id: unique in its task.
        task: the benchmark's name.
        load_picture: gives the picture, which is opened when the item is answered: a benchmark has thousands.
        instructions: how it is asked, by kind of words; official benchmarks have canonical ones only.
        references: right answers.
        candidates: what is ranked, where the task ranks.
        target: the place of the right one among these; found by its text if None, which two of them may share.
        num_ocr_tokens: how many OCR tokens its instruction shows; None where that has no place for any.
        fields: what the benchmark's instructions are filled with.
    """

    id: str
    task: str
    load_picture: Callable[[], Image.Image]
    instructions: Mapping[Words, str]
    references: tuple[str, ...]
    candidates: tuple[str, ...] = ()
    target: int | None = None
    num_ocr_tokens: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


ReadText = Callable[[str, Callable[[], Image.Image]], Sequence[str]]
"""Returns the tokens of a picture, given what it is called and what loads it."""


@dataclass(frozen=True, kw_only=True)
class HubCopy:
    """A benchmark as a data set on Hugging Face's hub: tables, parquet or Arrow, whose rows hold the pictures.

    Args:
        split: the part's name there.
        columns: what is read of a row.
        read: yields all items of the part, given the benchmark's folder; raises DataError where its tables cannot be
            used.
        hub_ids: its names on the hub, the newest first: those under which it is looked for in the hub's cache.
    """

    split: str
    columns: Sequence[str]
    read: Callable[[Path], Iterator[Item]]
    hub_ids: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark that its authors publish as files.

    Args:
        task: its name and its metric.
        part: which part of it is scored, in its authors' words.
        num_items: how many items that part has.
        instruction: what is asked, with the fields that an item fills.
        chat_instruction: what chat models are asked; {lettered_options} are an item's candidates, a line each.
        is_chat_ours: whether that is ours, since lmms-eval has no such task.
        source: where people get it.
        licence: of its annotations, as its authors say.
        forms: what is read, by path in the benchmark's folder, and what each is; a path that ends with a slash is a
            folder. One mapping for each form in which it is published: any of them is enough.
        example: one record of its annotations, as its authors write it.
        read: yields all items of the part, given the benchmark's folder; raises DataError where its annotations cannot
            be used.
        hub: where copies are on Hugging Face's hub, and what they lack.
        copy: how these are read; None where none holds what is needed, or where they are the authors' files.
        with_ocr: gives the benchmark with files that may lack OCR tokens, for which it asks then; None where it shows
            none.
        without_ocr: gives it as it is asked without them; None where it shows none.
        generation_note: what in the generation's settings is not their source's.
    """

    task: Task
    part: str
    num_items: int
    instruction: str
    chat_instruction: str
    source: str
    licence: str
    forms: Sequence[Mapping[str, str]]
    example: str
    read: Callable[[Path], Iterator[Item]]
    hub: str
    copy: HubCopy | None = None
    with_ocr: Callable[[ReadText], Benchmark] | None = None
    without_ocr: Callable[[], Benchmark] | None = None
    generation_note: str = ""
    is_chat_ours: bool = False

    @property
    def generation(self) -> GenerationSettings:
        """How its answers are generated; those of a benchmark that ranks are not."""
        if self.task.is_ranked:
            return GenerationSettings()
        return CAPTION if self.task.metric == "cider" else SHORT_ANSWER

    @property
    def chat_generation(self) -> GenerationSettings:
        """How chat models answer it."""
        if self.task.is_ranked:
            return GenerationSettings()
        return CHAT_CAPTION if self.task.metric == "cider" else CHAT_SHORT_ANSWER

    @property
    def generation_source(self) -> str:
        """Where these settings come from."""
        if self.task.is_ranked:
            return _RANKED_SOURCE
        source = _CAPTION_SOURCE if self.task.metric == "cider" else _SHORT_ANSWER_SOURCE
        return "; ".join(part for part in (source, self.generation_note) if part)

    def without_tokens(self) -> Benchmark:
        """Returns the benchmark as it takes its files without OCR tokens, where it shows any."""
        return self if self.with_ocr is None else self.with_ocr(lambda image, load_picture: ())
