"""Folders of tiny families and what they are loaded as, once per run; nothing runs on a transformers without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vlinstruct.model import Model

    from .naive import NaiveBackend

OLDEST = (5, 23)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = version("transformers")
    reason = f"other families need transformers {'.'.join(map(str, OLDEST))}, here is {here}"
    is_old = tuple(int(part) for part in here.split(".")[:2]) < OLDEST
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        # PaliGemma's processor makes an array of a tensor in a way that NumPy deprecates (transformers 5.24).
        item.add_marker(pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"))
        if is_old:
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


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One folder, loaded by us and by transformers alone."""

    ours: Model
    theirs: NaiveBackend


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the folder of a family, which is built when it is first asked for."""
    from .tiny_families import build

    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        return root / name if (root / name).exists() else build(name, root / name)

    return folder


@pytest.fixture(scope="session")
def pair_of(folder_of: Callable[[str], Path]) -> Callable[[str], Pair]:
    """Returns a family as both load it."""
    import vlinstruct as vli

    from .naive import NaiveBackend

    pairs: dict[str, Pair] = {}

    def pair(name: str) -> Pair:
        if name not in pairs:
            folder = folder_of(name)
            pairs[name] = Pair(ours=vli.load(folder, device="cpu"), theirs=NaiveBackend(folder))
        return pairs[name]

    return pair
