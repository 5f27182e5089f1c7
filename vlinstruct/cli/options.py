"""The options that several commands share, each named, checked and explained once.

A group makes a Settings object of what was typed: ranges are checked there, where Python's callers pass, too. What
Typer checks itself (`min`, `max`, a list of words) it can also show in `--help`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import typer

from vlinstruct.cli.command import INPUT, MODEL, OUTPUT
from vlinstruct.cli.completion import adapter_names, backbone_names, column_fields
from vlinstruct.errors import UsageError
from vlinstruct.settings import MAX_FRAMES, ClipSettings, ModelSettings, Quantization, RunSettings, ServerSettings

if TYPE_CHECKING:
    from vlinstruct.media.images import ImageLimits

T = TypeVar("T")

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def _backbone(what: str) -> Any:
    """Returns the option of a command that takes so much for a backbone."""
    return typer.Option(
        help=f"A name (`vlinstruct backbones`), {what}.",
        show_default="mini",
        envvar="VLINSTRUCT_BACKBONE",
        rich_help_panel=MODEL,
        autocompletion=backbone_names,
    )


BackboneOption = Annotated[str | None, _backbone("a folder, a hub id, or a server's URL (http://host:8000/v1)")]
LocalBackboneOption = Annotated[str | None, _backbone("a folder or a hub id")]
DeviceOption = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", envvar="VLINSTRUCT_DEVICE", rich_help_panel=MODEL)
]
QuantizeOption = Annotated[
    Quantization | None,
    typer.Option(help="Store the language model's layers in fewer bits (vlinstruct[quantize]).", rich_help_panel=MODEL),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=COLUMN,...",
        help="Which column or field of the data is which: image=file,question=q.",
        rich_help_panel=INPUT,
        autocompletion=column_fields,
    ),
]
MaxPixelsOption = Annotated[
    int,
    typer.Option(
        min=1,
        max=178_956_970,  # what Pillow refuses itself, as a decompression bomb
        help="Refuse larger pictures before they are decoded.",
        rich_help_panel=INPUT,
    ),
]
AllowTruncatedOption = Annotated[
    bool,
    typer.Option(
        "--allow-truncated",
        help="Read what is there of a picture that was cut off; the rest is grey.",
        rich_help_panel=INPUT,
    ),
]
FramesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MAX_FRAMES,
        help="Frames of a clip, at equal distances.",
        show_default="the model's own",
        rich_help_panel=INPUT,
    ),
]
FpsOption = Annotated[
    float | None,
    typer.Option(help=f"Frames of a clip for each of its seconds, at most {MAX_FRAMES}.", rich_help_panel=INPUT),
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Side in pixels that the model reads pictures at.",
        show_default="the model's own",
        rich_help_panel=MODEL,
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Faster small batches, once every shape was compiled (CPU, minutes) or recorded (CUDA) at its first use.",
        rich_help_panel=MODEL,
    ),
]
ThinkOption = Annotated[
    bool,
    typer.Option(
        "--think", help="Let a model that can think do so first; only its answer counts.", rich_help_panel=MODEL
    ),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.html",
        help="Also write a page to look at: every picture with what was asked, what was answered, and why.",
        rich_help_panel=OUTPUT,
    ),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Open no connection; use what is cached.", rich_help_panel=MODEL)
]


@dataclass(frozen=True, kw_only=True)
class PrintOptions:
    """How a command prints what it has to say."""

    HEADING: ClassVar = OUTPUT
    IS_SHOWN_LAST: ClassVar = True

    as_json: Annotated[bool, typer.Option("--json", help="Print records as JSON.")] = False
    # No command reads it: `main` looks for the word itself, since an error may come before the options are read.
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False


@dataclass(frozen=True, kw_only=True)
class CommonOptions(PrintOptions):
    """What every command takes that runs a model."""

    HEADING: ClassVar = OUTPUT
    IS_SHOWN_LAST: ClassVar = True

    offline: OfflineOption = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices, no progress.")] = False


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """A file of items, in place of what is typed."""

    HEADING: ClassVar = INPUT

    data: Annotated[
        Path | None,
        typer.Option(
            help='Take the items of a file: {"image": ..., "question": ..., "id": ..., "choices": [...]} as JSON '
            "lines, a JSON list, a CSV, parquet or Arrow table."
        ),
    ] = None
    columns: ColumnsOption = None
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch pictures that --data names by URL.")] = False
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Read pictures of --data outside its folder, also through links.")
    ] = False

    def __post_init__(self) -> None:
        if self.data is None and (self.allow_urls or self.allow_outside):
            raise UsageError("--allow-urls and --allow-outside are for --data: what is typed is always read.")
        if self.data is None and self.columns is not None:
            raise UsageError("--columns is for --data: what is typed has none.")


@dataclass(frozen=True, kw_only=True)
class ServedOptions(CommonOptions):
    """How a server is asked, where the backbone is one."""

    HEADING: ClassVar = MODEL

    served_model: Annotated[
        str | None,
        typer.Option(
            help="What the server of a --backbone URL calls the model. Its key is read from $VLINSTRUCT_API_KEY.",
            show_default="its only one",
        ),
    ] = None
    concurrency: Annotated[int, typer.Option(min=1, max=4096, help="Requests in flight to a server.")] = 16
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a server may take for a request.")] = 300.0

    def server_settings(self) -> ServerSettings:
        """Returns how a server is asked."""
        return ServerSettings(served_model=self.served_model, concurrency=self.concurrency, timeout=self.timeout)


@dataclass(frozen=True, kw_only=True)
class ModelOptions(ServedOptions):
    """Which model a command runs on, where, and how large its pictures may be."""

    HEADING: ClassVar = MODEL

    backbone: BackboneOption = None
    adapter: Annotated[
        str | None,
        typer.Option(
            help="Trained alignment layers: a folder, a hub id, or mini-ema and mini-llama-ema, which ship.",
            autocompletion=adapter_names,
        ),
    ] = None
    device: DeviceOption = "auto"
    dtype: Annotated[Dtype, typer.Option(help="What the model computes in; auto: float32 on a CPU, else bfloat16.")] = (
        "auto"
    )
    quantize: QuantizeOption = None
    image_size: ImageSizeOption = None
    compile: CompileOption = False
    think: ThinkOption = False
    max_pixels: MaxPixelsOption = 50_000_000
    allow_truncated: AllowTruncatedOption = False
    frames: FramesOption = None
    fps: FpsOption = None

    def __post_init__(self) -> None:
        self.clip_settings()

    def clip_settings(self) -> ClipSettings:
        """Returns which frames of clips are used."""
        if self.frames is not None and self.fps is not None:
            raise UsageError("--frames and --fps exclude each other", advice="Leave one of them away.")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise UsageError(f"--fps must be above 0, got {self.fps:g}.")
        return ClipSettings(num_frames=self.frames, fps=self.fps)

    def image_limits(self) -> ImageLimits:
        """Returns how large a picture may be, and how whole it must be."""
        from vlinstruct.media.images import ImageLimits

        return ImageLimits(max_pixels=self.max_pixels, allow_truncated=self.allow_truncated)

    def model_settings(self) -> ModelSettings:
        """Returns which model is asked for, and how it is loaded."""
        own = {field.name: getattr(self, field.name) for field in fields(ModelSettings) if field.name != "server"}
        return ModelSettings(**own, server=self.server_settings())


@dataclass(frozen=True, kw_only=True)
class RunOptions(ModelOptions):
    """How a command runs over pictures: on which model, which pictures, and what becomes of the records."""

    HEADING: ClassVar = OUTPUT

    batch_size: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Pictures that go through the model together.", rich_help_panel=MODEL),
    ] = 1
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Enter the subfolders of a folder.", rich_help_panel=INPUT)
    ] = False
    follow_symlinks: Annotated[
        bool,
        typer.Option("--follow-symlinks", help="Follow links that lead out of a folder.", rich_help_panel=INPUT),
    ] = False
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write records here: JSON lines, or by its ending a .csv or .parquet. An earlier run is resumed.",
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output instead of resuming it.")] = False
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Work on every N-th item, from the I-th on.", rich_help_panel=INPUT),
    ] = None
    max_failures: Annotated[int | None, typer.Option(min=1, help="Stop a batch after this many failed items.")] = None

    def settings(self, templates: Path | None = None) -> RunSettings:
        """Returns what the package is asked to do, with the user's own templates."""
        return RunSettings(
            model=self.model_settings(),
            templates=templates,
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
            allow_truncated=self.allow_truncated,
            clips=self.clip_settings(),
            max_failures=self.max_failures,
            overwrite=self.overwrite,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overwrite and self.output is None:
            raise UsageError("--overwrite needs --output FILE: there is nothing to replace.")
        self.of_shard(())

    def of_shard(self, items: Sequence[T]) -> Sequence[T]:
        """Returns the items that `--shard` leaves to this run; every item is in one of the N shards."""
        if self.shard is None:
            return items
        first, _, count = self.shard.partition("/")
        if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
            raise UsageError(f"--shard must be I/N with I from 1 to N, got {self.shard}", advice="Type: --shard 3/64.")
        return items[int(first) - 1 :: int(count)]
