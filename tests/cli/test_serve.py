"""The command `serve` as a process: its line, its key, its port, its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import vli

pytestmark = pytest.mark.slow
SIGN = Path(__file__).parents[2] / "examples" / "pictures" / "sign.png"


@contextmanager
def serve(*options: str, key: str | None = None) -> Iterator[tuple[str, subprocess.Popen[str], list[str]]]:
    """Runs `vlinstruct serve` on a free port; gives its address, its process and what it has said so far."""
    command = [sys.executable, "-c", "from vlinstruct.cli.main import main; main()", "serve", "--port", "0"]
    command += ["--backbone", "mini", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({} if key is None else {"VLINSTRUCT_SERVE_KEY": key})}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    said: list[str] = []
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        said.append(first)
        threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True).start()
        found = re.search(r"http://\S+", first)
        assert found, first
        yield found[0], process, said
    finally:
        process.kill()
        process.wait()


def test_a_served_model_answers_the_command_line_and_ends_when_it_is_told_to() -> None:
    with serve(key="secret") as (url, process, said):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/models", timeout=10)
        assert refused.value.code == 401
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VLINSTRUCT_API_KEY", "secret")
            assert vli("ask", str(SIGN), "what is written?", "--backbone", url).text == "stop\n"
            optimized = vli("optimize", "read it", str(SIGN), "--backbone", url, "--json").text
        here = vli("optimize", "read it", str(SIGN), "--json", "--backbone", "mini").text
        # Scores are written with five decimals, whose last one flips.
        served, local = ({**json.loads(text), "backbone": ""} for text in (optimized, here))
        assert served.keys() == local.keys()
        for field, value in local.items():
            assert served[field] == (pytest.approx(value, abs=2e-5) if isinstance(value, float | dict) else value)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
    assert any("chat 200" in line for line in said)
    assert not any("secret" in line for line in said)


def test_others_need_a_key_and_a_port_that_is_taken_is_told() -> None:
    assert "VLINSTRUCT_SERVE_KEY" in vli("serve", "--host", "0.0.0.0").refusal(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "another program" in vli("serve", "--port", str(taken.getsockname()[1])).refusal(6)
