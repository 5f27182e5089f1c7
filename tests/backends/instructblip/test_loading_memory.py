"""Loading maps the files: nothing is there twice, and another dtype costs one copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .loading_memory import write_folder

TESTS = Path(__file__).parents[2]


def run(*arguments: object) -> str:
    asked = [sys.executable, str(Path(__file__).with_name("loading_memory.py")), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(asked, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def folder(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    write_folder(folder, tiny_folders["llama"], layers=4)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what no file stands behind")
@pytest.mark.parametrize(("dtype", "copies"), [("bfloat16", 0), ("float32", 1)])
def test_loading_takes_no_second_copy(dtype: str, copies: int, folder: Path) -> None:
    found = json.loads(run(folder, "--load-dtype", dtype))
    assert found["weights"] > 100e6
    assert copies * found["loaded"] <= found["peak"] <= (copies + 0.15) * found["loaded"]
