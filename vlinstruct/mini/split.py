"""The three parts of mini's data: training sees train only, tuning dev only, and what is reported comes from test."""

from __future__ import annotations

from typing import Literal

Split = Literal["train", "dev", "test"]
