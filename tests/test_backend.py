"""The interface to a model: what a backend of three methods gets for nothing, and what a profile counts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from vlinstruct.backend import Backend, ProfiledBackend, Row, Seen, Written, check_rows
from vlinstruct.errors import TextError, UsageError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Abilities, Failed, TokenCount, TokenScores

SETTINGS = GenerationSettings()


class Echo(Backend):
    """Writes what it reads; its scores are lengths."""

    abilities = Abilities(can_write_alone=False)

    def see(self, media: Sequence[Any]) -> list[Seen | Failed]:
        return list(media)

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        failed = Failed(error=TextError("too long"))
        return [failed if row.prompt == "endless" else Written(text=row.prompt) for row in rows]

    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        return [
            [TokenScores(tokens=tuple(text)[:num_first], token_nll=(float(with_end),)) for text in texts]
            for texts in targets
        ]


class Streaming(Echo):
    """Takes its time for every letter, and knows how long a row is."""

    def stream(self, row: Row, settings: GenerationSettings) -> Iterator[str | Written]:
        for letter in row.prompt:
            time.sleep(0.01)
            yield letter
        yield Written(text=row.prompt)

    def num_tokens(self, rows: Sequence[Row]) -> list[TokenCount | None]:
        return [TokenCount(prompt=len(row.prompt)) for row in rows]


def test_a_text_that_comes_whole_is_streamed_as_one_piece() -> None:
    assert list(Echo().stream(Row(prompt="a b"), SETTINGS)) == ["a b", Written(text="a b")]
    assert list(Echo().stream(Row(prompt=""), SETTINGS)) == [Written(text="")]


def test_a_streamed_row_that_fails_raises_its_error() -> None:
    with pytest.raises(TextError, match="too long"):
        next(Echo().stream(Row(prompt="endless"), SETTINGS))


def test_a_backend_need_not_know_how_long_its_rows_are() -> None:
    assert Echo().num_tokens([Row(prompt="a"), Row(prompt="b")]) == [None, None]


def test_rows_and_pictures_must_go_together() -> None:
    check_rows(["a", "b"], [1, 2])
    with pytest.raises(UsageError, match="got 2 for 1 images"):
        check_rows(["a", "b"], [1])


@pytest.mark.parametrize("backend", [Echo(), Streaming()])
def test_a_profiled_backend_gives_what_the_other_one_gives(backend: Backend) -> None:
    profiled, rows = ProfiledBackend(backend), [Row(prompt="a"), Row(prompt="endless"), Row(prompt="cd")]
    targets = [["x"], ["yz", "z"], []]
    assert profiled.abilities == backend.abilities
    assert profiled.see(["picture"]) == backend.see(["picture"])
    assert [type(one) for one in profiled.write(rows, SETTINGS)] == [type(one) for one in backend.write(rows, SETTINGS)]
    for options in ({}, {"with_end": False, "num_first": 1}):
        assert profiled.score(rows, targets, **options) == backend.score(rows, targets, **options)  # type: ignore[arg-type]
    assert list(profiled.stream(rows[2], SETTINGS)) == list(backend.stream(rows[2], SETTINGS))
    assert profiled.num_tokens(rows) == backend.num_tokens(rows)


def test_a_profile_accounts_by_stage() -> None:
    profiled = ProfiledBackend(Streaming())
    profiled.see(["a", "b", "c"])
    profiled.write([Row(prompt="a", stage="rewrite")] * 2, SETTINGS)
    for num_rows in (3, 1):
        profiled.score([Row(prompt="a", stage="judge")] * num_rows, [["x"]] * num_rows)
    assert len(list(profiled.stream(Row(prompt="abc"), SETTINGS))) == 4
    counted = {stage: (cost.num_calls, cost.num_rows) for stage, cost in profiled.costs.items()}
    assert counted == {"see": (1, 3), "rewrite": (1, 2), "judge": (2, 4), "answer": (1, 1)}
    assert profiled.costs["answer"].seconds >= 0.03


def test_a_call_that_raises_is_accounted_for() -> None:
    profiled = ProfiledBackend(Echo())
    with pytest.raises(TextError):
        list(profiled.stream(Row(prompt="endless"), SETTINGS))
    assert profiled.costs["answer"].num_calls == 1


def test_what_a_listener_does_between_the_pieces_is_not_the_backends_time() -> None:
    profiled = ProfiledBackend(Echo())
    for _ in profiled.stream(Row(prompt="abc"), SETTINGS):
        time.sleep(0.05)
    assert profiled.costs["answer"].seconds < 0.05


def test_calls_of_several_threads_are_all_accounted_for() -> None:
    profiled, row = ProfiledBackend(Echo()), Row(prompt="a")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: profiled.write([row], SETTINGS), range(400)))
    assert (profiled.costs["answer"].num_calls, profiled.costs["answer"].num_rows) == (400, 400)


def test_importing_the_interface_imports_nothing_heavy() -> None:
    code = "import sys, vlinstruct.backend; print({'torch', 'PIL', 'numpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
