"""The options of how an answer is generated and an instruction optimized; each knows when it changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from vlinstruct.cli.command import ANSWER, OPTIMIZATION
from vlinstruct.cli.idle import Idle
from vlinstruct.settings import GenerationSettings, OptimizationSettings, Select

if TYPE_CHECKING:
    from vlinstruct.instruction.templates import Templates


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How an answer is generated."""

    HEADING: ClassVar = ANSWER
    IDLE: ClassVar = (
        Idle(names=("temperature", "top_p", "seed"), why="without --do-sample", holds=lambda it: not it.do_sample),
        Idle(names=("length_penalty",), why="without --num-beams above 1", holds=lambda it: it.num_beams == 1),
    )

    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 64
    num_beams: Annotated[int, typer.Option(help="1 is greedy; the field's numbers use 5.")] = 1
    length_penalty: Annotated[float, typer.Option(help="With beams: above 0 favours long answers.")] = 1.0
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 discourages repetition.")] = 1.0
    do_sample: Annotated[bool, typer.Option("--do-sample", help="Sample tokens, not the likeliest.")] = False
    temperature: Annotated[float, typer.Option(help="When sampling: below 1 is more certain.")] = 1.0
    top_p: Annotated[float, typer.Option(help="When sampling: keep this much probability.")] = 1.0
    seed: Annotated[int, typer.Option(help="Seed of the sampling, 0 to 2^64 - 1.")] = 0

    def settings(self) -> GenerationSettings:
        """Returns the checked settings."""
        return GenerationSettings(**{field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class OptimizationOptions:
    """How an instruction is optimized."""

    HEADING: ClassVar = OPTIMIZATION
    IDLE: ClassVar = (
        Idle(names=("least_certainty",), why="with --select paper", holds=lambda it: it.select == "paper"),
    )

    select: Annotated[
        Select, typer.Option(help="safe: lowest IAS that keeps the content. paper: always the optimized one.")
    ] = "safe"
    least_certainty: Annotated[
        float | None,
        typer.Option(
            help="safe: refuse a rewriting with a less likely token than this; 0 is off.",
            show_default="the backbone's own",
        ),
    ] = None
    templates: Annotated[Path | None, typer.Option(help="A YAML file with your own templates.")] = None

    def settings(self) -> OptimizationSettings:
        """Returns the checked settings."""
        return OptimizationSettings(select=self.select, least_certainty=self.least_certainty)

    def load_templates(self) -> Templates | None:
        """Returns the user's templates; None where none were given."""
        if self.templates is None:
            return None
        from vlinstruct.instruction.templates import Templates

        return Templates.load(self.templates)
