"""The measure of what optimization costs runs from its first question to its last line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vlinstruct.mini.phrasings import families

from . import never_worse


@pytest.mark.slow
def test_what_is_answered_can_be_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {
        name: replace(families()[name], wordings={"dev": families()[name].wordings["dev"][:2]})
        for name in ("colour", "caption")
    }
    monkeypatch.setattr(never_worse, "families", lambda: few)
    never_worse.answer(tmp_path, ["mini"], split="dev", num_items=2, num_pictures=2, seed=0)
    never_worse.plant(tmp_path, ["mini"], split="dev", num_hurting=2, seed=0)
    for show in (never_worse.report, never_worse.show_examples, never_worse.show_guesses):
        show(tmp_path, ["mini"])
    said = capsys.readouterr().out
    for expected in ("ias   takes", "people       AIO safe", "mini: 2 wordings, of 4 answers", "below 0.6: "):
        assert expected in said
    never_worse.show_odds(tmp_path, ["mini"], "dev", num_shown=1, num_pictures=2)
    assert "of 2 " in capsys.readouterr().out
