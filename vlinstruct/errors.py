"""Every error a user can meet, each with its exit code.

A message is one line: what is wrong (with the file or option), why, and what to do. Only `cli/main.py` turns an error
into a line on stderr and an exit code; a batch turns it into a record with `code` and `message`.
"""

from typing import ClassVar


class VlinstructError(Exception):
    """The root of all our errors.

    Args:
        message: one line that says what is wrong, got against expected, and what to do.
        code: a stable word for machines, e.g. `image_truncated`; the class has a default.
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code


class UsageError(VlinstructError):
    """The command line contradicts itself."""

    exit_code = 2
    default_code = "usage"


class BatchError(VlinstructError):
    """A batch came to its end, but some of its items failed."""

    exit_code = 3
    default_code = "items_failed"


class InputError(VlinstructError):
    """Something the user gave cannot be used."""

    exit_code = 4
    default_code = "bad_input"


class ImageError(InputError):
    """A picture cannot be read."""

    default_code = "bad_image"


class TextError(InputError):
    """An instruction or question cannot be used."""

    default_code = "bad_text"


class DataError(InputError):
    """A data file or one of its records cannot be used."""

    default_code = "bad_data"


class ScoreError(InputError):
    """The model gave no finite score for this item."""

    default_code = "non_finite_score"


class CheckpointError(VlinstructError):
    """A model, adapter or checkpoint was refused."""

    exit_code = 5
    default_code = "checkpoint_refused"


class ResourceError(VlinstructError):
    """Memory, disk space or a permission is missing."""

    exit_code = 6
    default_code = "resources"


class DivergedError(VlinstructError):
    """Training brought forth a loss that is not finite."""

    exit_code = 7
    default_code = "diverged"


class OutputInUseError(VlinstructError):
    """Another process writes the same output."""

    exit_code = 8
    default_code = "output_in_use"


class NetworkError(VlinstructError):
    """Something had to be downloaded and could not be."""

    exit_code = 9
    default_code = "network"


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory ended.

    PyTorch has a class of its own for CUDA's, and plain RuntimeErrors for the rest.

    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    True
    """
    text = str(error).lower()
    said = isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)
    return said or isinstance(error, MemoryError)
