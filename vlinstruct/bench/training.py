"""Training, beside a plain loop: whole epochs of every arm, in turns, over the same samples.

Plain transformers has no CMAA, so that ours without EMA is the like of it; with EMA the language model reads twice as
many projected positions. A first epoch counts all that a training does once: the frozen features, picture by picture
from their files, and the tokens.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.bench.flops import Flops, PaddedBatch, frozen_row, mean_flops, our_row, plain_row
from vlinstruct.bench.theirs import PlainTraining
from vlinstruct.bench.timing import Timing, median_and_quartiles, peaks_of, seconds_of, timed_in_turns
from vlinstruct.bench.workload import TrainingWorkload, draw_samples
from vlinstruct.training.data.conversations import TrainingSample
from vlinstruct.training.devices import Devices
from vlinstruct.training.examples import Examples
from vlinstruct.training.features import FeatureRows, Features, compute_features, readers_beside, rows_together
from vlinstruct.training.frontier import frontier, unfreeze
from vlinstruct.training.job import Job
from vlinstruct.training.loop import Loop
from vlinstruct.training.schedule import num_batches
from vlinstruct.training.settings import TrainingSettings
from vlinstruct.training.state import Log

PLAIN, FIRST_EPOCH, LIKE_FOR_LIKE, WITH_EMA = (
    "transformers, plain loop",
    "vlinstruct without EMA, first epoch",
    "vlinstruct without EMA, later epochs",
    "vlinstruct with EMA, later epochs",
)
TRAINING_ARMS = (PLAIN, FIRST_EPOCH, LIKE_FOR_LIKE, WITH_EMA)
_MANY_EPOCHS = 10**6  # so that the learning rate, a cosine over all of them, hardly moves while epochs are timed
_MB = 10**6
_GFLOP = 1e9

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingComparison:
    """The arms' timings on one workload, and what they had to compute.

    Args:
        workload: what was learned.
        timings: of epochs.
        flops: of every arm, the mean of a sample in its first epoch, padding included.
    """

    workload: TrainingWorkload
    timings: tuple[Timing, ...]
    flops: Mapping[str, Flops]

    def samples_per_s(self, arm: str) -> tuple[float, ...]:
        """Returns every epoch's speed."""
        return tuple(self.workload.num_samples / seconds for seconds in self._seconds[arm])

    def speedups(self, arm: str) -> tuple[float, ...]:
        """Returns how many times as fast as the plain loop an arm was, turn by turn."""
        return tuple(plain / own for plain, own in zip(self._seconds[PLAIN], self._seconds[arm], strict=True))

    def bound(self, arm: str) -> float:
        """Returns the speed-up that an arm would have if both did nothing but compute, equally well."""
        return self.flops[PLAIN].total / self.flops[arm].total

    @property
    def _seconds(self) -> dict[str, tuple[float, ...]]:
        return {timing.arm: timing.seconds for timing in self.timings}


def compare_training(
    model: InstructBlipBackend, theirs: Any, workloads: Sequence[TrainingWorkload], runs: int
) -> list[TrainingComparison]:
    """Compares all arms on every workload.

    Args:
        model: ours; it is trained, so that its projection is another one afterwards.
        theirs: transformers' model with the same weights; it is trained, too.
        workloads: what is learned.
        runs: epochs of every arm, at least 2.
    """
    comparisons = []
    for at, workload in enumerate(workloads, start=1):
        _log.info("%d of %d: %s", at, len(workloads), workload.name)
        with tempfile.TemporaryDirectory() as folder:
            arms = TrainingArms(model, theirs, workload, Path(folder))
            timings = timed_in_turns(arms.runnable(), runs)
            comparisons.append(TrainingComparison(workload=workload, timings=timings, flops=arms.flops()))
    return comparisons


class TrainingArms:
    """All arms on one workload.

    Args:
        model: ours.
        theirs: transformers' model with the same weights.
        workload: what is learned.
        folder: gets pictures and features.
    """

    def __init__(self, model: InstructBlipBackend, theirs: Any, workload: TrainingWorkload, folder: Path) -> None:
        batch_size, self.folder = workload.batch_size, folder
        samples = draw_samples(workload, model, folder)
        self.ours = {
            ema: OurTraining(model, samples, folder / f"ema-{ema}", training_config(batch_size, ema=ema))
            for ema in (False, True)
        }
        self.plain = PlainTraining(theirs, model, samples, batch_size, training_config(batch_size, ema=False))

    def runnable(self) -> dict[str, Callable[[], None]]:
        """Returns an epoch of every arm."""
        return {
            PLAIN: self.plain.epoch,
            FIRST_EPOCH: self._first_epoch,
            LIKE_FOR_LIKE: self.ours[False].epoch,
            WITH_EMA: self.ours[True].epoch,
        }

    def _first_epoch(self) -> None:
        later = self.ours[False]  # what a later epoch finds computed, in a folder where nothing is computed yet
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            OurTraining(later.backend, later.samples, Path(folder), later.settings).epoch()

    def flops(self) -> dict[str, Flops]:
        """Returns every arm's operations per sample, the mean of its first epoch."""
        ours = self.ours[False]
        config, num_tokens, like_for_like = ours.backend.network.config, ours.num_instruction_tokens, ours.flops()
        plain: list[Flops] = []
        for batch in self.plain.batches(0):
            longest = max(num_tokens[index] for index in batch)
            row = frozen_row(config, longest) + plain_row(config, ours.padded(batch))
            plain += [row] * len(batch)
        return {
            PLAIN: mean_flops(plain),
            FIRST_EPOCH: ours.frozen_flops() + like_for_like,
            LIKE_FOR_LIKE: like_for_like,
            WITH_EMA: self.ours[True].flops(),
        }


class OurTraining(Loop):
    """A training without checkpoints, its features computed.

    Args:
        backend: what is trained; the settings decide what learns of it.
        samples: what is learned.
        folder: gets the features and the log.
        settings: how it learns.
    """

    def __init__(
        self, backend: InstructBlipBackend, samples: Sequence[TrainingSample], folder: Path, settings: TrainingSettings
    ) -> None:
        self.samples, self.folder = samples, folder
        learning = unfreeze(backend.network, settings)
        boundary = frontier(backend, settings.layers, [sample.instruction for sample in samples])
        rows = FeatureRows.of(samples, is_per_picture=boundary.is_per_picture)
        num_rows = len(rows.firsts)
        features = Features(
            folder / "features", fingerprint="bench", num_rows=num_rows, shape=boundary.shape, dtype=backend.dtype
        )
        compute_features(
            boundary,
            rows,
            features,
            together=rows_together(backend.device),
            num_readers=readers_beside(backend.device, num_processes=1),
        )
        super().__init__(
            Job(backend=backend, samples=samples, folder=folder, settings=settings, backbone="bench", weights="bench"),
            learning=learning,
            examples=Examples(backend, samples, boundary, features, rows),
            devices=Devices(cpu=backend.device.type == "cpu"),
            facts={},
        )

    def epoch(self) -> None:
        """Learns every sample once, as `run` does it."""
        # Both of our arms train the one network, in turns; each sets it as it needs it.
        self.backend.network.use_ema = self.settings.ema
        with Log(self.folder / "log.jsonl", last_step=self.step, last_validation=0) as log:
            for _ in range(num_batches(len(self.samples), self.batch_size)):
                self.advance(log)

    @property
    def num_instruction_tokens(self) -> list[int]:
        """What the Q-Former reads of every sample, in tokens."""
        return [len(self.backend.qformer_tokenizer.encode(sample.instruction)) for sample in self.samples]

    def padded(self, batch: Sequence[int]) -> PaddedBatch:
        """Returns the lengths that a batch of sample indices is padded to."""
        lengths = [self.lengths[index] for index in batch]
        return PaddedBatch(
            prefix=self.backend.network.config.num_prefix_tokens(use_ema=self.settings.ema),
            prompt=max(prompt for prompt, _ in lengths),
            target=max(target for _, target in lengths),
            mean_target=fmean(target for _, target in lengths),
            both=max(prompt + target for prompt, target in lengths),
        )

    def flops(self) -> Flops:
        """Returns the operations per sample of an epoch whose features are there, the mean of the first."""
        config, batches = self.backend.network.config, self.batches(0)
        return mean_flops([our_row(config, self.padded(batch)) for batch in batches for _ in batch])

    def frozen_flops(self) -> Flops:
        """Returns the mean operations of a sample's features, which are computed one by one."""
        config = self.backend.network.config
        return mean_flops([frozen_row(config, num_tokens) for num_tokens in self.num_instruction_tokens])


def training_config(batch_size: int, *, ema: bool) -> TrainingSettings:
    """Returns the recipe with one batch per update and epochs without end."""
    return TrainingSettings(
        ema=ema,
        num_train_epochs=_MANY_EPOCHS,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=1,
    )


def training_record(
    backbone: str, comparisons: Sequence[TrainingComparison], environment: dict[str, Any]
) -> dict[str, Any]:
    """Returns everything that was measured, every epoch's seconds included.

    Args:
        backbone: what was measured.
        comparisons: of all workloads.
        environment: what it was measured on.
    """
    return {
        "schema": "vlinstruct.bench.training/1",
        "id": backbone,
        "status": "ok",
        "environment": environment,
        "trainings": [
            {
                "lengths": comparison.workload.name,
                "samples": comparison.workload.num_samples,
                "batch": comparison.workload.batch_size,
                "seconds": seconds_of(comparison.timings),
                "peak_bytes": peaks_of(comparison.timings),
                "median_samples_per_s": {
                    arm: median_and_quartiles(comparison.samples_per_s(arm))[1] for arm in TRAINING_ARMS
                },
                "median_speedup": {arm: median_and_quartiles(comparison.speedups(arm))[1] for arm in TRAINING_ARMS},
                "speedup_bound": {arm: comparison.bound(arm) for arm in TRAINING_ARMS},
                "flops_per_sample": {arm: asdict(flops) for arm, flops in comparison.flops.items()},
            }
            for comparison in comparisons
        ],
    }


def training_table(comparisons: Sequence[TrainingComparison]) -> str:
    """Returns two blocks of lines per workload: what was measured, and the compute that bounds it."""
    return "\n\n".join("\n".join([*_speeds(comparison), "", *_computes(comparison)]) for comparison in comparisons)


def _speeds(comparison: TrainingComparison) -> list[str]:
    has_peaks = any(timing.peak_bytes is not None for timing in comparison.timings)
    what = f"{comparison.workload.name}, batches of {comparison.workload.batch_size}"
    head = f"{what:40} {'samples/s':>9} {'quartiles':>16} {'times':>6} {'quartiles':>14}"
    lines = [f"{head} {'bound':>6}" + has_peaks * "  peak memory"]
    for timing in comparison.timings:
        low, median, high = median_and_quartiles(comparison.samples_per_s(timing.arm))
        slow, times, fast = median_and_quartiles(comparison.speedups(timing.arm))
        speed = f"{median:9.1f} {f'{low:.1f} to {high:.1f}':>16}"
        speedup = f"{times:6.2f} {f'{slow:.2f} to {fast:.2f}':>14} {comparison.bound(timing.arm):6.2f}"
        peak = f"  {timing.peak_bytes / _MB:8.0f} MB" if timing.peak_bytes is not None else ""
        lines.append(f"  {timing.arm:38} {speed} {speedup}{peak}")
    return lines


def _computes(comparison: TrainingComparison) -> list[str]:
    parts = ("vision", "qformer", "forward", "backward", "total")
    lines = [f"{'  GFLOP per sample, padding included':40} " + " ".join(f"{part:>9}" for part in parts)]
    for arm, flops in comparison.flops.items():
        counts = (getattr(flops, part) / _GFLOP for part in parts)
        lines.append(f"  {arm:38} " + " ".join(f"{count:9.3f}" for count in counts))
    return lines
