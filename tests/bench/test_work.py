"""What a run does is counted: the weights each time that it reads them, passes of the language model, positions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny_models
from torch import nn

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import empty_model
from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.bench.answers import OurArms, stacks_of
from vlinstruct.bench.theirs import TheirArms
from vlinstruct.bench.timing import picture
from vlinstruct.bench.work import Work, work_of
from vlinstruct.bench.workload import Workload

from .instructblip_shapes import TEXT, config_of


def bytes_of(network: nn.Module) -> int:
    return sum(
        weight.nbytes
        for module in network.modules()
        if not isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
    )


def test_every_token_reads_the_language_model_once_more(tiny_folders: dict[str, Path]) -> None:
    backend = load_backend(str(tiny_folders["llama"]), device="cpu")
    arms = [OurArms(backend, [picture()], Workload(answer_tokens=number)) for number in (2, 3, 5)]
    runs = {arm.generation.max_new_tokens: arm.plain for arm in arms}
    two, three, five = (work.weight_bytes for work in work_of([backend.network], [], runs, per_second=1e9).values())
    language_model = bytes_of(backend.network.language_model)
    assert (three - two, five - three) == (language_model, 2 * language_model)
    # The picture, the Q-Former and the context are read once: the first token needs no pass of its own.
    outside = bytes_of(backend.network.vision_model) + bytes_of(backend.network.qformer)
    assert outside < two - 2 * language_model < bytes_of(backend.network)


def test_what_was_metered_is_left_as_it_was(tiny_folders: dict[str, Path]) -> None:
    backend = load_backend(str(tiny_folders["t5"]), device="cpu")
    arms = OurArms(backend, [picture()], Workload())
    stacks = stacks_of(backend.network.language_model)
    work = work_of([backend.network], stacks, {"plain": arms.plain, "AIO": arms.optimized}, per_second=1e9)
    assert 0 < work["plain"].floor_seconds < work["AIO"].floor_seconds
    assert work["plain"].floor_seconds == work["plain"].weight_bytes / 1e9
    assert not any(module._forward_pre_hooks for module in backend.network.modules())


def plain_work(kind: str, folder: Path, workloads: Sequence[Workload]) -> list[dict[str, Work]]:
    """Returns what transformers' plain answers and ours do, by who they are."""
    backend, theirs = load_backend(str(folder), device="cpu"), tiny_models.hf_model(kind)
    stacks = [*stacks_of(backend.network.language_model), *stacks_of(theirs.language_model)]
    work = []
    for workload in workloads:
        images = [picture()] * workload.batch
        arms = {
            "theirs": TheirArms(theirs, backend, images, workload).plain,
            "ours": OurArms(backend, images, workload).plain,
        }
        work.append(work_of([backend.network, theirs], stacks, arms, per_second=1e9))
    return work


@pytest.mark.parametrize(("kind", "num_encoders"), [("t5", 1), ("llama", 0)])
def test_every_token_is_a_call_that_reads_a_position_a_row(
    kind: str, num_encoders: int, tiny_folders: dict[str, Path]
) -> None:
    workloads = [Workload(answer_tokens=number, batch=2) for number in (2, 5)]
    short, long = plain_work(kind, tiny_folders[kind], workloads)
    for arm in ("theirs", "ours"):
        assert (short[arm].num_calls, long[arm].num_calls) == (num_encoders + 2, num_encoders + 5)
        assert long[arm].num_tokens - short[arm].num_tokens == 3 * 2
    assert short["theirs"].num_tokens == short["ours"].num_tokens


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_twice_as_many_rows_are_twice_as_many_tokens_in_as_many_calls(kind: str, tiny_folders: dict[str, Path]) -> None:
    workloads = [Workload(answer_tokens=3, batch=batch) for batch in (1, 2)]
    one, two = plain_work(kind, tiny_folders[kind], workloads)
    for arm in ("theirs", "ours"):
        assert two[arm].num_tokens == 2 * one[arm].num_tokens > 0
        assert two[arm].num_calls == one[arm].num_calls


@pytest.mark.parametrize("kind", TEXT)
def test_the_shapes_that_are_measured_have_as_many_weights_as_they_say(kind: str) -> None:
    network = empty_model(InstructBlipConfig.from_dict(config_of(kind)))
    assert 100e6 < sum(weight.numel() for weight in network.parameters()) < 150e6
