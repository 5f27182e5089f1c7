"""What has become slower is told by ratios, and two measurements of different things are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vlinstruct.bench import against
from vlinstruct.bench.against import changes, read_measurement
from vlinstruct.errors import InputError

BEFORE = [0.50, 0.52, 0.51, 0.53, 0.49]


def measured(ratios: Sequence[float], *, speed: float = 1.0, tokens: int = 2, **more: Any) -> dict[str, Any]:
    seconds = {"theirs": [speed] * len(ratios), "ours": [speed * ratio for ratio in ratios]}
    return {
        "schema": "vlinstruct.bench/1",
        "id": "mini",
        "environment": {"torch": "2.13.0", "threads": 2},
        "comparisons": [{"answer_tokens": tokens, "batch": 1, "seconds": seconds}],
        "cold_start": {"seconds": {}},
        **more,
    }


@pytest.mark.parametrize(
    ("now", "is_slower"),
    [
        ([0.60, 0.62, 0.61, 0.63, 0.59], True),
        (BEFORE, False),
        ([0.40, 0.42, 0.41, 0.43, 0.39], False),
        ([0.60, 0.50, 0.70, 0.50, 0.62], False),  # the median is higher, the quartiles overlap
        ([0.525, 0.526, 0.527, 0.526, 0.524], False),  # apart, by next to nothing
    ],
)
def test_slower_is_what_lies_apart(now: Sequence[float], is_slower: bool) -> None:
    changed = changes(measured(now, speed=3.0), measured(BEFORE), Path("before.json"))
    (arm,) = changed.arms
    assert (arm.what, arm.arm, arm.is_slower) == ("answer tokens 2, batch 1", "ours", is_slower)
    assert ("slower" in changed.as_table().splitlines()[-2]) == is_slower
    assert changed.as_record()["arms"][0]["is_slower"] is is_slower


def test_batch_sizes_are_compared_each_with_its_own() -> None:
    seconds = {ratio: {"theirs": [1.0] * 3, "ours": [ratio] * 3} for ratio in (0.1, 0.5, 0.7)}

    def of(ratios: dict[int, float]) -> dict[str, Any]:
        comparisons = [
            {"answer_tokens": 2, "batch": batch, "seconds": seconds[ratio]} for batch, ratio in ratios.items()
        ]
        return measured(BEFORE, comparisons=comparisons)

    changed = changes(of({64: 0.1, 8: 0.7, 1: 0.5}), of({1: 0.5, 8: 0.5}), Path("before.json"))
    assert [(arm.what, arm.is_slower) for arm in changed.arms] == [
        ("answer tokens 2, batch 8", True),
        ("answer tokens 2, batch 1", False),
    ]


def test_the_measurement_in_the_repository_is_read_and_no_slower_than_itself() -> None:
    earlier = read_measurement(Path(against.__file__).with_name("mini.json"))
    assert earlier["comparisons"]
    changed = changes(earlier, earlier, Path("mini.json"))
    assert len(changed.arms) == 8
    assert not any(arm.is_slower for arm in changed.arms)


def test_another_environment_is_told() -> None:
    record = measured(BEFORE, environment={"torch": "2.14.0", "threads": 2})
    table = changes(record, measured(BEFORE), Path("before.json")).as_table()
    assert "torch was 2.13.0, is 2.14.0" in table
    assert "threads" not in table


@pytest.mark.parametrize(
    "earlier",
    [
        measured(BEFORE, id="mini-llama"),
        measured(BEFORE, schema="vlinstruct.bench.ranking/1"),
        measured(BEFORE, tokens=15),
        measured(BEFORE, environment=None),
        measured(BEFORE, comparisons=[{"answer_tokens": 2, "seconds": {"theirs": [1, 1], "ours": ["a", "b"]}}]),
        measured(BEFORE, comparisons=[{"answer_tokens": 2, "seconds": {"theirs": [1, 1], "ours": [1]}}]),
        measured(BEFORE, comparisons=[{"answer_tokens": 2, "seconds": {"theirs": 1, "ours": None}}]),
        measured(BEFORE, comparisons=[{"answer_tokens": 2, "seconds": {"theirs": [0, 0], "ours": [1, 1]}}]),
    ],
)
def test_what_cannot_be_compared_is_refused(earlier: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"cannot compare with \(.*before.json\)"):
        changes(measured(BEFORE), earlier, Path("before.json"))


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"schema": "vlinstruct.ask/1"}), "[" * 100_000])
def test_a_file_of_something_else_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    path.write_text(content)
    with pytest.raises(InputError, match="it is no record of bench"):
        read_measurement(path)
