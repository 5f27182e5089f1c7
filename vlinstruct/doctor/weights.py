"""A backbone's tensors: all there, of the right shape and type, and finite."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

from vlinstruct.backends.instructblip.load import empty_model, require_same_tensors, vocabulary_tables
from vlinstruct.conversion.weights import is_finite, listed, num_bytes, require_floating
from vlinstruct.doctor.finding import Finding, ok, problem
from vlinstruct.doctor.model import ModelFolder

logger = logging.getLogger(__name__)

_GB = 10**9
_WORTH_SAYING = 2 * _GB  # reading as much takes seconds
_AGAIN = "Download or copy the folder again"


def dtype(model: ModelFolder) -> Iterator[Finding]:
    """What type the numbers in the files have; any is converted to what is computed in."""
    require_floating(model.weights, str(model.folder))
    counts = Counter(str(weight.dtype).removeprefix("torch.") for weight in model.weights.values())
    kinds = ", ".join(f"{count} tensors of {kind}" for kind, count in counts.most_common())
    files = "1 file" if model.num_files == 1 else f"{model.num_files} files"
    yield ok("dtype", f"{kinds}; {sum(map(num_bytes, model.weights.values())) / _GB:.2f} GB in {files}")


def tensors(model: ModelFolder) -> Iterator[Finding]:
    """Whether every tensor of the architecture is there in its shape, and no other."""
    _, head = vocabulary_tables(model.config)
    expected = empty_model(model.config).state_dict()
    if head not in model.weights:
        del expected[head]  # it is the embedding then
    require_same_tensors(model.weights, expected, str(model.folder))
    shared = "" if head in model.weights else "; the head is the embedding"
    yield ok("tensors", f"all {len(expected)} are there, in their shapes{shared}")


def finite(model: ModelFolder) -> Iterator[Finding]:
    """Whether no number is NaN or infinite; reads all of them, a piece at a time."""
    size = sum(map(num_bytes, model.weights.values()))
    if size > _WORTH_SAYING:
        logger.warning("reading %.0f GB of weights", size / _GB)
    broken = [name for name, weight in model.weights.items() if not is_finite(weight)]
    if broken:
        yield problem("finite", f"{len(broken)} tensors hold NaN or infinity: {listed(broken)}", _AGAIN)
    else:
        yield ok("finite", "none is NaN or infinite")
