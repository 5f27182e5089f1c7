"""The options of how an answer is generated and an instruction optimized; each knows when it changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from vlinstruct.cli.command import ANSWER, OPTIMIZATION
from vlinstruct.cli.idle import Idle, refuse_idle
from vlinstruct.cli.typed_text import typed_texts
from vlinstruct.errors import UsageError
from vlinstruct.settings import GenerationSettings, OptimizationSettings, Select, When
from vlinstruct.text import check_instruction

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
class ThresholdOptions:
    """What the rules of choosing an instruction compare with."""

    HEADING: ClassVar = OPTIMIZATION
    IS_SHOWN_LAST: ClassVar = True

    least_certainty: Annotated[
        float | None,
        typer.Option(
            help="Refuse a rewriting with a less likely token than this; 0 is off.",
            show_default="the backbone's own",
        ),
    ] = None
    max_cross_nll: Annotated[
        float | None,
        typer.Option(
            help="safe, cross: mean nats at which an answer no longer answers your words.",
            show_default="the backbone's own",
        ),
    ] = None
    sure_above: Annotated[
        float | None,
        typer.Option(
            help="Leave your words alone where the answer to them is more certain than this, 0 to 1.",
            show_default="the backbone's own",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class OptimizationOptions(ThresholdOptions):
    """How an instruction is optimized."""

    HEADING: ClassVar = OPTIMIZATION
    IDLE: ClassVar = (
        Idle(
            names=("keep", "try_", "rewritings", "rewrite_seeing", "least_certainty", "max_cross_nll"),
            why="with --select paper, which always takes the optimized instruction",
            holds=lambda it: it.select == "paper",
        ),
        Idle(
            names=("max_cross_nll",),
            why="with --select agree or ias: safe and cross ask it",
            holds=lambda it: it.select in ("agree", "ias"),
        ),
        Idle(names=("rewrite_seeing",), why="without --rewritings above 1", holds=lambda it: it.rewritings == 1),
        Idle(
            names=("sure_above",),
            why="where every instruction is optimized: it belongs to --when unsure",
            holds=lambda it: not it.settings().leaves_sure_alone,
        ),
    )

    select: Annotated[
        Select,
        typer.Option(
            help="Of the instructions that keep your content the lowest IAS. safe, cross: of those whose answer "
            "answers your words, too; agree: of those answered alike; ias: of all. paper: always the optimized one."
        ),
    ] = "safe"
    when: Annotated[
        When | None,
        typer.Option(
            help="unsure: leave your words alone where the answer to them is certain.",
            show_default="unsure with safe, else always",
        ),
    ] = None
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help='Words that must stay, with commas: "left,not"; may be repeated.'),
    ] = None
    try_: Annotated[
        list[str] | None,
        typer.Option(
            "--try", metavar="TEXT", help="Another instruction to try, or @FILE with one a line; may be repeated."
        ),
    ] = None
    rewritings: Annotated[
        int, typer.Option(min=1, max=64, help="How often to rewrite: once greedily, the others sampled.")
    ] = 1
    rewrite_seeing: Annotated[
        bool, typer.Option("--rewrite-seeing", help="Sample the rewritings with the picture before the model.")
    ] = False
    templates: Annotated[Path | None, typer.Option(help="A YAML file with your own templates.")] = None

    def settings(self) -> OptimizationSettings:
        """Returns the checked settings.

        Raises:
            UsageError: a number is out of range, or --keep holds no word.
            InputError: a text of --try cannot be used, or its file cannot be read.
        """
        return OptimizationSettings(
            select=self.select,
            when=self.when,
            keep=tuple(word for typed in self.keep or () for word in _words(typed)),
            variants=tuple(
                check_instruction(text, what="--try") for typed in self.try_ or () for text in typed_texts(typed)
            ),
            num_rewritings=self.rewritings,
            # Refused in words of the command line: see IDLE.
            rewrite_seeing=self.rewrite_seeing and self.rewritings > 1,
            least_certainty=self.least_certainty,
            max_cross_nll=self.max_cross_nll,
            sure_above=self.sure_above,
        )

    def refuse_idle(self, *, optimizes: bool = True, no_gate: str | None = None) -> None:
        """Refuses what was typed and has no effect.

        Args:
            optimizes: whether anything is optimized.
            no_gate: why the answer to the user's own words leaves nothing alone, in words; None where it may.

        Raises:
            UsageError: names the options and the reason.
        """
        if not optimizes:
            refuse_idle(self, why="without --optimize")
        if no_gate is not None:
            refuse_idle(self, Idle(names=("when", "sure_above"), why=no_gate, holds=lambda it: it.when != "always"))
        refuse_idle(self)

    def load_templates(self) -> Templates | None:
        """Returns the user's templates; None where none were given."""
        if self.templates is None:
            return None
        from vlinstruct.instruction.templates import Templates

        return Templates.load(self.templates)


def _words(typed: str) -> list[str]:
    """Divides `left,not` at its commas."""
    words = [word.strip() for word in typed.split(",")]
    if not all(words):
        raise UsageError("--keep needs words with commas between", advice='Type: --keep "left,not".')
    return words
