"""`bench`: measures answers, training or ranking beside plain transformers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vlinstruct.backends.machine import require_machine
from vlinstruct.backends.opening import load_backend
from vlinstruct.backends.recordings import recordings_on
from vlinstruct.backends.registry import config_of, default_backbone, find, is_instructblip, known_backbone, resolve
from vlinstruct.bench.answers import Drawable, as_record, as_table, compare
from vlinstruct.bench.cold_start import cold_starts
from vlinstruct.bench.models import load_both, load_both_random
from vlinstruct.bench.questions import compare_questions, questions_record, questions_table
from vlinstruct.bench.ranking import compare_ranking, ranking_record, ranking_table
from vlinstruct.bench.replay import measured_acceptance
from vlinstruct.bench.theirs import TheirArms
from vlinstruct.bench.timing import Timing, environment
from vlinstruct.bench.training import compare_training, training_record, training_table
from vlinstruct.bench.workload import Workload, training_workloads
from vlinstruct.errors import InputError, UsageError
from vlinstruct.media.inputs import load_source
from vlinstruct.model import Model
from vlinstruct.records.items import ItemError, read_items
from vlinstruct.settings import GenerationSettings, ModelSettings
from vlinstruct.values import Identity

_ANSWERS_OF = (2, 15)  # tokens: a word, as VQA wants it, and a sentence
_VLM_ANSWERS_OF = (5, 30)  # chat models answer in sentences
_COLD_RUNS = 3
_MINI_ITEMS = 60
_BATCH = 1
_TRAINING_BATCH = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is measured.

    Args:
        backbone: a name, a folder or a hub id; `$VLINSTRUCT_BACKBONE` or mini if None.
        device: as `vlinstruct.load` takes it.
        dtype: as `vlinstruct.load` takes it.
        training: measure finetune in place of answers.
        num_candidates: measure ranking so many, at least 2, in place of answers; None for answers.
        data: a file of questions as `ask --data` takes it, to be measured in place of made-up ones; None for these.
        batch_sizes: how many pictures are asked about together, or samples of an update, of which there can be one
            size; 1, in training 8 if empty.
        acceptance: shares of the tokens of instructions that drafts give, 0 to 1; 0, what mini reaches, and 1 if empty.
        runs: of every arm, at least 2; in training epochs.
        cold_runs: starts of every cold process, at least 2; 0 for none; 3 where InstructBLIP's answers are measured if
            None.
        compile: as `vlinstruct.load` takes it.
        random_weights: the backbone's shapes with random weights; no download, no cold start.
        threads: CPU threads for the whole process from now on; torch's own choice if None.
        offline: open no connection; use what is cached.
    """

    backbone: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    training: bool = False
    num_candidates: int | None = None
    data: Path | None = None
    batch_sizes: Sequence[int] = ()
    acceptance: Sequence[float] = ()
    runs: int = 9
    cold_runs: int | None = None
    compile: bool = False
    random_weights: bool = False
    threads: int | None = None
    offline: bool = False


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured.

    Args:
        table: for people.
        record: every run's seconds, for machines.
        comparisons: of answers, one per workload; empty for training and ranking.
    """

    table: str
    record: Mapping[str, Any]
    comparisons: Sequence[Drawable] = ()


def bench(settings: BenchSettings, *, on_loaded: Callable[[], None] = lambda: None) -> Measurement:
    """Loads a backbone as ours and as transformers' model, and measures both in turns.

    Args:
        settings: what is measured.
        on_loaded: called once the models are loaded, before anything is measured.

    Raises:
        CheckpointError, NetworkError, InputError, ResourceError: as `vlinstruct.load`.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.compile:
        require_machine(settings.device, settings.dtype, None, compile=True)
    if settings.training and len(set(settings.batch_sizes)) > 1:
        raise UsageError("--training takes one --batch-size", advice="Measure each by a command of its own.")
    name, runs = settings.backbone or default_backbone(), settings.runs
    resolve(name)  # a server's model cannot be measured: its files are not here
    entry = known_backbone(name)
    if entry is not None:  # before it is downloaded
        _require_options(name, entry.config(), settings)
    identity = None if settings.random_weights else find(name, offline=settings.offline)
    config = config_of(name) if identity is None else identity.config
    _require_options(name, config, settings)
    if not is_instructblip(config):
        return _bench_any_vlm(name, identity, settings, on_loaded)
    if identity is None:
        ours, theirs = load_both_random(name, device=settings.device, dtype=settings.dtype, compile=settings.compile)
    else:
        ours, theirs = load_both(identity, device=settings.device, dtype=settings.dtype, compile=settings.compile)
    on_loaded()
    machine = environment(ours.device, ours.dtype)
    if settings.training:
        (batch_size,) = set(settings.batch_sizes) or (_TRAINING_BATCH,)
        trainings = compare_training(ours, theirs, training_workloads(batch_size), runs)
        return Measurement(table=training_table(trainings), record=training_record(name, trainings, machine))
    if settings.num_candidates is not None:
        ranking = compare_ranking(ours, theirs, settings.num_candidates, runs)
        return Measurement(table=ranking_table(ranking), record=ranking_record(name, ranking, machine))
    if settings.data is not None:

        @torch.inference_mode()
        def answer(image: Image.Image, question: str, max_new_tokens: int) -> None:
            TheirArms(theirs, ours, [image], Workload()).answered(question, max_new_tokens)

        cost = compare_questions(ours, answer, _questions(settings.data), runs)
        return Measurement(table=questions_table(cost), record=questions_record(name, cost, machine))
    shares = settings.acceptance or (0.0, measured_acceptance(_MINI_ITEMS), 1.0)
    questions = [
        Workload(answer_tokens=answer_tokens, batch=batch, acceptance=share)
        for answer_tokens, share, batch in product(_ANSWERS_OF, shares, settings.batch_sizes or (_BATCH,))
    ]
    comparisons = compare(ours, theirs, questions, runs)
    # A process starts from a folder, which random weights do not have.
    folder = ours.identity.folder
    cold_runs = _COLD_RUNS if settings.cold_runs is None else settings.cold_runs
    cold: Sequence[Timing] = ()
    if cold_runs > 0 and folder is not None:
        _log.info("cold starts of whole processes")
        cold = cold_starts(folder, cold_runs)
    return Measurement(
        table=as_table(comparisons, cold), record=as_record(name, comparisons, cold, machine), comparisons=comparisons
    )


def _bench_any_vlm(
    name: str, identity: Identity | None, settings: BenchSettings, on_loaded: Callable[[], None]
) -> Measurement:
    """Measures answers of any other model of transformers, on one model for all arms."""
    # Here, not above: they import transformers, for which a measurement of mini's alone must not wait.
    from vlinstruct.backends.transformers.any_vlm import TransformersBackend
    from vlinstruct.bench.any_vlm import compare_vlm, vlm_record, vlm_table
    from vlinstruct.bench.models import random_vlm
    from vlinstruct.bench.naive import NaiveBackend

    if identity is None:
        backend = random_vlm(name, device=settings.device, dtype=settings.dtype)
        backend.recordings = recordings_on(backend.device, name) if settings.compile else None
    else:
        own = ModelSettings(device=settings.device, dtype=settings.dtype, compile=settings.compile)
        loaded = load_backend(identity, own)
        assert isinstance(loaded, TransformersBackend)
        backend = loaded
    on_loaded()
    machine = environment(backend.device, backend.dtype)
    if settings.data is not None:
        naive = Model(NaiveBackend(backend))

        def answer(image: Image.Image, question: str, max_new_tokens: int) -> None:
            naive.ask(image, question, generation=GenerationSettings(max_new_tokens=max_new_tokens))

        cost = compare_questions(backend, answer, _questions(settings.data), settings.runs)
        return Measurement(table=questions_table(cost), record=questions_record(name, cost, machine))
    batch_sizes = settings.batch_sizes or (_BATCH,)
    comparisons = compare_vlm(backend, _VLM_ANSWERS_OF, batch_sizes=batch_sizes, runs=settings.runs)
    return Measurement(
        table=vlm_table(comparisons), record=vlm_record(name, comparisons, machine), comparisons=comparisons
    )


def _require_options(name: str, config: Mapping[str, Any], settings: BenchSettings) -> None:
    """Refuses what is measured of InstructBLIP alone."""
    only_ours = {
        "--training": settings.training,
        "--candidates": settings.num_candidates,
        "--acceptance": settings.acceptance,
        "--cold-runs": settings.cold_runs,
    }
    refused = ", ".join(option for option, value in only_ours.items() if value)
    if refused and not is_instructblip(config):
        raise InputError.at(f"cannot use {refused}", name, "for the InstructBLIP family alone", "Leave it out")


def _questions(data: Path) -> list[tuple[Image.Image, str]]:
    """Reads all items of a file; a bad one ends the measurement, since fewer questions are other questions."""
    questions = []
    for item in read_items(data):
        if isinstance(item, ItemError):
            raise item.error
        questions.append((load_source(item.image, name=str(item.image)).image, item.question))
    return questions
