"""mini: a small InstructBLIP of our own and its world of drawn pictures; `examples/pretrain_mini` trains it."""

from __future__ import annotations

from typing import Literal

# The three parts of mini's data: training sees train only, tuning dev only, and what is reported comes from test. Each
# has words, fonts and wordings of its own: a model that had learned those of training by heart would fail the others.
Split = Literal["train", "dev", "test"]
