"""`vlinstruct ask`: a question about a picture, or about many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlinstruct.cli.options import GenerationOptions, OptimizationOptions, RunOptions, takes
from vlinstruct.cli.run import Item, file_items, refuse_swapped, run, typed_items
from vlinstruct.cli.terminal import Talk
from vlinstruct.data.items import ItemOptions
from vlinstruct.data.text import check_instruction
from vlinstruct.errors import UsageError
from vlinstruct.instruction.templates import Templates
from vlinstruct.operations import Ask, Fields

_USAGE = 'vlinstruct ask IMAGE... "QUESTION"'
_FIELD = "{question}"


@takes(RunOptions, GenerationOptions, OptimizationOptions)
def ask(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE... QUESTION", help="Pictures, then the question.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help='Ask the lines of a file: {"image": ..., "question": ..., "id": ...}.')
    ] = None,
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch pictures that --data names by URL.")] = False,
    optimize: Annotated[bool, typer.Option("--optimize", "-O", help="Optimize the instruction first.")] = False,
    choices: Annotated[
        str | None, typer.Option(help='Rank these answers in place of generating one: "yes,no".')
    ] = None,
    template: Annotated[str | None, typer.Option(help='Wrap the question: "Question: {question} Answer:".')] = None,
    *,
    options: RunOptions,
    generation: GenerationOptions,
    optimization: OptimizationOptions,
) -> None:
    """Answer a question about a picture.

    IMAGE is a file, a folder, a quoted glob, - for stdin, or a URL. Several pictures or a folder are a batch: one JSON
    line each. The question is sent as it is typed.
    """
    talk = Talk(quiet=options.quiet)
    operation = Ask(
        choices=_choices(choices),
        optimize=optimize,
        optimization=optimization.config(),
        generation=generation.config(),
    )
    templates = Templates.load(optimization.templates) if optimization.templates else None
    items, is_batch = _items(arguments or [], data, allow_urls, template, options, talk)
    run(
        operation,
        items,
        is_batch=is_batch,
        options=options,
        talk=talk,
        render=_render,
        templates=templates,
        inputs=[data] if data else [],
    )


def _items(
    arguments: list[str], data: Path | None, allow_urls: bool, template: str | None, options: RunOptions, talk: Talk
) -> tuple[list[Item], bool]:
    if data is not None:
        if arguments or template:
            raise UsageError("--data brings its own pictures and questions: leave IMAGE, QUESTION and --template away.")
        return file_items(data, ItemOptions(allow_urls=allow_urls)), True
    if len(arguments) < 2:
        raise UsageError(f"a picture and a question are needed. Type: {_USAGE}")
    *images, question = arguments
    refuse_swapped(images, [question], _USAGE)
    check_instruction(question, what="question")
    return typed_items(images, (_wrapped(question, template),), options, talk)


def _wrapped(question: str, template: str | None) -> str:
    if template is None:
        return question
    if _FIELD not in template:
        raise UsageError(f"--template must contain {_FIELD}, where the question goes.")
    return template.replace(_FIELD, question)


def _choices(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    choices = tuple(part.strip() for part in text.split(","))
    if len(choices) < 2 or not all(choices) or len(set(choices)) < len(choices):
        raise UsageError('--choices needs two or more different answers with commas between: --choices "yes,no".')
    return choices


def _render(record: Fields) -> str:
    if "choices" not in record:
        return str(record["answer"])
    ranked = sorted(record["choices"], key=lambda choice: -choice["probability"])
    return "\n".join(f"{choice['probability']:6.1%}  {choice['text']}" for choice in ranked)
