"""Our arm of a training comparison, and the comparison: whole epochs of every arm, in turns, over the same samples.

Plain transformers has no CMAA, so that ours without EMA is the like of it; with EMA the language model reads twice as
many projected positions. A first epoch counts all that a training does once: the frozen features, picture by picture
from their files, and the tokens.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.bench.compare import Timing, timed_in_turns
from vlinstruct.bench.flops import Flops, PaddedBatch, frozen_row, mean_flops, our_row, plain_row
from vlinstruct.bench.plain_training import PlainTraining
from vlinstruct.bench.training_workload import TrainingWorkload, draw_samples
from vlinstruct.training.data.conversations import TrainingSample
from vlinstruct.training.devices import Devices
from vlinstruct.training.examples import Examples
from vlinstruct.training.features import FeatureRows, Features, compute_features, rows_together
from vlinstruct.training.frontier import frontier, unfreeze
from vlinstruct.training.job import Job
from vlinstruct.training.log import Log
from vlinstruct.training.loop import Loop
from vlinstruct.training.schedule import num_batches
from vlinstruct.training.settings import TrainingSettings

PLAIN, FIRST_EPOCH, LIKE_FOR_LIKE, WITH_EMA = (
    "transformers, plain loop",
    "vlinstruct without EMA, first epoch",
    "vlinstruct without EMA, later epochs",
    "vlinstruct with EMA, later epochs",
)
TRAINING_ARMS = (PLAIN, FIRST_EPOCH, LIKE_FOR_LIKE, WITH_EMA)
_MANY_EPOCHS = 10**6  # the rate hardly moves


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


def median_and_quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns first quartile, median and third quartile.

    >>> median_and_quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 3.0, 4.0)
    """
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, statistics.median(values), high


def compare_training(
    model: InstructBlipBackend, theirs: Any, workloads: Sequence[TrainingWorkload], runs: int
) -> list[TrainingComparison]:
    """Compares all arms on every workload.

    Args:
        model: ours; its projection learns.
        theirs: transformers' model with the same weights; its projection learns.
        workloads: what is learned.
        runs: epochs of every arm, at least 2.
    """
    compared = []
    for workload in workloads:
        with tempfile.TemporaryDirectory() as folder:
            arms = TrainingArms(model, theirs, workload, Path(folder))
            timings = timed_in_turns(arms.runnable(), runs)
            compared.append(TrainingComparison(workload=workload, timings=timings, flops=arms.flops()))
    return compared


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
        known = self.ours[False]
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            OurTraining(known.backend, known.samples, Path(folder), known.settings).epoch()

    def flops(self) -> dict[str, Flops]:
        """Returns every arm's operations per sample, the mean of its first epoch."""
        like_for_like = self.ours[False].flops()
        return {
            PLAIN: self._plain_flops(),
            FIRST_EPOCH: self.ours[False].frozen_flops() + like_for_like,
            LIKE_FOR_LIKE: like_for_like,
            WITH_EMA: self.ours[True].flops(),
        }

    def _plain_flops(self) -> Flops:
        ours = self.ours[False]
        config, num_tokens = ours.backend.network.config, ours.num_instruction_tokens
        samples: list[Flops] = []
        for batch in self.plain.batches(0):
            longest = max(num_tokens[index] for index in batch)
            row = frozen_row(config, longest) + plain_row(config, ours.padded(batch))
            samples += [row] * len(batch)
        return mean_flops(samples)


class OurTraining(Loop):
    """A training without checkpoints, its features computed.

    Args:
        model: what is trained; the settings decide what learns of it.
        samples: what is learned.
        folder: gets the features and the log.
        config: the settings.
    """

    def __init__(
        self, model: InstructBlipBackend, samples: Sequence[TrainingSample], folder: Path, config: TrainingSettings
    ) -> None:
        self.samples, self.folder = samples, folder
        super().__init__(
            Job(backend=model, samples=samples, folder=folder, settings=config, backbone="bench", weights="bench"),
            learning=unfreeze(model.network, config),
            examples=_examples(model, samples, folder / "features", config),
            devices=Devices(cpu=model.device.type == "cpu"),
            facts={},
        )

    def epoch(self) -> None:
        """Learns every sample once, as `run` does it."""
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


def _examples(
    model: InstructBlipBackend, samples: Sequence[TrainingSample], folder: Path, config: TrainingSettings
) -> Examples:
    of = frontier(model, config.layers, [sample.instruction for sample in samples])
    rows = FeatureRows.of(samples, is_per_picture=of.is_per_picture)
    features = Features(folder, fingerprint="bench", num_rows=len(rows.firsts), shape=of.shape, dtype=model.dtype)
    compute_features(of, rows, features, together=rows_together(model.device))
    return Examples(model, samples, of, features, rows)
