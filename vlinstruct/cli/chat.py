"""`vlinstruct chat`: several questions about one picture, typed or piped in.

On a terminal answers stream, and Ctrl-C stops one without ending the chat. Piped questions are data: one line of stdout
each, that of a failed one empty.
"""

from __future__ import annotations

from typing import Annotated

import typer

from vlinstruct.cli.answer_options import GenerationOptions, OptimizationOptions
from vlinstruct.cli.chat_input import piped_lines, read_picture, typed_lines
from vlinstruct.cli.chat_prompt import keep_continuing_to_the_prompt
from vlinstruct.cli.command import ANSWER, OPTIMIZATION, takes
from vlinstruct.cli.idle import say_idle
from vlinstruct.cli.options import ModelOptions
from vlinstruct.cli.terminal import Talk


@takes(ModelOptions, GenerationOptions, OptimizationOptions)
def chat(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A picture, clip or sound: a file or a URL.")],
    optimize: Annotated[
        bool, typer.Option("--optimize", "-O", help="Optimize every question first.", rich_help_panel=OPTIMIZATION)
    ] = False,
    verbatim: Annotated[
        bool,
        typer.Option(help='Ask "and the square?" as typed, not as a whole question.', rich_help_panel=ANSWER),
    ] = False,
    *,
    options: ModelOptions,
    generation: GenerationOptions,
    optimization: OptimizationOptions,
) -> None:
    """Talk about a picture, question after question.

    What a follow-up leaves out ("and the square?") is put back before it is asked. Questions are typed, or come from
    stdin line by line. Lines that begin with / are commands; /help lists them.

    \b
    vlinstruct chat picture.png -O
    """
    keep_continuing_to_the_prompt()  # numpy starts threads when it is imported
    from vlinstruct.chat import ChatSettings
    from vlinstruct.cli.chat_session import Session
    from vlinstruct.cli.run import collect_garbage_from_here

    # Without --optimize there is /optimize, which shows an instruction and leaves none alone.
    optimization.refuse_idle(no_gate=None if optimize else "without --optimize")
    settings = ChatSettings(
        optimize=optimize,
        generation=generation.settings(),
        optimization=optimization.settings(),
        complete=not verbatim,
    )
    templates = optimization.load_templates()
    talk = Talk(quiet=options.quiet)
    say_idle(talk, generation)
    with talk.listening():
        from vlinstruct.backends.registry import abilities_of, default_backbone

        backbone = options.backbone or default_backbone()
        picture = read_picture(image, options, talk, abilities=lambda: abilities_of(backbone))
        from vlinstruct.model import load  # imports torch: not before the picture could be read

        model = load(**vars(options.model_settings()), templates=templates)
        collect_garbage_from_here()
        session = Session(model, settings, options=options, talk=talk)
        session.look_at(picture)
        if session.is_streaming and generation.num_beams > 1:
            talk.notice("answers come as a whole: they are shown word by word with --num-beams 1 only.")
        if session.is_typed:
            talk.notice("type a question, or /help.")
        session.run(typed_lines(talk) if session.is_typed else piped_lines())
