"""The four conversions behind one call; each is imported when it is asked for. No torch until then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlinstruct.backends.registry import BACKBONES, locate
from vlinstruct.files import read_json_object

if TYPE_CHECKING:
    from vlinstruct.conversion.model_folder import Writing, Written

Kind = Literal["lavis", "folder", "adapter", "merged"]
"""LAVIS's files to a model; a model to another one; a fine-tuning's file to an adapter; an adapter to a model."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What becomes what.

    Args:
        kind: which conversion.
        files: .pth files; none for `folder` and `merged`.
        folder: the language model's, the model's or the adapter's, by name, path or hub id; none for `adapter`.
        backbone: the model that files or adapter belong to, by name, path or hub id.
        config: a config.json in its place.
        bert: the folder of the Q-Former's tokenizer, for `lavis`.
        use_ema: whether CMAA was on in the training, for `adapter`.
        offline: use what is cached, open no connection.
    """

    kind: Kind
    files: Sequence[Path] = ()
    folder: str = ""
    backbone: str | None = None
    config: Path | None = None
    bert: Path = Path()
    use_ema: bool = False
    offline: bool = False


def convert(conversion: Conversion, writing: Writing) -> Written:
    """Converts.

    Raises:
        CheckpointError: something is missing, damaged, unsafe or does not fit; what, is named.
        InputError: something stands at the target.
        NetworkError: something is not cached and cannot be downloaded.
        ResourceError: the disk is full or not writable.
    """
    convert_this = {"lavis": _from_lavis, "folder": _from_folder, "adapter": _to_adapter, "merged": _merged}
    return convert_this[conversion.kind](conversion, writing)


def _from_lavis(conversion: Conversion, writing: Writing) -> Written:
    from vlinstruct.conversion.import_lavis import LavisParts, import_lavis
    from vlinstruct.conversion.language_model_folder import configuration_for

    language_model = _found(conversion, "language model")
    config = _configuration(conversion) or configuration_for(language_model)
    parts = LavisParts(files=conversion.files, language_model=language_model, bert=conversion.bert, config=config)
    return import_lavis(parts, writing)


def _from_folder(conversion: Conversion, writing: Writing) -> Written:
    from vlinstruct.conversion.convert_folder import convert_folder

    return convert_folder(_found(conversion, "model folder"), writing)


def _to_adapter(conversion: Conversion, writing: Writing) -> Written:
    from vlinstruct.conversion.extract_adapter import extract_adapter

    config = _configuration(conversion)
    assert config is not None
    return extract_adapter(conversion.files, config, writing, use_ema=conversion.use_ema)


def _merged(conversion: Conversion, writing: Writing) -> Written:
    from vlinstruct.conversion.convert_folder import merge_adapter

    assert conversion.backbone is not None
    adapter = _found(conversion, "adapter")
    return merge_adapter(adapter, locate(conversion.backbone, offline=conversion.offline), writing)


def _found(conversion: Conversion, what: str) -> Path:
    return locate(conversion.folder, offline=conversion.offline, what=what)


def _configuration(conversion: Conversion) -> dict[str, Any] | None:
    """Returns the `config.json` that was chosen: of a known backbone without a download; None if none was."""
    if conversion.config is not None:
        return read_json_object(conversion.config)
    if conversion.backbone is None:
        return None
    known = BACKBONES.get(conversion.backbone)
    if known is not None:
        return known.config()
    return read_json_object(locate(conversion.backbone, offline=conversion.offline) / "config.json")
