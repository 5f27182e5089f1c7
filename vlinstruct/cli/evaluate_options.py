"""What `vlinstruct evaluate` reads, and how it asks: options that are settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from vlinstruct.cli.command import ANSWER, INPUT
from vlinstruct.cli.idle import Idle, refuse_idle
from vlinstruct.cli.options import AllowTruncatedOption, ColumnsOption, MaxPixelsOption
from vlinstruct.errors import UsageError

if TYPE_CHECKING:
    from vlinstruct.media.images import ImageLimits


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Which items are read, and what of them may be missing."""

    HEADING: ClassVar = INPUT

    data: Annotated[
        Path | None,
        typer.Option(
            help="The official benchmarks' files or parquet copies: DIR/gqa, DIR/textvqa, ...",
            metavar="DIR",
        ),
    ] = None
    list_: Annotated[bool, typer.Option("--list", help="List the official benchmarks and their files.")] = False
    check_data: Annotated[bool, typer.Option("--check-data", help="List what is wrong with --data, and stop.")] = False
    decode: Annotated[bool, typer.Option("--decode", help="With --check-data: read every picture whole.")] = False
    skip_images: Annotated[
        int | None,
        typer.Option(min=0, help="Stop at more pictures that cannot be read.", show_default="any"),
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=100_000,
            help="The first so many items of each.",
            show_default="all; 500 of mini's",
        ),
    ] = None
    split: Annotated[Literal["dev", "test"], typer.Option(help="Which part of mini's world.")] = "test"
    ocr: Annotated[
        bool,
        typer.Option(
            "--ocr",
            help="Read pictures that textvqa's files have no OCR tokens of (needs vlinstruct[ocr]).",
        ),
    ] = False
    no_ocr_tokens: Annotated[
        bool,
        typer.Option("--no-ocr-tokens", help="Ask textvqa's questions alone, without the OCR tokens of its files."),
    ] = False
    max_pixels: MaxPixelsOption = 50_000_000
    allow_truncated: AllowTruncatedOption = False

    def __post_init__(self) -> None:
        if self.decode and not self.check_data:
            raise UsageError("--decode belongs to --check-data", advice="Add it.")

    def image_limits(self) -> ImageLimits:
        """Returns how large a picture may be, and how whole it must be."""
        from vlinstruct.media.images import ImageLimits

        return ImageLimits(max_pixels=self.max_pixels, allow_truncated=self.allow_truncated)


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """Thresholds from pictures in place of figures of benchmarks."""

    HEADING: ClassVar = INPUT

    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Find --max-cross-nll for the backbone on pictures: evaluate --calibrate IMAGE...; with --data FILE, "
            "items with questions and answers, --sure-above, too.",
        ),
    ] = False
    columns: ColumnsOption = None
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch pictures that --data names by URL.")] = False
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Read pictures of --data that lie outside its folder.")
    ] = False

    def __post_init__(self) -> None:
        if not self.calibrate:
            refuse_idle(self, Idle(names=("columns", "allow_urls", "allow_outside"), why="without --calibrate"))


@dataclass(frozen=True, kw_only=True)
class BenchmarkAnswerOptions:
    """How answers are generated and compared."""

    HEADING: ClassVar = ANSWER

    num_beams: Annotated[
        int | None,
        typer.Option(help="Beams of the search for an answer.", show_default="the benchmark's own"),
    ] = None
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Most tokens of an answer.", show_default="the benchmark's own"),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            help="Above 1: tokens that an answer has are less likely; LAVIS has 1.5.",
            show_default="1",
        ),
    ] = None
    vqa_normalizer: Annotated[
        Literal["official", "lavis", "evalai"],
        typer.Option(help="How VQA accuracy compares: VQA v2.0's code, LAVIS' or lmms-eval's."),
    ] = "official"
