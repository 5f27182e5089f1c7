"""Ranking is measured on the same losses, whoever computes them and however many at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlinstruct.bench.models import load_both
from vlinstruct.bench.ranking import RANKING_ARMS, candidates, compare_ranking, ranking_record, ranking_table


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_all_arms_have_the_losses_of_transformers(kind: str, tiny_folders: dict[str, Path]) -> None:
    ours, theirs = load_both(str(tiny_folders[kind]), device="cpu", dtype="float32")
    compared = compare_ranking(ours, theirs, 5, runs=2)
    assert compared.largest_difference < 1e-5
    assert [len(timing.seconds) for timing in compared.timings] == [2, 2, 2]
    assert compared.speedup(RANKING_ARMS[-1]) == 1
    assert ranking_record("tiny", compared, {})["seconds"].keys() == set(RANKING_ARMS)
    assert ranking_table(compared).startswith("ranking 5 candidates\n  transformers, one by one")


@pytest.mark.parametrize("count", [2, 64, 65, 300])
def test_candidates_are_as_many_different_ones(count: int) -> None:
    assert len(set(candidates(count))) == count
