"""`vlinstruct serve`: any backend behind an OpenAI-compatible address."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from vlinstruct.backends.server.address import key_from
from vlinstruct.cli.answer_options import OptimizationOptions
from vlinstruct.cli.command import OPTIMIZATION, takes
from vlinstruct.cli.options import ModelOptions
from vlinstruct.cli.terminal import Talk
from vlinstruct.errors import not_installed

_KEY_VARIABLE = "VLINSTRUCT_SERVE_KEY"


@takes(ModelOptions, OptimizationOptions)
def serve(
    host: Annotated[str, typer.Option(help="Interface to listen on; 127.0.0.1 is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model.", show_default="the backbone's name")
    ] = None,
    optimize: Annotated[
        bool,
        typer.Option(
            "--optimize", "-O", help="Optimize a client's last instruction first.", rich_help_panel=OPTIMIZATION
        ),
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Most requests that go through together.")] = 32,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests at once; more are told to come back.")] = 256,
    max_mib: Annotated[int, typer.Option("--max-mib", min=1, help="MiB that a request may have.")] = 32,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")] = 300.0,
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch pictures that clients name by URL.")] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="Serve no page for people at /.")] = False,
    *,
    options: ModelOptions,
    optimization: OptimizationOptions,
) -> None:
    """Serve a model to any OpenAI client.

    With --optimize its last instruction is optimized before it is answered, and the answer says what happened.

    At / is a page to try it: drop a picture, type, and see the answer as typed and optimized.

    Routes: /v1/chat/completions, /v1/models, /v1/optimize, /v1/score, /health, /metrics. A key that clients must show
    is read from $VLINSTRUCT_SERVE_KEY.

    \b
    vlinstruct serve --optimize --port 8001
    vlinstruct serve --backbone http://127.0.0.1:8000/v1 --optimize --port 8001
    """
    from vlinstruct.instruction.templates import Templates
    from vlinstruct.media.load import MediaSettings
    from vlinstruct.model import load

    try:
        from vlinstruct.serving.app import ServeSettings, Service
        from vlinstruct.serving.gate import GateSettings, loopback_hosts
        from vlinstruct.serving.run import listen, server_of
        from vlinstruct.serving.run import serve as serve_model
    except ModuleNotFoundError as error:
        raise not_installed("serve", error.name or "starlette", "serve") from error

    talk = Talk(quiet=options.quiet)
    key = key_from(_KEY_VARIABLE)
    with talk.listening(), listen(host, port, has_key=key is not None) as listener:
        templates = None if optimization.templates is None else Templates.load(optimization.templates)
        load_model = partial(load, **vars(options.model_settings()), templates=templates)
        settings = ServeSettings(
            name=name or "",
            gate=GateSettings(
                api_key=key,
                hosts=loopback_hosts(host),
                max_body_bytes=max_mib * 1024 * 1024,
                max_requests=max_requests,
                has_page=not no_page,
            ),
            optimize=optimize,
            optimization=optimization.settings(),
            batch_size=batch_size,
            allow_urls=allow_urls,
            timeout_s=max_seconds,
            media=MediaSettings(images=options.image_limits(), clips=options.clip_settings()),
        )
        shown_host = f"[{host.strip('[]')}]" if ":" in host else host
        address = f"http://{shown_host}:{listener.getsockname()[1]}"
        service = Service(load_model, settings, log=talk.progress)
        page = "" if no_page else f" (a page to try it: {address}/)"
        ready = f"serving {service.settings.name} at {address}/v1{page}"
        try:
            serve_model(service, server_of(service), listener, on_ready=lambda: talk.done(ready))
        finally:
            service.close()
