"""Axes have ticks that people use, and every average has its dot."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from vlinstruct.evaluation.report.chart import REFERENCE, as_svg, axis, strip
from vlinstruct.evaluation.report.table import Table
from vlinstruct.metrics.bootstrap import Interval

from .test_table import table as table


@pytest.mark.parametrize(
    ("low", "high"), [(99.7, 100.2), (98, 100), (84.18, 103), (40, 100), (0, 250), (100, 100), (100, 1234.5), (-3, 100)]
)
def test_ticks_are_few_and_a_step_of_1_2_or_5_apart_and_100_is_one_that_lies_between_them(
    low: float, high: float
) -> None:
    ticks = axis(low, high).ticks
    steps = {round(after - before, 9) for before, after in pairwise(ticks)}
    assert len(steps) == 1
    (step,) = steps
    assert f"{step:e}"[0] in "125"
    assert step == float(f"{step:.0e}")
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low <= high <= ticks[-1]
    assert ticks[0] <= REFERENCE <= ticks[-1]


def test_a_strip_draws_what_is_there_and_nothing_of_what_is_undefined() -> None:
    drawn = axis(90, 110)
    known = strip(drawn, Interval(value=95, low=92, high=99), 0)
    assert 'cx="25.00%"' in known
    assert 'x1="10.00%" x2="45.00%"' in known
    nan = float("nan")
    assert "dot" not in strip(drawn, Interval(value=nan, low=nan, high=nan), 0)


def test_the_drawing_has_a_dot_for_every_cell_inside_its_frame_and_a_legend_where_it_is_needed(table: Table) -> None:
    root = ET.fromstring(as_svg(table))
    _, _, width, height = (float(number) for number in root.attrib["viewBox"].split())
    dots = [node for node in root if node.tag.endswith("circle")]
    assert len(dots) == len(table.cells) + len(table.models)
    assert all(0 < float(dot.attrib["cx"]) < width and 0 < float(dot.attrib["cy"]) < height for dot in dots)
