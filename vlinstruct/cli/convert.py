"""`vlinstruct convert`: LAVIS's checkpoints, adapters and model folders become folders that can be loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlinstruct.cli.options import OUTPUT, CommonOptions, takes
from vlinstruct.cli.terminal import Talk, show, show_record
from vlinstruct.errors import InputError, UsageError, shortened

if TYPE_CHECKING:
    from vlinstruct.conversion.conversions import Kind
    from vlinstruct.conversion.model_folder import Written

To = Literal["model", "adapter", "merged"]

_WRITING = ("--dtype", "--max-shard-size")
_TAKES: Mapping[Kind, tuple[str, ...]] = {
    "lavis": ("--backbone", "--config", "--qformer-tokenizer", *_WRITING),
    "folder": _WRITING,
    "adapter": ("--backbone", "--config", "--ema"),
    "merged": ("--backbone", *_WRITING),
}
_NAMES: Mapping[Kind, str] = {
    "lavis": "LAVIS files to a model",
    "folder": "a model folder to another one",
    "adapter": "a checkpoint to an adapter",
    "merged": "an adapter to a model",
}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) ?([KMGT]?)B?", re.IGNORECASE)
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@takes(CommonOptions)
def convert(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help=".pth files, and folders (a name or a hub id will do, too)."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new folder.", rich_help_panel=OUTPUT)],
    to: Annotated[
        To, typer.Option(help="model: a folder for --backbone. adapter: one for --adapter. merged: both in one model.")
    ] = "model",
    backbone: Annotated[
        str | None, typer.Option(help="The model that it belongs to: a name, a folder or a hub id.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A config.json of another shape, in the place of a known backbone's.")
    ] = None,
    qformer_tokenizer: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="bert-base-uncased's tokenizer, for a model of LAVIS files.")
    ] = None,
    ema: Annotated[
        bool | None,
        typer.Option("--ema/--no-ema", help="Whether CMAA was on in an adapter's training.", show_default="no-ema"),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="What the new files hold.", show_default="as stored"),
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most bytes of a file, e.g. 500MB.", show_default="5GB")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model or adapter folder at --output.")] = False,
    keep_nonfinite: Annotated[
        bool, typer.Option("--keep-nonfinite", help="Write tensors that hold NaN or infinity, and name them.")
    ] = False,
    *,
    common: CommonOptions,
) -> None:
    """Convert checkpoints, adapters and model folders.

    \b
    convert instruct_blip_flanxl_trimmed.pth eva_vit_g.pth FLANT5_FOLDER --qformer-tokenizer BERT_FOLDER -o OUT
    convert checkpoint.pth --to adapter --backbone flant5-xl --ema -o OUT
    convert ADAPTER_FOLDER --to merged --backbone FOLDER -o OUT
    convert FOLDER --dtype bfloat16 --max-shard-size 2GB -o OUT

    Nothing is dropped silently, no code in a file is run, and OUT is whole or as it was.
    """
    files, folders = _told_apart(sources)
    kind = _kind(files, folders, to)
    given = {"--backbone": backbone, "--config": config, "--qformer-tokenizer": qformer_tokenizer, "--ema": ema}
    _require_taken(kind, {**given, "--dtype": dtype, "--max-shard-size": max_shard_size})
    max_shard_bytes = _num_bytes(max_shard_size or "5GB")
    import torch

    from vlinstruct.conversion import conversions
    from vlinstruct.conversion.model_folder import Writing

    conversion = conversions.Conversion(
        kind=kind,
        files=[Path(file) for file in files],
        folder=folders[0] if folders else "",
        backbone=backbone,
        config=config,
        bert=qformer_tokenizer or Path(),
        use_ema=ema is True,
        offline=common.offline,
    )
    talk, notices = Talk(quiet=common.quiet), list[str]()

    def notify(message: str) -> None:
        notices.append(message)
        talk.notice(message)

    writing = Writing(
        target=output,
        dtype=getattr(torch, dtype) if dtype else None,
        max_shard_bytes=max_shard_bytes,
        force=force,
        keep_nonfinite=keep_nonfinite,
        notify=notify,
        on_shard=lambda done, total: talk.progress(f"{done} of {total} files written") if total > 1 else None,
    )
    _show(kind, conversions.convert(conversion, writing), notices, talk, common.as_json)


def _told_apart(sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the files, and the folders by name, path or hub id."""
    files = [source for source in sources if Path(source).is_file() or source.endswith(_SUFFIXES)]
    missing = next((file for file in files if not Path(file).is_file()), None)
    if missing is not None:
        raise InputError.at("cannot read checkpoint", missing, "there is no such file", "Check the path")
    return files, [source for source in sources if source not in files]


def _kind(files: Sequence[str], folders: Sequence[str], to: To) -> Kind:
    """Returns what is to be converted to what; the sources alone do not tell."""
    if to == "adapter":
        if not files or folders:
            raise UsageError("--to adapter takes .pth files and no folder.")
        return "adapter"
    if len(folders) != 1 or (to == "merged" and files):
        takes = (
            "one adapter folder" if to == "merged" else "one folder, and with it LAVIS's .pth files if there are any"
        )
        hint = ": FlanT5's or Vicuna's, for the language model and its tokenizer" if files and to == "model" else ""
        raise UsageError(f"--to {to} takes {takes}{hint}; got {len(files)} files and {len(folders)} folders.")
    if to == "merged":
        return "merged"
    if (Path(folders[0]) / "alignment_config.json").is_file():
        raise UsageError(f"{shortened(folders[0], 80)} is an adapter: --to merged --backbone FOLDER makes a model.")
    return "lavis" if files else "folder"


def _require_taken(kind: Kind, options: Mapping[str, object]) -> None:
    """Refuses options that would be ignored, and names those that are missing."""
    given = [name for name, value in options.items() if value is not None]
    ignored = [name for name in given if name not in _TAKES[kind]]
    if ignored:
        raise UsageError(f"{', '.join(ignored)} cannot be used here: this converts {_NAMES[kind]}.")
    if {"--backbone", "--config"} <= set(given):
        raise UsageError("--backbone and --config contradict each other: both tell the shape of the model.")
    if kind == "lavis" and "--qformer-tokenizer" not in given:
        raise UsageError(
            "--qformer-tokenizer FOLDER is needed: LAVIS's files have no tokenizer",
            advice="Get tokenizer.json of "
            "huggingface.co/google-bert/bert-base-uncased; [DEC] is added, which makes its 30,523 tokens.",
        )
    if kind in ("adapter", "merged") and not {"--backbone", "--config"} & set(given):
        source = "checkpoint" if kind == "adapter" else "adapter"
        raise UsageError(f"--backbone is needed: the model that the {source} was made for.")


def _num_bytes(size: str) -> int:
    """Returns a size in bytes; powers of 1000, as transformers has them.

    >>> _num_bytes("5GB"), _num_bytes("1.5 kb"), _num_bytes("100")
    (5000000000, 1500, 100)
    """
    match = _SIZE.fullmatch(size.strip())
    num_bytes = int(float(match[1]) * 1000 ** _POWERS[match[2].upper()]) if match else 0
    if num_bytes < 1:
        raise UsageError(
            f"--max-shard-size {shortened(size, 40)} is no size", advice="Give a number and a unit, e.g. 500MB."
        )
    return num_bytes


def _show(kind: Kind, written: Written, notices: Sequence[str], talk: Talk, as_json: bool) -> None:
    size = f"{written.num_tensors:,} tensors, {written.size_bytes / 1e9:,.3g} GB"
    talk.done(f"{_NAMES[kind]}: {size} in {len(written.files)} file(s)")
    if not as_json:
        show(str(written.folder))
        return
    record = {
        "schema": "vlinstruct.convert/1",
        "id": str(written.folder),
        "status": "ok",
        "conversion": kind,
        "num_tensors": written.num_tensors,
        "size_bytes": written.size_bytes,
        "files": list(written.files),
        "notices": list(notices),
    }
    show_record(record)
