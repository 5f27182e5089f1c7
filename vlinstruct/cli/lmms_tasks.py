"""`vlinstruct lmms-tasks`: where the tasks for lmms-eval lie."""

from __future__ import annotations

from typing import Annotated

import typer

from vlinstruct.cli.command import OUTPUT
from vlinstruct.cli.terminal import show


def lmms_tasks(
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Print the folder of our lmms-eval tasks. lmms-eval's --include_path takes it."""
    from vlinstruct.integrations.lmms_eval import TASKS_FOLDER

    show(str(TASKS_FOLDER))
