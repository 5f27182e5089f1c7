"""What the environment says of processes is read as numbers, or refused in one line."""

from __future__ import annotations

import pytest

from vlinstruct.errors import UsageError
from vlinstruct.training.devices import launched

WHOLE = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WHOLE:
        monkeypatch.delenv(name, raising=False)


def test_a_whole_environment_is_read_and_none_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == (0, 1)
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    assert launched() == (1, 2)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() == (0, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"MASTER_ADDR": ""}, "WORLD_SIZE is 2, but MASTER_ADDR missing"),
        ({"MASTER_ADDR": "", "MASTER_PORT": ""}, "MASTER_ADDR and MASTER_PORT missing"),
        ({"RANK": ""}, "RANK missing"),
        ({"RANK": "2"}, "RANK is 2, of 2 processes"),
        ({"RANK": "-1"}, r"RANK is -1, a whole number"),
        ({"WORLD_SIZE": "two"}, r"WORLD_SIZE is two, a whole number"),
        ({"WORLD_SIZE": "9" * 30}, "a whole number"),
        ({"LOCAL_RANK": "1.5"}, "LOCAL_RANK is 1.5"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK is 2, of 2 processes"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is http"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT is 65536, the highest port is 65535"),
    ],
)
def test_half_an_environment_is_refused_by_name(
    change: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**WHOLE, **change}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words):
        launched()
