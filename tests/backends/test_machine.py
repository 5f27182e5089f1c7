"""What is freed is there for the next batch."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

BATCHES = """
import resource
import torch
from vlinstruct.backends.machine import keep_freed_memory

keep_freed_memory()
faults = 0
for numbers, blocks in ((2**20, 8), (2**20, 14), (2**21, 4), (2**22, 3), (3 * 2**20, 4)):  # 32 to 56 MB
    for batch in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        parts = [torch.ones(numbers) for _ in range(blocks)]
        del parts
        if batch > 3:
            faults += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries keep memory by rules of their own")
def test_freed_memory_is_kept() -> None:
    # A process of its own: what it allocates first decides what glibc keeps by itself, mostly nothing of all this.
    run = subprocess.run([sys.executable, "-c", BATCHES], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 1000  # of 200,000 pages that were written to
