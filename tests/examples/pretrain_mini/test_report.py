import math

from pretrain_mini.report import Share, share, table


def test_wilson_intervals_stay_inside_0_and_1() -> None:
    assert Share(name="", hits=0, items=10).interval()[0] >= 0
    assert Share(name="", hits=10, items=10).interval()[1] <= 1
    assert math.isnan(Share(name="", hits=0, items=0).rate)


def test_tables_show_percent_and_items() -> None:
    assert table([share("colour", [True, True, False, True])]).splitlines()[-1] == (
        "| colour | 75.0 % | 30.1 to 95.4 % | 4 |"
    )
