"""Folders of tiny families and what they are loaded as, once per run; nothing runs on a transformers without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vlinstruct.values import Failed

if TYPE_CHECKING:
    from vlinstruct.backend import Written
    from vlinstruct.model import Model
    from vlinstruct.values import TokenScores

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

    def assert_same_scores(
        self, ours: Iterable[list[TokenScores] | Failed], theirs: Iterable[list[TokenScores] | Failed]
    ) -> None:
        """Checks likelihoods token by token, of every target of every row."""
        for of_ours, of_theirs in zip(ours, theirs, strict=True):
            assert not isinstance(of_ours, Failed), of_ours.error.message
            assert not isinstance(of_theirs, Failed)
            for our_target, their_target in zip(of_ours, of_theirs, strict=True):
                assert our_target.token_nll == pytest.approx(their_target.token_nll, abs=self.tolerance)

    def assert_same_texts(self, ours: Iterable[Written | Failed], theirs: Iterable[Written | Failed]) -> None:
        """Checks that the same tokens were written, one by one, with the same likelihoods."""
        for our_row, their_row in zip(ours, theirs, strict=True):
            assert not isinstance(our_row, Failed), our_row.error.message
            assert not isinstance(their_row, Failed)
            assert our_row.text == their_row.text
            assert our_row.is_complete == their_row.is_complete
            assert our_row.usage.written == their_row.usage.written
            if their_row.token_nll is not None:
                assert our_row.token_nll == pytest.approx(their_row.token_nll, abs=self.tolerance)

    @property
    def tolerance(self) -> float:
        """In nats."""
        return self.theirs.tolerance


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the folder of a family, which is built when it is first asked for."""
    from .tiny_families import build

    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        return root / name if (root / name).exists() else build(name, root / name)

    return folder


@pytest.fixture
def saying(folder_of: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Returns the folder of a model that says given tokens after any prompt."""
    from .fixed_text import say

    return lambda *tokens: say(folder_of("qwen3_vl"), tokens, tmp_path / "saying")


@pytest.fixture(scope="session")
def pair_of(folder_of: Callable[[str], Path]) -> Callable[[str], Pair]:
    """Returns a family as both load it."""
    import vlinstruct as vli

    from .naive import NaiveBackend
    from .tiny_families import FAMILIES

    pairs: dict[str, Pair] = {}

    def pair(name: str) -> Pair:
        if name not in pairs:
            folder = folder_of(name)
            pairs[name] = Pair(ours=vli.load(folder, device="cpu"), theirs=NaiveBackend(folder, FAMILIES[name]))
        return pairs[name]

    return pair
