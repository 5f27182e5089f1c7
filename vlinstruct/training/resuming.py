"""Whether a training may begin or go on in its folder: nothing is mixed that does not belong together.

A checkpoint bears the facts that decide every bit of the result, and each is compared when a run goes on. Settings that
decide only when files are written are not among them; some may change where the user names them; any other difference
is refused. On torch's version and on how batches are split only the last bits depend, which a notice says.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vlinstruct.backends.instructblip.adapter import CONFIG_FILE
from vlinstruct.errors import CheckpointError, InputError, ResourceError, UsageError
from vlinstruct.files import read_json_object
from vlinstruct.training.job import Job, Plan, Progress
from vlinstruct.training.state import TrainingState, newest_state

# What decides when files are written or how a batch is computed, but not what is learned.
_MAY_CHANGE = (
    "save_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "auto_find_batch_size",
    "skip_nonfinite",
    "skip_images",
    "max_pixels",
    "allow_truncated",
)
# What may change when that is asked for: neither what learns nor in which order it meets the data.
MAY_BE_OVERRIDDEN = (
    "learning_rate",
    "weight_decay",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "lora_dropout",
    "eval_steps",
    "early_stopping_patience",
)


def earlier(job: Job, facts: Mapping[str, Any], progress: Progress) -> TrainingState | None:
    """Returns where an earlier run of the same training stopped; None where there is none.

    Args:
        job: what is asked for.
        facts: what decides every bit of it, see `facts_of`.
        progress: is told what a user should know.

    Raises:
        InputError: there is one and `resume` is off, or it was another run's.
        UsageError: a setting that was named cannot be overridden.
        CheckpointError: there are checkpoints, and all of them are damaged.
    """
    fixed = [name for name in job.override if name not in MAY_BE_OVERRIDDEN]
    if fixed:
        raise UsageError(f"--override cannot change {fixed[0]}: it can change {', '.join(MAY_BE_OVERRIDDEN)}.")
    if job.overwrite:
        return None
    state, notices = newest_state(job.folder / "checkpoints")
    for notice in notices:
        progress.notify(notice)
    is_there = state is not None or (job.folder / CONFIG_FILE).exists()
    if is_there and not job.resume:
        advice = "Go on with --resume, replace it with --overwrite, or name another folder"
        raise InputError.at("cannot train into", job.folder, "it holds a run", advice, code="output_not_empty")
    if state is None and is_there:
        why = "it holds an adapter and no checkpoint to go on from"
        raise InputError.at("cannot resume", job.folder, why, "Replace it with --overwrite, or name another folder")
    if state is None:
        if job.resume:
            progress.notify(f"no update is saved in {job.folder} yet: the training begins with its first.")
        return None
    _require_same(state.facts, facts, job.override, progress)
    is_split_alike = state.facts.get("split") == facts["split"]
    rows = state.standing.rows if is_split_alike else job.settings.per_device_train_batch_size
    return replace(state, standing=state.standing.with_rows(rows))


def batch_size_of(folder: Path) -> int | None:
    """Returns the samples of an update of the run that a folder holds; None where none is saved, or not readably."""
    for state in sorted((folder / "checkpoints").glob("step-*/state.json"), reverse=True):
        with suppress(CheckpointError):
            facts = read_json_object(state).get("facts")
            size = facts.get("batch_size") if isinstance(facts, dict) else None
            return size if isinstance(size, int) and not isinstance(size, bool) else None
    return None


def facts_of(job: Job, fingerprints: Sequence[str], planned: Plan) -> dict[str, Any]:
    """Returns what decides every bit of the result.

    Args:
        job: what is asked for.
        fingerprints: of the features of each of its sets.
        planned: the batch and the processes.
    """
    settings = job.settings
    answers = [[sample.id, sample.prompt, sample.answer] for sample in (*job.samples, *job.validation)]
    return {
        **{name: value for name, value in asdict(settings).items() if name not in _MAY_CHANGE},
        "weights_of_sets": [list(pair) for pair in zip(job.mixture.sizes, job.mixture.weights, strict=True)]
        if job.mixture is not None
        else None,
        "batch_size": planned.batch_size,
        "sources": list(job.sources),
        "data": hashlib.sha256(json.dumps([*fingerprints, answers]).encode()).hexdigest()[:16],
        "weights": job.weights,
        "dtype": str(job.backend.dtype).removeprefix("torch."),
        "torch": version("torch"),
        "device": job.backend.device.type,
        "split": [settings.per_device_train_batch_size, settings.gradient_accumulation_steps, planned.num_processes],
    }


def _require_same(
    old_facts: Mapping[str, Any], facts: Mapping[str, Any], override: Sequence[str], progress: Progress
) -> None:
    for name, began in (("torch", "with torch"), ("device", "on")):
        old = old_facts.get(name, facts[name])
        if old != facts[name]:
            progress.notify(f"it began {began} {old}, this is {facts[name]}: the last bits may differ.")
    if old_facts.get("split") != facts["split"]:
        progress.notify("its batches were split otherwise over steps and processes: the last bits may differ.")
    changed = {
        name: f"{name} was {old_facts.get(name)}, is {value}"
        for name, value in facts.items()
        if name not in ("torch", "device", "split", "sources")
        and old_facts.get(name) != value
        # Checkpoints of 0.1.0 lack these; what they change is in the data's fingerprint, too.
        and not (name in ("weights", "dtype") and name not in old_facts)
    }
    if "weights" in changed:
        changed["weights"] = "the model had other weights"
    if changed.keys() & {"weights", "dtype", "val_size"}:
        changed.pop("data", None)
    if "data" in changed:
        changed["data"] = _data_change(old_facts.get("sources"), facts["sources"])
    refused = [change for name, change in changed.items() if name not in override]
    if refused:
        override_too = " --override NAME," if set(changed) <= {*MAY_BE_OVERRIDDEN} else ""
        advice = f"Give what it began with,{override_too} or another --output"
        raise InputError.at("cannot resume", "the run", "; ".join(refused), advice, code="other_run")
    for change in changed.values():
        progress.notify(f"{change}, as --override asks.")


def _data_change(old_sources: object, sources: Sequence[str]) -> str:
    """Says how the data differ: by their names, since nobody knows a checksum."""
    before, now = (", ".join(map(str, names)) if isinstance(names, list) else "" for names in (old_sources, [*sources]))
    if before == now:
        return f"data was changed since then ({now})" if now else "data was changed since then"
    return f"data was {before or 'other'}, is {now or 'other'}"


def require_disk(folder: Path, planned: Plan) -> None:
    """Refuses a training that would fill the disk, before anything is computed.

    Raises:
        ResourceError: what is free is less than the features and the checkpoints need.
    """
    caches = [folder / name / "features.bin" for name in ("features", "features-eval")]
    needed = planned.disk_bytes - sum(path.stat().st_size for path in caches if path.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        why = f"{needed / 1e9:.2f} GB are needed (features and checkpoints), {free / 1e9:.2f} GB are free"
        raise ResourceError.at("cannot train into", folder, why, "Free some space", code="disk_full")
