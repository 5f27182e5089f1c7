"""`vlinstruct ask`: a question about a picture, or about many."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from vlinstruct.cli.answer_options import GenerationOptions, OptimizationOptions
from vlinstruct.cli.command import ANSWER, INPUT, OPTIMIZATION, takes
from vlinstruct.cli.idle import say_idle
from vlinstruct.cli.options import DataOptions, ReportOption, RunOptions
from vlinstruct.cli.tables import Grid, Line, Look
from vlinstruct.cli.terminal import Talk
from vlinstruct.cli.typed_text import typed_text
from vlinstruct.errors import UsageError
from vlinstruct.text import check_instruction

if TYPE_CHECKING:
    from vlinstruct.cli.run import Work
    from vlinstruct.operations import Fields

_USAGE = 'vlinstruct ask IMAGE... "QUESTION"'


@takes(DataOptions, RunOptions, GenerationOptions, OptimizationOptions)
def ask(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE... QUESTION", help="Pictures, clips or sounds, then the question."),
    ] = None,
    optimize: Annotated[
        bool, typer.Option("--optimize", "-O", help="Optimize the instruction first.", rich_help_panel=OPTIMIZATION)
    ] = False,
    choices: Annotated[
        str | None,
        typer.Option(
            help='Rank these answers instead of generating one: "yes,no", or a JSON list where they hold commas.',
            rich_help_panel=ANSWER,
        ),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help='Wrap the question: "Question: {question} Answer:".', rich_help_panel=ANSWER)
    ] = None,
    ocr: Annotated[
        bool,
        typer.Option(
            "--ocr",
            help="Read the picture's words first; {tokens} is where they go (needs vlinstruct[ocr]).",
            rich_help_panel=INPUT,
        ),
    ] = False,
    report: ReportOption = None,
    *,
    data: DataOptions,
    options: RunOptions,
    generation: GenerationOptions,
    optimization: OptimizationOptions,
) -> None:
    """Answer a question about a picture, a clip or a sound.

    IMAGE is a file, a folder, a quoted glob, - for stdin, or a URL. Several pictures or a folder are a batch: a line of
    a table each, and of JSON in a pipe. The question is sent as it is typed.

    \b
    vlinstruct ask sign.png "what is written?"
    vlinstruct ask pictures/ "what colour is it?" -O -o answers.jsonl
    """
    from vlinstruct.cli.run import run
    from vlinstruct.media.ocr import require_ocr
    from vlinstruct.operations import Ask

    optimization.refuse_idle(optimizes=optimize)
    if ocr:
        require_ocr()  # before pictures are listed: a missing package must not cost a run's beginning
    talk = Talk(quiet=options.quiet)
    operation = Ask(
        template=_template(template, ocr=ocr),
        ocr=ocr,
        choices=_choices(choices),
        optimize=optimize,
        optimization=optimization.settings(),
        generation=generation.settings(),
    )
    say_idle(talk, generation, why=None if choices is None else "with --choices, which generates no answer")
    work = _work(arguments or [], data, options, talk)
    heads = ("answer",) if work.has_one_text else ("answer", "question")
    look = Look(plain=_render, drawn=_drawn, heads=lambda record: heads, lines=lambda record: _lines(record, work))
    templates = optimization.templates
    run(operation, work, options=options, talk=talk, look=look, templates=templates, report=report)


def _work(arguments: list[str], data: DataOptions, options: RunOptions, talk: Talk) -> Work:
    from vlinstruct.cli.run import file_work, refuse_swapped, refuse_unquoted, typed_work

    if data.data is not None:
        if arguments:
            raise UsageError("--data brings its own pictures and questions: leave IMAGE and QUESTION away.")
        return file_work(data.data, options, data, talk, ranks=True)
    if len(arguments) < 2:
        raise UsageError("a picture and a question are needed", advice=f"Type: {_USAGE}")
    *images, question = arguments
    refuse_unquoted(images, question, comes_last=True, usage=_USAGE)
    refuse_swapped(images, [question], _USAGE)
    question = check_instruction(typed_text(question), what="question")
    return typed_work(images, (question,), options, talk)


def _template(text: str | None, *, ocr: bool) -> str:
    """Returns what is asked; a template without its fields would drop the question without a word."""
    from vlinstruct.instruction.templates import QUESTION_FIELD
    from vlinstruct.operations import OCR_TEMPLATE, TOKENS_FIELD

    if text is None:
        return OCR_TEMPLATE if ocr else QUESTION_FIELD
    text = typed_text(text)
    if QUESTION_FIELD not in text:
        raise UsageError(f"--template must contain {QUESTION_FIELD}, where the question goes.")
    if ocr and TOKENS_FIELD not in text:
        raise UsageError(f"--template must contain {TOKENS_FIELD}, where --ocr puts the picture's words.")
    return check_instruction(text, what="--template")


def _choices(text: str | None) -> tuple[str, ...]:
    """Divides `yes,no` at its commas; `["1,000", "2,000"]`, a JSON list, holds answers with commas."""
    if text is None:
        return ()
    choices = _listed(text) if text.strip().startswith("[") else None
    if choices is None:
        choices = tuple(part.strip() for part in text.split(","))
    if len(choices) < 2 or not all(choices) or len(set(choices)) < len(choices):
        raise UsageError(
            "--choices needs two or more different answers with commas between", advice='Type: --choices "yes,no".'
        )
    return tuple(check_instruction(choice, what="--choices") for choice in choices)


def _listed(text: str) -> tuple[str, ...] | None:
    """Reads a JSON list of texts or numbers, these as they are typed; None for `[a],[b]`, which is none."""
    try:
        values = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        if '"' not in text and text.count("[") > 1:
            return None
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UsageError("--choices is no JSON list of texts", advice="""Type: --choices '["1,000", "2,000"]'.""")
    return tuple(value.strip() for value in values)


def _render(record: Fields) -> str:
    if "choices" not in record:
        return str(record["answer"])
    return "\n".join(f"{choice['probability']:6.1%}  {choice['text']}" for choice in _ranked(record))


def _drawn(record: Fields) -> list[Grid | str]:
    if "choices" not in record:
        return []  # an answer is for copying: it stands as it was written
    best, *others = ((f"{choice['probability']:.1%}", choice["text"]) for choice in _ranked(record))
    lines = [Line(cells=best, style="bold"), *(Line(cells=cells, style="dim") for cells in others)]
    return [Grid(heads=("probability", "answer"), lines=lines, numbers=(0,))]


def _lines(record: Fields, work: Work) -> list[Line]:
    answer = record["answer"]
    if "choices" in record:
        answer = f"{answer} ({_ranked(record)[0]['probability']:.1%})"
    return [Line(cells=(answer,) if work.has_one_text else (answer, record["question"]))]


def _ranked(record: Fields) -> list[Fields]:
    return sorted(record["choices"], key=lambda choice: -choice["probability"])
