"""`vlinstruct convert`: LAVIS's checkpoints, adapters and model folders become folders that can be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vlinstruct.cli.command import OUTPUT, takes
from vlinstruct.cli.options import CommonOptions
from vlinstruct.cli.terminal import Talk, show, show_record
from vlinstruct.errors import counted

To = Literal["model", "adapter", "merged"]


@takes(CommonOptions)
def convert(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help=".pth files, and folders by path, name or hub id."),
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
    from vlinstruct.conversion.convert import convert as convert_sources

    talk = Talk(quiet=common.quiet)
    conversion = convert_sources(
        sources,
        output,
        to=to,
        backbone=backbone,
        config=config,
        qformer_tokenizer=qformer_tokenizer,
        use_ema=ema,
        dtype=dtype,
        max_shard_size=max_shard_size,
        force=force,
        keep_nonfinite=keep_nonfinite,
        offline=common.offline,
        notify=talk.notice,
        on_shard=lambda done, total: talk.progress(f"{done} of {total} files written") if total > 1 else None,
    )
    size = f"{conversion.num_tensors:,} tensors, {conversion.size_bytes / 1e9:,.3g} GB"
    talk.done(f"{conversion.name}: {size} in {counted(len(conversion.files), 'file')}")
    if not common.as_json:
        show(str(conversion.folder))
        return
    record = {
        "schema": "vlinstruct.convert/1",
        "id": str(conversion.folder),
        "status": "ok",
        "conversion": conversion.kind,
        "num_tensors": conversion.num_tensors,
        "size_bytes": conversion.size_bytes,
        "files": list(conversion.files),
        "notices": list(conversion.notices),
    }
    show_record(record)
