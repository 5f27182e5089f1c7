"""The processes that train together, through accelerate: one on a laptop, or what torchrun or accelerate launched.

What learns lies whole on every process, and its gradients are summed in one vector: so the sums are the same whenever a
run is resumed, a batch may be split unevenly, and what all processes must agree on travels along. What is frozen may be
sharded (FSDP): only the language model is, which holds nearly all of the weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from vlinstruct.backends.instructblip.language_model import LanguageModel
from vlinstruct.errors import InputError, ResourceError, UsageError, cause_of, shortened
from vlinstruct.settings import Quantization
from vlinstruct.training.settings import TrainingSettings

_MAX_PORT = 65_535


class Devices:
    """The processes of a training.

    Args:
        cpu: compute on the CPU even where there is an accelerator.
        report_to: one of `settings.Tracker`, or None for no tracker.
        folder: where a tracker writes.
    """

    def __init__(self, *, cpu: bool = False, report_to: str | None = None, folder: Path | None = None) -> None:
        from accelerate import Accelerator

        launched()  # accelerate's own errors would be tracebacks
        self.accelerator = Accelerator(cpu=cpu or not _has_accelerator(), log_with=report_to, project_dir=folder)
        self.report_to, self.folder = report_to, folder

    @property
    def rank(self) -> int:
        """This process' number, from 0."""
        return self.accelerator.process_index

    @property
    def num_processes(self) -> int:
        """How many there are."""
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and speaks."""
        return self.accelerator.is_main_process

    def device(self, name: str) -> str:
        """Returns where this process computes, given the device that a user names."""
        return name if self.num_processes == 1 else str(self.accelerator.device)

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum over all processes."""
        total = self.accelerator.reduce(values, reduction="sum")
        assert isinstance(total, Tensor)
        return total

    def sum_floats(self, values: Sequence[float]) -> Tensor:
        """Returns the sums over all processes, (len(values),), on the CPU."""
        return self.sum(torch.tensor(values, device=self.accelerator.device, dtype=torch.float32)).cpu()

    def any(self, claim: bool) -> bool:
        """Returns whether any process says so."""
        return bool(self.sum_floats([float(claim)])[0] > 0)

    def least(self, number: int) -> int:
        """Returns the smallest of all processes' numbers."""
        from accelerate.utils import gather_object

        return int(min(gather_object([number])))

    def wait(self) -> None:
        """Waits for all."""
        self.accelerator.wait_for_everyone()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Lets the others begin when the main process is through."""
        with self.accelerator.main_process_first():
            yield

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Makes sure that all processes train the same.

        Raises:
            InputError: they read other data or settings.
        """
        from accelerate.utils import gather_object

        gathered = gather_object([dict(facts)])
        differing = sorted({name for other in gathered for name in facts if other.get(name) != gathered[0].get(name)})
        if differing:
            raise InputError(
                f"the processes do not train the same: {', '.join(differing)} differ",
                advice="Give all of them one command.",
                code="processes_differ",
            )

    def shard(
        self, language_model: LanguageModel, learning: Iterable[Parameter], *, quantize: Quantization | None = None
    ) -> None:
        """Distributes the frozen weights of a language model over the processes, where accelerate was told to (FSDP).

        Raises:
            UsageError: it was told to use FSDP's first version, which cannot leave out what learns; or the weights are
                quantized.
        """
        if str(self.accelerator.distributed_type).endswith("FSDP") and quantize is not None:
            advice = "Leave one of them away: a quantized language model fits on every device."
            raise UsageError("--quantize and FSDP contradict each other", advice=advice)
        if self.accelerator.is_fsdp2:
            fully_sharded(language_model, set(learning), self.accelerator.state.fsdp_plugin)
        elif str(self.accelerator.distributed_type).endswith("FSDP"):
            raise UsageError("FSDP's version 1 is not supported", advice="Add --fsdp_version 2 to accelerate launch.")

    def begin_tracking(self, step: int, *, settings: TrainingSettings, name: str) -> None:
        """Opens the tracker.

        Args:
            step: what it holds of later updates no longer counts, where it can forget.
            settings: are kept with the numbers.
            name: of the run.

        Raises:
            ResourceError: it cannot be opened, as where nobody is logged in.
        """
        if self.report_to is None:
            return
        own = {"tensorboard": {"purge_step": step + 1}, "wandb": {"name": name, "dir": str(self.folder)}}.get(
            self.report_to, {}
        )
        # TensorBoard would make a run of its own of them; and of None some trackers take none.
        shown = {key: value for key, value in asdict(settings).items() if value is not None}
        config = None if self.report_to == "tensorboard" else shown
        project = "tensorboard" if self.report_to == "tensorboard" else "vlinstruct"  # there, a folder's name
        try:
            self.accelerator.init_trackers(project, config=config, init_kwargs={self.report_to: own})
        except Exception as error:  # a library's own, of any kind
            why = shortened(cause_of(error, 120), 120)
            raise ResourceError.at(
                "cannot report to", self.report_to, why, "Set it up, or leave --report-to away"
            ) from error

    def track(self, values: Mapping[str, float], step: int) -> str | None:
        """Hands numbers to the tracker.

        Returns:
            What a user should know when it fails; it is not tried again then.
        """
        if self.report_to is None:
            return None
        try:
            self.accelerator.log(dict(values), step=step)
        except Exception as error:  # a tracker's server or disk, which no training shall end for
            notice = f"{self.report_to} failed ({type(error).__name__}): the training goes on without it."
            self.report_to = None
            return notice
        return None

    def end(self) -> None:
        """Closes the tracker and parts from the other processes."""
        self.accelerator.end_training()


def launched() -> tuple[int, int]:
    """Returns this process' rank and how many processes torchrun or accelerate launched; (0, 1) where neither did.

    Both say it in the environment, which costs nothing to read; accelerate itself would set up torch.distributed.

    Raises:
        UsageError: the environment says it in part, as a cluster's job may, or not in numbers.
    """
    count = _whole_number("WORLD_SIZE", 1)
    rank = _whole_number("RANK", 0)
    if count < 2:
        return 0, 1
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        problem = f"WORLD_SIZE is {count}, but {' and '.join(missing)} missing in the environment"
        raise UsageError(problem, advice="Start with torchrun or accelerate launch, or unset WORLD_SIZE.")
    for name in ("RANK", "LOCAL_RANK"):
        number = _whole_number(name, 0)
        if number >= count:
            raise UsageError(f"{name} is {number}, of {count} processes (WORLD_SIZE)", advice="Count them from 0.")
    port = _whole_number("MASTER_PORT", 0)
    if port > _MAX_PORT:
        raise UsageError(f"$MASTER_PORT is {port}, the highest port is {_MAX_PORT}", advice="Set it to a free port.")
    return rank, count


def _whole_number(name: str, default: int) -> int:
    """Returns a variable of the environment that holds a number from 0."""
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        problem = f"${name} is {shortened(text, 40)}, a whole number was expected"
        raise UsageError(problem, advice="Start with torchrun or accelerate launch, or unset it.")
    return int(text)


def is_main_process() -> bool:
    """Returns whether this process writes the files and speaks, of those that were launched together."""
    from accelerate import PartialState

    launched()  # accelerate's own errors would be tracebacks
    return bool(PartialState().is_main_process)


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def fully_sharded(language_model: LanguageModel, learning: set[Parameter], plugin: Any) -> None:
    """Shards a language model's weights with FSDP's second version, block by block.

    Args:
        language_model: the model; changed in place.
        learning: what stays whole.
        plugin: accelerate's settings.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # T5's position bias belongs to a first block, but is read before any: a few hundred numbers that stay whole, too.
    biases = {parameter for name, parameter in language_model.named_parameters() if "relative_attention_bias" in name}
    settings: dict[str, Any] = {"ignored_params": learning | biases}
    if plugin.cpu_offload:
        settings["offload_policy"] = plugin.cpu_offload
    for block in list(language_model.modules()):
        if type(block).__name__ in language_model._no_split_modules:
            fully_shard(block, reshard_after_forward=plugin.reshard_after_forward, **settings)
            if hasattr(block, "read_context"):  # T5's decoder blocks read the encoder's output ahead
                register_fsdp_forward_method(block, "read_context")
    fully_shard(language_model, **settings)
    for method in ("embed_tokens", "summed_nll"):
        register_fsdp_forward_method(language_model, method)
