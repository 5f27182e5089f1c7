"""Speed here, side by side with what a user would write with transformers: same weights, same tokens, in turns."""

from __future__ import annotations

from vlinstruct.bench.compare import compare
from vlinstruct.bench.report import as_record, as_table
from vlinstruct.bench.workload import Workload

__all__ = ["Workload", "as_record", "as_table", "compare"]
