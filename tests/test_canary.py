"""Folders and files of a stranger run no code, open no connection and read nothing beside them: `tools/canary.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_is_error_line

TESTS = Path(__file__).parent
REFUSALS = {3, 4, 5}
FOLLOWED = ("followed link", "link named special_tokens_map.json")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What all ways came to, in one process that the audit hook watches."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tools.canary", str(tmp_path_factory.mktemp("canary") / "root")]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=TESTS)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_the_watch_sees_every_kind_of_misdeed(outcome: dict[str, Any]) -> None:
    seen = {line.split()[0] for line in outcome["misdeeds"]}
    assert seen >= {"os.system", "subprocess.Popen", "pickle.find_class", "import", "compile", "exec", "open"}
    assert seen >= {"socket.connect"}


def test_nothing_of_a_strangers_runs_is_fetched_or_read_elsewhere(outcome: dict[str, Any]) -> None:
    assert len(outcome["ways"]) >= 40
    misdeeds = {name: way["seen"] for name, way in outcome["ways"].items() if not name.startswith(FOLLOWED)}
    assert {name: seen for name, seen in misdeeds.items() if seen} == {}


def test_a_link_in_a_models_folder_is_read_and_nothing_more(outcome: dict[str, Any]) -> None:
    followed = {name: way["seen"] for name, way in outcome["ways"].items() if name.startswith(FOLLOWED)}
    assert len(followed) >= 5
    assert all(line.startswith("open ") for seen in followed.values() for line in seen)


def test_what_lies_elsewhere_is_never_said_or_copied(outcome: dict[str, Any]) -> None:
    assert {name: way["leaks"] for name, way in outcome["ways"].items() if way["leaks"]} == {}


def test_a_strangers_tags_are_text_in_every_page(outcome: dict[str, Any]) -> None:
    assert {name: way["scripts"] for name, way in outcome["ways"].items() if way["scripts"]} == {}
    page = outcome["pages"]["benchmark_with_a_script"]
    assert "&lt;script&gt;" in page, "the page shows the text, escaped"


def test_each_ends_well_or_in_one_line(outcome: dict[str, Any]) -> None:
    for name, way in outcome["ways"].items():
        assert set(way["exit_codes"]) <= {0, *REFUSALS}, name
        errors = [line for line in way["said"].splitlines() if line.startswith("error: ")]
        assert len(errors) == sum(code != 0 for code in way["exit_codes"]), name
        for line in errors:
            assert_is_error_line(line)
