"""`vlinstruct optimize`: a better instruction for a picture, written by the model itself (algorithm 2)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlinstruct.cli.answer_options import GenerationOptions, OptimizationOptions
from vlinstruct.cli.asked import change
from vlinstruct.cli.command import ANSWER, OPTIMIZATION, takes
from vlinstruct.cli.idle import say_idle
from vlinstruct.cli.options import DataOptions, ReportOption, RunOptions
from vlinstruct.cli.tables import Grid, Line, Look, facts
from vlinstruct.cli.terminal import Talk, show
from vlinstruct.errors import BatchError, UsageError, counted
from vlinstruct.text import check_instruction
from vlinstruct.values import ROLES

if TYPE_CHECKING:
    from vlinstruct.cli.run import Work
    from vlinstruct.operations import Fields

_USAGE = 'vlinstruct optimize "INSTRUCTION" IMAGE...'


@takes(DataOptions, RunOptions, GenerationOptions, OptimizationOptions)
def optimize(
    instruction: Annotated[
        str | None, typer.Argument(metavar="INSTRUCTION", help="What you would ask, options included.")
    ] = None,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE...", help="One or more pictures, clips or sounds.")
    ] = None,
    answer: Annotated[
        bool,
        typer.Option("--answer", help="Also answer the initial and the chosen instruction.", rich_help_panel=ANSWER),
    ] = False,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared",
            help="One instruction for all pictures: every IAS is the mean over them.",
            rich_help_panel=OPTIMIZATION,
        ),
    ] = False,
    show_templates: Annotated[
        bool,
        typer.Option(
            "--show-templates",
            help="Print the templates: edit a copy and give it to --templates.",
            rich_help_panel=OPTIMIZATION,
        ),
    ] = False,
    report: ReportOption = None,
    *,
    data: DataOptions,
    options: RunOptions,
    generation: GenerationOptions,
    optimization: OptimizationOptions,
) -> None:
    """Optimize an instruction for a picture.

    Prints the initial, the rewritten and the optimized instruction with their IAS (lower fits the picture better) and
    which of them is chosen. Several pictures or a folder are a batch: a line of a table each, and of JSON in a pipe;
    with --shared they get one instruction together, to be asked of each of them afterwards.

    \b
    vlinstruct optimize "describe this" picture.png --answer
    vlinstruct optimize "what is it" pictures/ --report report.html
    """
    if show_templates:
        from vlinstruct.instruction.templates import templates_source

        show(templates_source().rstrip("\n"))
        return
    from vlinstruct.cli.run import file_work, run
    from vlinstruct.operations import Optimize

    if data.data is None:
        _check_typed(instruction, images or [])
    elif instruction is not None:
        raise UsageError("--data brings its own pictures and instructions: leave INSTRUCTION and IMAGE away.")
    # Who asks for an instruction and no answer gets all of algorithm 2.
    optimization.refuse_idle(no_gate="with --shared" if shared else None if answer else "without --answer")
    talk = Talk(quiet=options.quiet)
    if shared:
        _refuse_with_shared(answer, options, generation, report, data)
        _run_shared(_typed_work(instruction, images, options, talk), options, optimization, talk)
        return
    operation = Optimize(optimization=optimization.settings(), answer=answer, generation=generation.settings())
    say_idle(talk, generation, why=None if answer else "without --answer")
    if data.data is None:
        work = _typed_work(instruction, images, options, talk)
    else:
        work = file_work(data.data, options, data, talk)
    run(operation, work, options=options, talk=talk, look=LOOK, templates=optimization.templates, report=report)


def _check_typed(instruction: str | None, images: list[str]) -> None:
    from vlinstruct.cli.run import refuse_swapped, refuse_unquoted

    if instruction is None or not images:
        raise UsageError("an instruction and a picture are needed", advice=f"Type: {_USAGE}")
    refuse_swapped(images, [instruction], _USAGE)
    refuse_unquoted(images, instruction, comes_last=False, usage=_USAGE)
    check_instruction(instruction)


def _typed_work(instruction: str | None, images: list[str] | None, options: RunOptions, talk: Talk) -> Work:
    from vlinstruct.cli.run import typed_work

    assert instruction is not None
    return typed_work(images or [], (instruction,), options, talk)


def _run_shared(work: Work, options: RunOptions, optimization: OptimizationOptions, talk: Talk) -> None:
    """Optimizes one instruction for all typed pictures and prints the one record, then says which were left out."""
    from vlinstruct.batch import optimize_shared
    from vlinstruct.cli.run import collect_garbage_from_here, print_record
    from vlinstruct.operations import BatchItem

    items = [item for item in work.items if isinstance(item, BatchItem)]  # typed pictures all are
    with talk.listening():
        record = optimize_shared(
            items[0].texts[0],
            items,
            settings=options.settings(optimization.templates),
            optimization=optimization.settings(),
            notify=talk.notice,
            on_loaded=collect_garbage_from_here,
        )
    print_record(record, options, talk, LOOK)
    if failed := record.get("failed"):
        of_all = f"{len(failed)} of {counted(len(items), 'picture')}"
        raise BatchError(f"{of_all} cannot be read and do not count: {failed[0]['message']}")


def _refuse_with_shared(
    answer: bool, options: RunOptions, generation: GenerationOptions, report: Path | None, data: DataOptions
) -> None:
    """Refuses what --shared would have to ignore: it gives one instruction, no answers and no lines to resume."""
    if answer or generation != GenerationOptions():
        raise UsageError("--shared writes no answers: ask the chosen instruction with vlinstruct ask.")
    if data.data is not None:
        raise UsageError("--shared takes one instruction for all pictures: type it, and leave --data away.")
    if report is not None:
        raise UsageError("--shared has nothing of single pictures to report: leave --report away.")
    if options.output is not None or options.max_failures is not None:
        raise UsageError(
            "--shared prints one record: no --output, no --max-failures", advice="Type --json > FILE to keep it."
        )


def render_optimization(record: Fields) -> str:
    """Writes a record for people: a line per instruction with its IAS, then which was chosen and why."""
    lines = []
    is_left_alone = "rewritten" not in record
    for role, scored in record.items():
        if role in ROLES or role.startswith("variant_"):
            missing = "not asked for" if is_left_alone else "not finite"
            ias = missing if scored["ias"] is None else f"{scored['ias']:8.4f}"
            lines.append(f"{role.replace('_', ' '):9}  {ias}  {scored['text']}")
    lines += [f"chosen     {record['chosen'].replace('_', ' ')}: {record['reason']}"]
    if "images" in record:
        lines += [f"pictures   {record['images']}, every IAS is the mean over them"]
    if "answer" in record:
        certainty, cross_nll = record["certainty"], record[record["chosen"]].get("cross_nll")
        cross_check = None if cross_nll is None else f"cross check {cross_nll:.2f} nats"
        lines += [
            f"answer     {record['initial_answer']}  ({_listed('as typed', _certainty(record['initial_certainty']))})",
            f"answer     {record['answer']}  ({_listed('chosen', _certainty(certainty), cross_check)})",
        ]
    return "\n".join(lines)


def _drawn(record: Fields) -> list[Grid | str]:
    """Returns an optimization as tables: a line per text, the chosen one bold, then what of it came out."""
    roles: dict[str, list[str]] = {}  # by text: the optimized instruction mostly is the rewritten one
    for role, scored in record.items():
        if role in ROLES or role.startswith("variant_"):
            roles.setdefault(scored["text"], []).append(role)
    chosen = record["chosen"]
    versions = []
    for words, named in roles.items():
        ias = record[named[0]]["ias"]
        cells = (", ".join(role.replace("_", " ") for role in named), "-" if ias is None else f"{ias:.4f}", words)
        versions.append(Line(cells=cells, style="bold" if chosen in named else "dim"))
    before_and_after = [("change", scores)] if chosen != "initial" and (scores := change(record)) else []
    parts: list[Grid | str] = [
        Grid(heads=("", "IAS", "instruction"), lines=versions, numbers=(1,)),
        facts(
            ("chosen", f"{chosen.replace('_', ' ')}: {record['reason']}"),
            *before_and_after,
            *([("pictures", f"{record['images']}, every IAS is the mean over them")] if "images" in record else []),
        ),
    ]
    if "answer" in record:
        as_typed = ("as typed", record["initial_answer"], _figure(record["initial_certainty"]), "")
        cross_nll = record[chosen].get("cross_nll")
        as_chosen = ("as chosen", record["answer"], _figure(record["certainty"]), _figure(cross_nll))
        lines = [Line(cells=as_typed, style="dim"), Line(cells=as_chosen, style="bold")]
        parts.append(Grid(heads=("", "answer", "certainty", "cross check"), lines=lines, numbers=(2, 3)))
    return parts


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _heads(record: Fields) -> tuple[str, ...]:
    scores = (change(record) or "IAS").split()[0]
    return ("instruction", scores, "answer") if "answer" in record else ("instruction", scores)


def _lines(record: Fields) -> list[Line]:
    is_kept = record["instruction"] == record["initial"]["text"]
    _, _, scores = change(record).partition(" ")
    answers = []
    if "answer" in record:
        before, after = record["initial_answer"], record["answer"]
        answers = [after if before == after else f"{before} -> {after}"]
    return [Line(cells=(record["instruction"], scores, *answers), style="dim" if is_kept else "")]


def _certainty(value: float | None) -> str | None:
    return None if value is None else f"certainty {value:.2f}"


def _listed(*facts: str | None) -> str:
    return ", ".join(fact for fact in facts if fact is not None)


LOOK = Look(plain=render_optimization, drawn=_drawn, heads=_heads, lines=_lines)
