"""What the shipped fonts are made from."""

from __future__ import annotations

from pretrain_mini.subset_fonts import SOURCES
from vlinstruct.mini.fonts import FONTS


def test_every_font_of_the_test_part_has_a_source() -> None:
    assert set(SOURCES) == set(FONTS["test"])
