"""`vlinstruct serve` on mini under load: throughput beside the same answers in process, latency, errors, memory.

    PYTHONPATH=tests python -m tools.serve_load --rounds 5 --soak 300

Rounds alternate between 64 clients, one client, and batches of 16 in this process while the server rests, so that what
else the machine does hits all three. Every client asks for the answers that the batches give, and they are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from vlinstruct.mini.draw import draw
from vlinstruct.mini.questions import facts
from vlinstruct.mini.wording import canonical
from vlinstruct.mini.world import sample_scene
from vlinstruct.model import Model, load

NUM_ITEMS = 256
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Item:
    """A picture's file and a question."""

    png: bytes
    question: str

    def body(self) -> dict[str, Any]:
        """Returns the request that asks it."""
        uri = "data:image/png;base64," + base64.b64encode(self.png).decode()
        parts = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": self.question}]
        return {"model": "mini", "messages": [{"role": "user", "content": parts}]}


def items() -> list[Item]:
    """Draws pictures and questions of mini's world."""
    rng, drawn = random.Random("load"), []
    for seed in range(NUM_ITEMS):
        scene, stream = sample_scene(seed, split="dev"), io.BytesIO()
        draw(scene).save(stream, "PNG", compress_level=1)
        fact = rng.choice(facts(scene, rng))
        drawn.append(Item(png=stream.getvalue(), question=canonical(fact.family, fact.slots)))
    return drawn


@contextmanager
def served() -> Iterator[tuple[str, int]]:
    """Runs the server in a process of its own; gives its address and its process."""
    command = [sys.executable, "-c", "from vlinstruct.cli.main import main; main()", "serve", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found
        # Its log must be read, or it waits for whoever does.
        subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        yield found[0], process.pid
    finally:
        process.terminate()
        process.wait()


def in_process(model: Model, work: Sequence[Item], seconds: float) -> tuple[float, dict[int, str]]:
    """Answers in batches for a time; returns items a second, and the answers by item."""
    answers: dict[int, str] = {}
    began, num, place = time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds:
        places = [(place + k) % len(work) for k in range(BATCH)]
        seen = model.see_each([io.BytesIO(work[at].png) for at in places])
        outcomes = model.ask_each(seen, [work[at].question for at in places])
        answers.update({at: str(outcome) for at, outcome in zip(places, outcomes, strict=True)})
        num, place = num + BATCH, (place + BATCH) % len(work)
    return num / (time.perf_counter() - began), answers


async def clients(
    url: str, bodies: Sequence[bytes], num_clients: int, seconds: float
) -> tuple[float, list[float], int, dict[int, str]]:
    """Asks with clients that each wait for their answer; returns items a second, latencies, errors and answers."""
    latencies: list[float] = []
    answers: dict[int, str] = {}
    num_errors = 0
    began = time.perf_counter()
    places = iter(range(10**9))

    async def one(session: aiohttp.ClientSession) -> None:
        nonlocal num_errors
        while time.perf_counter() - began < seconds:
            place, asked = next(places) % len(bodies), time.perf_counter()
            headers = {"Content-Type": "application/json"}
            async with session.post(f"{url}/chat/completions", data=bodies[place], headers=headers) as reply:
                said = await reply.json()
                latencies.append(time.perf_counter() - asked)
                if reply.status == 200:
                    answers[place] = said["choices"][0]["message"]["content"]
                else:
                    num_errors += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session) for _ in range(num_clients)))
    return len(latencies) / (time.perf_counter() - began), latencies, num_errors, answers


def memory_mb(pid: int) -> float:
    """Returns a process's resident memory in megabytes."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Prints the rounds' medians and the soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each part of a round")
    parser.add_argument("--soak", type=float, default=300, help="seconds of 64 clients at the end")
    arguments = parser.parse_args()
    work, model = items(), load("mini")
    bodies = [json.dumps(item.body()).encode() for item in work]
    rates: dict[str, list[float]] = {"64 clients": [], "1 client": [], "in process": []}
    with served() as (url, pid):
        asyncio.run(clients(url, bodies, 8, 2))  # warm
        in_process(model, work, 2)
        for _ in range(arguments.rounds):
            for name, num in (("64 clients", 64), ("1 client", 1)):
                rate, _, num_errors, answers = asyncio.run(clients(url, bodies, num, arguments.seconds))
                assert num_errors == 0
                rates[name].append(rate)
                if num == 64:
                    heard = answers
            rate, expected = in_process(model, work, arguments.seconds)
            rates["in process"].append(rate)
            differ = sum(heard[at] != text for at, text in expected.items() if at in heard)
            print(
                {name: round(of_name[-1], 1) for name, of_name in rates.items()}, f"{differ} answers differ", flush=True
            )
        for name, of_name in rates.items():
            print(f"{name}: median {statistics.median(of_name):.1f}, {min(of_name):.1f} to {max(of_name):.1f} a second")
        for name in ("in process", "1 client"):
            ratios = [one / other for one, other in zip(rates["64 clients"], rates[name], strict=True)]
            print(
                f"64 clients to {name}: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
            )
        before = memory_mb(pid)
        rate, latencies, num_errors, _ = asyncio.run(clients(url, bodies, 64, arguments.soak))
        latencies.sort()
        shares = {share: latencies[int(share * (len(latencies) - 1))] for share in (0.5, 0.99)}
        print(
            f"soak: {len(latencies)} requests in {arguments.soak:.0f} s, {rate:.1f} a second, {num_errors} errors, "
            f"median {1000 * shares[0.5]:.0f} ms, p99 {1000 * shares[0.99]:.0f} ms, "
            f"memory {before:.0f} -> {memory_mb(pid):.0f} MB"
        )


if __name__ == "__main__":
    main()
