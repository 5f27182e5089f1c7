"""Kills the six commands with SIGKILL and types them again: what they end with is what they leave undisturbed.

Every second kill comes at a random instant; the others before a random file operation, or when half of what it writes
is written. After every second kill it is typed again only to be killed once more. Then it goes on to its end. Nothing
is lost: records that were there stay, in their order, and are not computed again. Nothing is left: the files are those
of an undisturbed run. (`crash_points` tries all operations of a training's saving.)
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .crash_points import Ended, in_child
from .survive_commands import Command, commands

_DONE_BEFORE = re.compile(r"(\d+) done before")


def main(scratch: Path, kills: int, seed: int, until_s: float) -> bool:
    """Kills so many times, evenly over the commands, and prints a row for each; returns whether all held."""
    root = scratch / "kills"
    root.mkdir()
    tried = commands(root)
    is_good = True
    print("\n| killed | kills | runs | with a part done | with half a line | problems | in |")
    print("|---|---|---|---|---|---|---|")
    for number, command in enumerate(tried):
        share = kills * (number + 1) // len(tried) - kills * number // len(tried)
        begun_s = time.monotonic()
        rng = random.Random(f"{seed}/{command.name}")
        tally, problems = Counter[str](), []
        while tally["kills"] < share and time.monotonic() < until_s:
            problems += killed_until_done(command, rng, share - tally["kills"], tally)
        is_good &= not problems
        for problem, count in Counter(problems).items():
            print(f"  {command.name}: {problem} ({count} times)", flush=True)
        figures = f"{tally['kills']} | {tally['runs']} | {tally['partly']} | {tally['half a line']} | {len(problems)}"
        print(f"| {command.name} | {figures} | {time.monotonic() - begun_s:.0f} s |", flush=True)
    return is_good


def killed_until_done(command: Command, rng: random.Random, most: int, tally: Counter[str]) -> list[str]:
    """Kills a command at least once, and types it until it is done; returns what is not as it should be."""
    expected = command.undisturbed
    command.clear()
    problems: list[str] = []
    before: Sequence[bytes] = []
    tally["runs"] += 1
    for number in range(most):
        ended = _killed(command, rng)
        problems += _lost(before, command.records())
        before = command.records()
        if not ended.is_killed:
            break
        tally["kills"] += 1
        tally["partly"] += 0 < len(before) < len(expected.records)
        tally["half a line"] += any(not file.read_bytes().endswith(b"\n") for file in _torn(command.folder))
        if number % 2 == 0 and rng.random() < 0.5:
            break
    ended = in_child(command.line, command.folder)
    problems += _lost(before, command.records())
    if before and str(len(before)) not in _DONE_BEFORE.findall(" ".join(ended.notices)):
        problems.append("it does not say how many records were there")
    return problems + command.differences(ended)


def _killed(command: Command, rng: random.Random) -> Ended:
    expected = command.undisturbed
    kind = rng.choice(["time", "time", "kill", "half"])
    fault = expected.fault(kind, rng.random())
    if kind == "time" or fault is None:
        return in_child(command.line, command.folder, kill_after_s=rng.uniform(0.0, expected.seconds))
    return in_child(command.line, command.folder, fault)


def _torn(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*.jsonl") if file.stat().st_size and ".tmp" not in file.name]


def _lost(before: Sequence[bytes], after: Sequence[bytes]) -> list[str]:
    return [] if after[: len(before)] == before else ["a record is lost, or in another place"]
