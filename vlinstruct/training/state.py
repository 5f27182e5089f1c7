"""What a training needs to go on as if it had never stopped: checkpoints that are whole or not there, and the log.

    checkpoints/step-00000120/   learning.safetensors  optimizer.safetensors  state.json  manifest.json
    log.jsonl                    one JSON line per update and per validation

A checkpoint is written into `.tmp-…`, every file synced, the manifest with their checksums last; then renamed, and only
then older ones go. At the start the newest checkpoint whose manifest holds is taken. accelerate's `save_state` writes
into the final folder after it has deleted the old one, so that a crash leaves nothing to load; and neither safetensors
nor torch's files have a checksum.

The log has no clocks: a resumed run's is byte for byte an uninterrupted one's. It may be ahead of the newest
checkpoint, and is cut back to it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from torch.optim import Optimizer

from vlinstruct.errors import CheckpointError, DataError, ResourceError
from vlinstruct.files import file_sha256, mode_under_umask, read_json_object, sync, written_atomically
from vlinstruct.records.foreign import as_object, is_whole, parse_strictly
from vlinstruct.weights.safetensors_files import tensors, write_tensors

_NUM_KEPT = 2  # the newest may turn out to be damaged
_PREFIX, _TEMPORARY = "step-", ".tmp-"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a training has to remember beside its weights.

    Args:
        rows: samples that go through the model together, fewer than asked for once memory had ended.
        skipped: updates that were left out because their loss was not finite.
        validated: the update after which was validated last; -1 for none.
        best_loss: the best validation's.
        best_step: after which update that was.
        num_not_best: validations since then.
    """

    rows: int
    skipped: int = 0
    validated: int = -1
    best_loss: float | None = None
    best_step: int | None = None
    num_not_best: int = 0

    def with_rows(self, rows: int) -> Standing:
        """Returns what is remembered once `rows` samples go through the model together."""
        return replace(self, rows=rows)

    def with_one_more_skipped(self) -> Standing:
        """Returns what is remembered after one more update was left out."""
        return replace(self, skipped=self.skipped + 1)

    def with_validation(self, step: int, loss: float) -> Standing:
        """Returns what is remembered after a validation; its loss is the best one where it is below all others."""
        if self.best_loss is not None and loss >= self.best_loss:
            return replace(self, validated=step, num_not_best=self.num_not_best + 1)
        return replace(self, validated=step, best_loss=loss, best_step=step, num_not_best=0)


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Where a training stands.

    Args:
        step: updates done.
        learning: what learns, by name.
        optimizer: AdamW's moments and counts, `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`.
        facts: what must be the same when it goes on: settings, data, weights.
        standing: what else it remembers.
    """

    step: int
    learning: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    standing: Standing


def optimizer_tensors(optimizer: Optimizer, learning: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns an optimizer's state by the names of what learns; torch's own state_dict knows parameters by number."""
    states = {name: optimizer.state[parameter] for name, parameter in learning.items()}
    return {f"{kind}.{name}": value for name, state in states.items() for kind, value in state.items()}


def restore_optimizer(optimizer: Optimizer, learning: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` returned."""
    for key, value in values.items():
        kind, _, name = key.partition(".")
        # AdamW keeps its counts of steps on the CPU, where reading them waits for no kernel.
        optimizer.state[learning[name]][kind] = value.clone().to("cpu" if kind == "step" else learning[name].device)


def save_state(folder: Path, state: TrainingState) -> None:
    """Writes a checkpoint and removes older ones than the last two.

    One of the same update that is whole stays: it holds the same weights, and until it were replaced there would be
    none.

    Raises:
        ResourceError: the disk is full or not writable; earlier checkpoints are as they were.
    """
    target = folder / f"{_PREFIX}{state.step:08}"
    temporary = folder / f"{_TEMPORARY}{target.name}"
    try:
        folder.mkdir(exist_ok=True)  # without the output's folder: who deletes that does not want it back
        for unfinished in folder.glob(f"{_TEMPORARY}*"):  # of a run that was killed while it saved
            _remove(unfinished)
        if target.exists() and _what_is_wrong(target) is None:
            return
        _write_files(temporary, state)
        if os.path.lexists(target):
            _remove(target)
        temporary.rename(target)
        sync(folder)
        for old in _checkpoints(folder)[:-_NUM_KEPT]:
            # Renamed first, so that half a checkpoint never has a checkpoint's name.
            doomed = old.with_name(f"{_TEMPORARY}old-{old.name}")
            old.rename(doomed)
            _remove(doomed)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ResourceError.at(
            "cannot save checkpoint", target, why, "Make it writable again, then --resume"
        ) from error


def newest_state(folder: Path) -> tuple[TrainingState | None, list[str]]:
    """Returns the newest checkpoint that is whole, and notices of damaged ones that were passed over.

    Raises:
        CheckpointError: there are checkpoints, and all of them are damaged.
    """
    checkpoints = _checkpoints(folder)
    notices: list[str] = []
    for path in reversed(checkpoints):
        problem = _what_is_wrong(path)
        if problem is None:
            values = read_json_object(path / "state.json")
            state = TrainingState(
                step=values["step"],
                learning=dict(tensors(path / "learning.safetensors")),
                optimizer=dict(tensors(path / "optimizer.safetensors")),
                facts=values["facts"],
                standing=Standing(**values["standing"]),
            )
            return state, notices
        notices.append(f"the checkpoint {path} is damaged ({problem}), an older one is taken")
    if checkpoints:
        raise CheckpointError(
            f"all checkpoints in {folder} are damaged", advice="Nothing was changed; start in another folder."
        )
    return None, []


def _remove(checkpoint: Path) -> None:
    if checkpoint.is_symlink():  # to another disk, or to anything: what it leads to is not ours
        checkpoint.unlink()
    else:
        shutil.rmtree(checkpoint)


_FILES = ("learning.safetensors", "optimizer.safetensors", "state.json")


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*")) if folder.is_dir() else []


def _write_files(folder: Path, state: TrainingState) -> None:
    folder.mkdir()
    for name, values in (("learning", state.learning), ("optimizer", state.optimizer)):
        write_tensors(values, folder / f"{name}.safetensors")
    standing = asdict(state.standing)
    _write_json(folder / "state.json", {"step": state.step, "facts": state.facts, "standing": standing})
    sums = {path.name: file_sha256(path, kind="model") for path in sorted(folder.iterdir())}
    for name in sums:
        (folder / name).chmod(mode_under_umask())  # safetensors writes 0600, and does not sync
        sync(folder / name)
    _write_json(folder / "manifest.json", sums)
    sync(folder / "manifest.json")
    sync(folder)


def _what_is_wrong(path: Path) -> str | None:
    """Returns why a checkpoint is not whole; None if it is."""
    try:
        sums = read_json_object(path / "manifest.json")
        if missing := [name for name in _FILES if name not in sums]:
            return f"manifest.json lacks {missing[0]}"
        # Our names alone: one that a stranger's manifest has may lead anywhere.
        damaged = [name for name in _FILES if file_sha256(path / name, kind="model") != sums[name]]
        if damaged:
            return f"{damaged[0]} has another checksum"
        values = read_json_object(path / "state.json")
    except CheckpointError as error:
        return error.message
    is_typed = is_whole(values.get("step")) and isinstance(values.get("facts"), dict)
    return None if is_typed and _standing(values.get("standing")) is not None else "its state.json is no training's"


def _standing(values: object) -> Standing | None:
    """Returns what a checkpoint's file says that the training remembered; None where it is not that."""
    names = {field.name for field in fields(Standing)}
    # Checkpoints from before the early stopping lack that number.
    if not isinstance(values, dict) or not names - {"num_not_best"} <= set(values) <= names:
        return None
    counts = [values[name] for name in ("rows", "skipped", "validated", "num_not_best") if name in values]
    best = [value for value in (values["best_loss"], values["best_step"]) if value is not None]
    is_typed = all(map(is_whole, counts)) and all(is_number(value) for value in best)
    return Standing(**values) if is_typed else None


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


class Log:
    """Appends the lines of a training's log; use it as a context manager.

    Args:
        path: the file; None writes nothing, on processes that are not the main one.
        last_step: the checkpoint's; lines of later updates, and half a line, are dropped.
        last_validation: the update that the checkpoint's last validation followed; lines of later ones are dropped.

    Raises:
        DataError: the file is no training's log.
    """

    def __init__(self, path: Path | None, *, last_step: int, last_validation: int) -> None:
        self.path = path
        if path is not None and path.exists():
            content = path.read_bytes()
            lines = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
            records = parsed_log(lines, path)
            kept = [
                line
                for line, record in zip(lines, records, strict=True)
                if self._is_covered(record, last_step, last_validation)
            ]
            if b"".join(kept) != content:
                with written_atomically(path) as temporary:
                    temporary.write_bytes(b"".join(kept))
        self.file = open(os.devnull if path is None else path, "ab")  # noqa: SIM115

    @staticmethod
    def _is_covered(record: dict[str, Any], last_step: int, last_validation: int) -> bool:
        return bool(record["step"] <= (last_validation if "eval_loss" in record else last_step))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.file.close()

    def write(self, record: dict[str, Any]) -> None:
        """Appends a line.

        Raises:
            ResourceError: the disk is full.
        """
        try:
            self.file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            self.file.flush()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise ResourceError.at("cannot write", str(self.path), why, "Free some space, then --resume") from error

    def sync(self) -> None:
        """Brings it to the disk, before the checkpoint that counts on it."""
        os.fsync(self.file.fileno())


def read_log(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a log, in order.

    Raises:
        DataError: the file is no training's log.
    """
    return parsed_log(path.read_bytes().splitlines(), path)


def parsed_log(lines: Sequence[bytes], path: Path) -> list[dict[str, Any]]:
    """Parses the lines of a log, which somebody may have edited: each has a step, and numbers as losses.

    Raises:
        DataError: one has not.
    """
    records = []
    for number, line in enumerate(lines, start=1):
        place = f"{path} line {number}"
        record = as_object(parse_strictly(line, place), place)
        losses = [record[name] for name in ("loss", "eval_loss") if name in record]
        if not is_whole(record.get("step")) or not all(loss is None or is_number(loss) for loss in losses):
            advice = "Put the line right, or delete the file: the training needs it for its curve alone"
            raise DataError.at("cannot read log", place, "it holds no update", advice, code="bad_log")
        records.append(record)
    return records


def is_number(value: object) -> bool:
    """Says whether a parsed value is a number; to Python a boolean is one."""
    return isinstance(value, float) or is_whole(value)
