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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from vlinstruct.backends.registry import known_backbone
from vlinstruct.errors import DataError, UsageError
from vlinstruct.files import PathLike, written_atomically
from vlinstruct.records.columns import columns_of
from vlinstruct.settings import Tracker
from vlinstruct.settings_file import read_settings
from vlinstruct.training.data.reading import RECORD_FIELDS, DataOptions
from vlinstruct.training.settings import TrainingSettings

SETTINGS_FILE = "settings.yaml"
DEFAULT_OUTPUT = "adapter"
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


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a call asks to train on what, before a file has said the rest; what is None, or "auto", was not given."""

    data: tuple[DataSource, ...] | None
    image_root: PathLike | None
    eval_data: PathLike | None
    eval_image_root: PathLike | None
    data_options: DataOptions
    output: PathLike | None = None
    backbone: str | None
    device: str
    dtype: str
    report_to: str | None
    offline: bool
    settings: Mapping[str, Any] = field(default_factory=dict)

    def completed(self, file: PathLike | None) -> Request:
        """Returns it with what a file says of the rest."""
        if file is None:
            return self
        values = read_experiment(file)
        options, columns = self.data_options, columns_of(values.get("columns"), RECORD_FIELDS)
        return replace(
            self,
            data_options=DataOptions(
                columns=options.columns or columns,
                allow_outside=options.allow_outside or values.get("allow_outside", False),
                skip_text_only=options.skip_text_only or values.get("skip_text_only", False),
            ),
            settings={**{name: values[name] for name in SETTING_NAMES if name in values}, **self.settings},
            **{
                name: values[name]
                for name in ("data", "image_root", "eval_data", "eval_image_root", "output", "backbone", "report_to")
                if getattr(self, name) is None and values.get(name) is not None
            },
            **{name: values[name] for name in ("device", "dtype") if getattr(self, name) == "auto" and name in values},
        )

    def split_over(self, num_processes: int, batch_size: int | None) -> Request:
        """Returns it with an update's batch of the size that it had, however many samples go together now."""
        rows = self.settings.get("per_device_train_batch_size")
        if batch_size is None or rows is None or not 1 <= rows <= batch_size:
            return self
        steps = max(1, batch_size // (rows * num_processes))
        return replace(self, settings={**self.settings, "gradient_accumulation_steps": steps})

    @property
    def folder(self) -> Path:
        """The adapter's."""
        return Path(self.output or DEFAULT_OUTPUT)

    def as_file(self, *, backbone: str, dtype: str) -> dict[str, Any]:
        """Returns what `settings.yaml` keeps of it, which holds wherever a command is run."""
        options, roots = self.data_options, {}
        for name in ("image_root", "eval_data", "eval_image_root"):
            place = getattr(self, name)
            roots[name] = None if place is None else absolute(place)
        is_folder = known_backbone(backbone) is None and os.path.isdir(os.path.expanduser(backbone))
        return {
            "data": None if self.data is None else [source.absolute() for source in self.data],
            **roots,
            "columns": ",".join(f"{name}={column}" for name, column in options.columns.items()) or None,
            "allow_outside": options.allow_outside or None,
            "skip_text_only": options.skip_text_only or None,
            "backbone": absolute(backbone) if is_folder else backbone,
            "dtype": dtype,
            "report_to": self.report_to,
        }


def sources_of(data: PathLike | Sequence[DataSource] | None) -> tuple[DataSource, ...] | None:
    """Returns the sets that a caller named: one by its path, or several."""
    if data is None or not isinstance(data, str | os.PathLike):
        return None if data is None else tuple(data)
    return (DataSource(path=os.fspath(data)),)
