"""Folders of tiny families, built once per run; without a transformers that knows the families nothing here runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

OLDEST = (5, 23)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if tuple(int(part) for part in version("transformers").split(".")[:2]) >= OLDEST:
        return
    reason = f"other families need transformers {'.'.join(map(str, OLDEST))}, here is {version('transformers')}"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="package", autouse=True)
def _hushed() -> Iterator[None]:
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the folder of a family, which is built when it is first asked for."""
    from .tiny_families import build

    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        return root / name if (root / name).exists() else build(name, root / name)

    return folder
