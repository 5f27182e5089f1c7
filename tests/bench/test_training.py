"""Both arms of a training comparison learn the same samples, and their compute is what torch counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
import torch
from command_line import vli
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.bench.flops import Flops, frozen_row, our_row, plain_row
from vlinstruct.bench.timing import Timing
from vlinstruct.bench.training import (
    FIRST_EPOCH,
    LIKE_FOR_LIKE,
    PLAIN,
    TRAINING_ARMS,
    WITH_EMA,
    OurTraining,
    TrainingArms,
    TrainingComparison,
    training_table,
)
from vlinstruct.bench.workload import SampleKind, TrainingWorkload, draw_samples, training_workloads
from vlinstruct.training.data.conversations import TrainingSample

KINDS = (SampleKind(share=0.5, answer_tokens=(2, 9)), SampleKind(share=0.5, answer_tokens=(4, 6), earlier_turns=(1, 2)))
WORKLOAD = TrainingWorkload(name="tiny", kinds=KINDS, batch_size=3, num_updates=2)
SHORT, LLAVA_LIKE = training_workloads(batch_size=8)


@pytest.fixture(params=["t5", "llama"])
def arms(request: pytest.FixtureRequest, tiny_folders: dict[str, Path], tmp_path: Path) -> TrainingArms:
    model = load_backend(str(tiny_folders[request.param]), device="cpu")
    return TrainingArms(model, tiny_models.hf_model(request.param), WORKLOAD, tmp_path)


def num_tokens(model: InstructBlipBackend, samples: Sequence[TrainingSample]) -> list[int]:
    return [len(model.tokenizer.target_ids(sample.answer)) for sample in samples]


def padding(ours: OurTraining, batch: Sequence[int]) -> float:
    padded = ours.padded(batch)
    taken = len(batch) * (padded.prefix + padded.prompt + padded.target)
    return round(1 - sum(padded.prefix + sum(ours.lengths[index]) for index in batch) / taken, 4)


def test_every_arm_learns_every_sample_once_per_epoch(arms: TrainingArms, monkeypatch: pytest.MonkeyPatch) -> None:
    learned: Counter[int] = Counter()
    original = arms.plain.loss
    monkeypatch.setattr(arms.plain, "loss", lambda batch: learned.update(batch) or original(batch))
    arms.plain.epoch()
    assert learned == Counter(range(WORKLOAD.num_samples))
    for ours in arms.ours.values():
        ours.epoch()
        ours.epoch()
        lines = [json.loads(line) for line in (ours.folder / "log.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [0, 0, 1, 1]
        assert [line["samples"] for line in lines] == [WORKLOAD.batch_size] * 4
        assert [line["padding"] for line in lines[:2]] == [padding(ours, batch) for batch in ours.batches(0)]
        assert sum(line["target_tokens"] for line in lines[:2]) == sum(num_tokens(ours.backend, ours.samples))


def test_the_plain_loop_has_our_loss_without_ema(arms: TrainingArms) -> None:
    ours = arms.ours[False]
    ours.backend.network.use_ema = False
    for batch in arms.plain.batches(0):
        mean = ours.examples.nll(batch) / ours.examples.num_target_tokens(batch)
        assert arms.plain.loss(batch).item() == pytest.approx(mean.item(), abs=1e-4)


def test_an_epoch_of_either_arm_learns_the_projection_and_nothing_else(arms: TrainingArms) -> None:
    ours = arms.ours[False]
    for model, epoch in ((arms.plain.model, arms.plain.epoch), (ours.backend.network, ours.epoch)):
        before = {name: one.detach().clone() for name, one in model.named_parameters()}
        for _ in range(2):  # the rate of the first update is next to nothing
            epoch()
        changed = [name for name, one in model.named_parameters() if not torch.equal(one, before[name])]
        assert changed == ["language_projection.weight", "language_projection.bias"]


def test_nothing_frozen_of_the_plain_loop_records_gradients(arms: TrainingArms) -> None:
    seen: list[bool] = []
    for frozen in (arms.plain.model.vision_model.post_layernorm, arms.plain.model.qformer.encoder):
        frozen.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    arms.plain.loss([0, 1])
    assert set(seen) == {False}


@pytest.mark.parametrize("batch", [[0], [0, 1, 2, 3]])
def test_our_operations_are_those_that_torch_counts(batch: list[int], arms: TrainingArms) -> None:
    for ema, ours in arms.ours.items():
        ours.backend.network.use_ema = ema
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            ours.examples.nll(batch).backward()
        expected = our_row(ours.backend.network.config, ours.padded(batch)) * len(batch)
        assert counter.get_total_flops() == pytest.approx(expected.total, rel=0.001)


@pytest.mark.parametrize("batch", [[0], [0, 1, 2, 3]])
def test_the_plain_loops_operations_are_those_that_torch_counts(batch: list[int], arms: TrainingArms) -> None:
    config, ours = arms.ours[False].backend.network.config, arms.ours[False]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        arms.plain.loss(batch).backward()
    longest = max(ours.num_instruction_tokens[index] for index in batch)
    expected = (frozen_row(config, longest) + plain_row(config, ours.padded(batch))) * len(batch)
    assert counter.get_total_flops() == pytest.approx(expected.total, rel=0.001)


def test_the_parts_of_the_compute_add_up_to_the_bound(arms: TrainingArms) -> None:
    flops = arms.flops()
    assert list(flops) == list(TRAINING_ARMS)
    assert flops[LIKE_FOR_LIKE].vision == flops[WITH_EMA].vision == 0
    assert flops[FIRST_EPOCH].vision == flops[PLAIN].vision > 0
    assert flops[LIKE_FOR_LIKE].total < flops[WITH_EMA].total
    compared = TrainingComparison(workload=WORKLOAD, timings=(), flops=flops)
    assert compared.bound(PLAIN) == 1
    assert compared.bound(LIKE_FOR_LIKE) == pytest.approx(flops[PLAIN].total / flops[LIKE_FOR_LIKE].total)


def test_speed_ups_are_taken_turn_by_turn() -> None:
    """A machine that is half as fast in one turn changes none of them."""
    seconds = {PLAIN: (6.0, 12.0, 6.0), LIKE_FOR_LIKE: (2.0, 4.0, 1.0)}
    timings = tuple(Timing(arm=arm, seconds=taken) for arm, taken in seconds.items())
    compared = TrainingComparison(
        workload=WORKLOAD, timings=timings, flops={arm: Flops(forward=1.0) for arm in seconds}
    )
    assert compared.speedups(LIKE_FOR_LIKE) == (3.0, 3.0, 6.0)
    assert compared.samples_per_s(PLAIN) == (1.0, 0.5, 1.0)
    (line,) = [line for line in training_table([compared]).splitlines() if LIKE_FOR_LIKE in line and "to" in line]
    assert "3.00 to 4.50" in line


@pytest.mark.parametrize("workload", [SHORT, LLAVA_LIKE])
def test_texts_have_the_lengths_that_were_asked_for(workload: TrainingWorkload, tmp_path: Path) -> None:
    model = load_backend("mini", device="cpu")
    samples = draw_samples(workload, model, tmp_path)
    assert len({sample.image for sample in samples}) == len(samples) == workload.num_samples
    shortest, longest = (end([kind.answer_tokens[end is max] for kind in workload.kinds]) for end in (min, max))
    assert all(shortest <= count <= longest for count in num_tokens(model, samples))
    assert max(num_tokens(model, samples)) > 0.9 * longest
    asked = [len(model.tokenizer.encode(sample.instruction)) for sample in samples]
    assert (min(asked), max(asked)) == (8, 16)


def test_conversations_are_learned_behind_their_earlier_turns(tmp_path: Path) -> None:
    samples = draw_samples(LLAVA_LIKE, load_backend("mini", device="cpu"), tmp_path)
    behind = [sample for sample in samples if sample.prompt != sample.instruction]
    assert 0.2 < len(behind) / len(samples) < 0.55
    for sample in behind:
        assert sample.prompt.endswith(f" Question: {sample.instruction} Answer:")
    assert {sample.prompt.count("Question:") for sample in behind} == {2, 3, 4, 5}


def test_samples_are_a_function_of_the_seed(tmp_path: Path) -> None:
    model = load_backend("mini", device="cpu")
    first, again, other = (draw_samples(WORKLOAD, model, tmp_path, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two updates per epoch of the command's workloads."""
    monkeypatch.setattr(
        "vlinstruct.bench.bench.training_workloads",
        lambda batch_size: [replace(one, batch_size=batch_size, num_updates=2) for one in (SHORT, LLAVA_LIKE)],
    )


def test_bench_prints_every_arm_of_a_training_with_its_bound(
    monkeypatch: pytest.MonkeyPatch, tiny_folders: dict[str, Path]
) -> None:
    small(monkeypatch)
    command = ("bench", "--training", "--backbone", tiny_folders["t5"], "--runs", 2, "--device", "cpu")
    text = vli(*command, "--batch-size", 2).text
    assert all(text.count(arm) == 4 for arm in TRAINING_ARMS)  # measured and computed, both workloads
    assert text.count("bound") == text.count("GFLOP") == 2
    for name in (SHORT.name, LLAVA_LIKE.name):
        assert f"{name}, batches of 2" in text


def test_bench_keeps_every_epoch_of_a_training(monkeypatch: pytest.MonkeyPatch, tiny_folders: dict[str, Path]) -> None:
    small(monkeypatch)
    command = ("bench", "--training", "--backbone", tiny_folders["llama"], "--runs", 2, "--device", "cpu", "--json")
    (record,) = vli(*command, "--batch-size", 3).records
    assert (record["schema"], record["status"]) == ("vlinstruct.bench.training/1", "ok")
    assert record["environment"]["device"] == "cpu"
    for one in record["trainings"]:
        assert (one["samples"], one["batch"]) == (6, 3)
        assert list(one["seconds"]) == list(TRAINING_ARMS)
        assert {len(seconds) for seconds in one["seconds"].values()} == {2}
        assert one["median_speedup"][PLAIN] == one["speedup_bound"][PLAIN] == 1
        assert set(one["flops_per_sample"][PLAIN]) == {"vision", "qformer", "forward", "backward"}


@pytest.mark.parametrize("option", [("--acceptance", "0.5"), ("--plot", "a.png"), ("--cold-runs", "2")])
def test_what_training_does_not_measure_is_refused(option: tuple[str, str]) -> None:
    assert option[0] in vli("bench", "--training", *option).refusal(2)


def test_a_training_takes_one_batch_size() -> None:
    several = ("--batch-size", 2, "--batch-size", 4)
    assert "--training takes one --batch-size" in vli("bench", "--training", *several).refusal(2)
