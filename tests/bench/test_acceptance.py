from vlinstruct.bench.acceptance import measured_acceptance


def test_minis_drafts_are_mostly_right() -> None:
    assert 0.5 < measured_acceptance(8) <= 1
