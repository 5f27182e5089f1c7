"""A whole training as one YAML file: the data, the backbone, the output and every setting. No torch.

    data:
      - {path: a.jsonl, weight: 2, image_root: imgs}
      - b.jsonl
    val_size: 0.05
    backbone: flant5-xl
    output: adapter
    learning_rate: 1e-4

Names are the options'; paths start from where the command is run, as typed ones do. What is typed, or given in Python,
stands above the file. A training writes such a file beside its adapter: `settings.yaml`, with absolute paths, and
without the output, which is where it lies.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from vlinstruct.errors import DataError, UsageError
from vlinstruct.files import PathLike, written_atomically
from vlinstruct.settings_file import read_settings
from vlinstruct.training.settings import TrainingSettings
from vlinstruct.training.trackers import Tracker

SETTINGS_FILE = "settings.yaml"
_MAX_WEIGHT = 1000


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A set of samples among several.

    Args:
        path: what `--data` takes.
        weight: how often a sample of it is learned in an epoch, see `schedule.Mixture`.
        image_root: the folder that its picture paths start from; that of all sets, or its own, if None.

    Raises:
        UsageError: the weight is out of range.
    """

    path: str
    weight: float = 1.0
    image_root: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight <= _MAX_WEIGHT:
            raise UsageError(f"the weight of {self.path} must be above 0 and at most {_MAX_WEIGHT}, got {self.weight}")

    def absolute(self) -> DataSource:
        """Returns it with paths that hold wherever a command is run."""
        root = None if self.image_root is None else absolute(self.image_root)
        return replace(self, path=absolute(self.path), image_root=root)


@dataclass(frozen=True, kw_only=True)
class Experiment(TrainingSettings):
    """What a file may say: the settings of a training, and what `finetune` takes beside them under the same names.

    Args:
        data: one set or several; None is the example set.
        image_root: as of `finetune`, and so are the others.
        eval_data: what is validated on.
        eval_image_root: the folder of its pictures.
        columns: as typed, `image=file,question=q`.
        allow_outside: accept paths that lead out of the pictures' folder.
        skip_text_only: leave out records without a picture.
        output: the adapter's folder.
        backbone: what is trained.
        device: where.
        dtype: what the frozen parts compute in.
        report_to: a tracker.
    """

    data: tuple[DataSource, ...] | None = None
    image_root: str | None = None
    eval_data: str | None = None
    eval_image_root: str | None = None
    columns: str | None = None
    allow_outside: bool = False
    skip_text_only: bool = False
    output: str | None = None
    backbone: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    report_to: Tracker | None = None


def read_experiment(path: PathLike) -> dict[str, Any]:
    """Reads what a file says; what it leaves out is not in the result.

    Raises:
        DataError: it cannot be used, or one of its settings is out of range.
    """
    try:
        values = read_settings(path, Experiment)
        Experiment(**values)  # by itself: what is wrong with these is the file's fault
    except UsageError as error:
        raise DataError.at("cannot use settings", path, error.message.rstrip("."), "Correct the file") from error
    return values


def write_experiment(path: Path, values: Mapping[str, Any], settings: TrainingSettings) -> None:
    """Writes a file that trains the same.

    Args:
        path: where to.
        values: fields of Experiment; one that is None is left out.
        settings: the rest, whole.
    """
    import yaml

    given = {name: value for name, value in values.items() if value is not None}
    if "data" in given:
        given["data"] = [{k: v for k, v in asdict(source).items() if v is not None} for source in given["data"]]
    with written_atomically(path) as temporary:
        text = yaml.safe_dump({**given, **asdict(settings)}, sort_keys=False, width=math.inf)
        temporary.write_text(text, encoding="utf-8")


def absolute(path: str | os.PathLike[str]) -> str:
    """Returns a path that holds wherever a command is run."""
    return os.path.abspath(os.path.expanduser(path))


SETTING_NAMES = tuple(field.name for field in fields(TrainingSettings))
