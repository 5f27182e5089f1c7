"""Recognises that memory ended, in all the ways in which torch says so."""

from __future__ import annotations

_WORDS = ("out of memory", "can't allocate memory", "alloc_failed", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory ended.

    PyTorch has a class of its own for CUDA's, and plain RuntimeErrors for the rest.

    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")), \
    ...     is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _WORDS)
    )
