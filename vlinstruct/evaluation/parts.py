"""What several processes write of one evaluation, and how it becomes the file that one alone would have written.

Every process writes the chunks that are its own into `records-RANK.part.jsonl`; when all are through, the main one puts
the records into the order of the chunks, and the file is the same byte by byte. Parts that a killed run left are
gathered first, by however many processes. No torch: reading a benchmark's files, which needs no model, uses this too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlinstruct.files import written_atomically

RECORDS_FILE, TIMES_FILE, RESULTS_FILE = "records.jsonl", "times.jsonl", "results.json"
_PART = "records-{}.part.jsonl"


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes that share an evaluation.

    Args:
        rank: this one's number, from 0; that one is the main one.
        count: how many there are.
        wait: waits for all.
    """

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None


ALONE = Processes()
"""One process, which waits for nobody."""


def records_file(folder: Path, processes: Processes) -> Path:
    """Returns the file that this process writes."""
    return folder / (RECORDS_FILE if processes.count == 1 else _PART.replace("{}", str(processes.rank)))


def gather(folder: Path, keys: Mapping[str, str], processes: Processes) -> None:
    """Puts the records of all parts into one file, in the order of `keys`; the parts go. All processes call this.

    Args:
        folder: the evaluation's.
        keys: every record's key by its id, in the order in which one process alone would write them.
        processes: the main one does it, the others wait.
    """
    processes.wait()
    times = folder / TIMES_FILE
    if processes.rank == 0 and times.exists() and not (content := times.read_bytes()).endswith(b"\n"):
        os.truncate(times, content.rfind(b"\n") + 1)  # half a line, of a process that was killed while it wrote
    parts = sorted(folder.glob(_PART.replace("{}", "*")))
    if processes.rank == 0 and parts:
        lines: dict[str, bytes] = {}
        for path in [folder / RECORDS_FILE, *parts]:
            if path.exists():
                # Half a last line, of a process that was killed while it wrote, does not count: it is computed again.
                whole = (line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))
                lines |= {str(json.loads(line)["id"]): line for line in whole}
        order = {name: place for place, name in enumerate(keys)}
        with written_atomically(folder / RECORDS_FILE) as path:
            # Records that this run does not have stand last: `open_records` says what to do about them.
            names = sorted(lines, key=lambda name: order.get(name, len(order)))
            path.write_bytes(b"".join(lines[name] for name in names))
        for part in parts:  # only now: a crash before leaves parts, which the next run gathers
            part.unlink()
    processes.wait()


def remove_records(folder: Path, processes: Processes) -> None:
    """Removes what an earlier run left of records and times. All processes call this."""
    processes.wait()
    if processes.rank == 0:
        remove_parts(folder)
        for name in (RECORDS_FILE, TIMES_FILE):
            (folder / name).unlink(missing_ok=True)
    processes.wait()


def remove_parts(folder: Path) -> None:
    """Removes what killed processes left."""
    for path in folder.glob(_PART.replace("{}", "*")):
        path.unlink(missing_ok=True)
