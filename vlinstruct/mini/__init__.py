"""mini: a small InstructBLIP of our own and its world of drawn pictures; `examples/pretrain_mini` trains it."""

from __future__ import annotations

from typing import Literal

# The three parts of mini's data: training sees train only, tuning dev only, and what is reported comes from test.
Split = Literal["train", "dev", "test"]
