"""`vlinstruct bench`, on mini."""

from __future__ import annotations

import sys

import pytest
from command_line import vli

from vlinstruct.bench.compare import ARMS


def test_bench_times_every_arm_and_keeps_every_run() -> None:
    (record,) = vli(
        "bench", "--backbone", "mini", "--runs", "2", "--acceptance", "1", "--json", "--device", "cpu"
    ).records
    assert (record["schema"], record["id"], record["status"]) == ("vlinstruct.bench/1", "mini", "ok")
    assert [one["answer_tokens"] for one in record["comparisons"]] == [2, 15]
    for one in record["comparisons"]:
        assert list(one["seconds"]) == list(ARMS)
        assert {len(seconds) for seconds in one["seconds"].values()} == {2}


def test_bench_prints_a_table_per_length() -> None:
    text = vli("bench", "--backbone", "mini", "--runs", "2", "--acceptance", "0.5", "--device", "cpu").text
    assert text.count("50 % of drafts right") == 2
    assert all(text.count(arm) == 2 for arm in ARMS)


def test_bench_needs_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'vlinstruct[hub-tokenizers]'" in vli("bench").refusal(6)


@pytest.mark.parametrize("wrong", [("--runs", "1"), ("--acceptance", "2"), ("--batch-size", "0"), ("--threads", "0")])
def test_bench_refuses_what_it_cannot_do(wrong: tuple[str, str]) -> None:
    vli("bench", *wrong).refusal(2)
