"""How much memory of its own loading a folder takes, the mapped files not counted.

PYTHONPATH=. python tests/backends/instructblip/loading_memory.py FOLDER --write TINY --layers 60
PYTHONPATH=. python tests/backends/instructblip/loading_memory.py FOLDER --load-dtype bfloat16

The first writes a random folder in bfloat16, TINY being any Llama-type folder; the second loads it and prints one JSON
object: bytes of the weights as stored, and anonymous resident memory (Linux's RssAnon) above what it was before, at the
end and at most.
"""

from __future__ import annotations

import argparse
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import torch

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import load_model
from vlinstruct.bench.models import random_model
from vlinstruct.weights.safetensors_files import write_tensors

_WIDE: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 8}
_STATUS = Path("/proc/self/status")


def anonymous_bytes() -> int:
    """Returns this process' resident memory that no file stands behind."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def write_folder(folder: Path, tiny: Path, layers: int) -> None:
    """Writes about 34 MB of bfloat16 weights per layer; tokenizers are a tiny Llama folder's."""
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    values = json.loads((tiny / "config.json").read_text())
    values["text_config"] = {**values["text_config"], **_WIDE, "num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(values))
    model = random_model(InstructBlipConfig.from_dict(values), torch.device("cpu"), torch.bfloat16)
    write_tensors(model.state_dict(), folder / "model.safetensors")


def main() -> None:
    """Writes, or loads and measures."""
    parser = argparse.ArgumentParser(description="Measure what loading takes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--load-dtype", default="bfloat16")
    parser.add_argument("--write", type=Path, help="only write the folder, with this one's tokenizers")
    asked = parser.parse_args()
    if asked.write:
        write_folder(asked.folder, asked.write, asked.layers)
        return
    before, highest, is_done = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not is_done.is_set():
            highest[0] = max(highest[0], anonymous_bytes())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    model = load_model(asked.folder, device=torch.device("cpu"), dtype=getattr(torch, asked.load_dtype))
    after = anonymous_bytes()
    is_done.set()
    watcher.join()
    numbers = sum(parameter.numel() for parameter in model.network.parameters())
    found = {"weights": 2 * numbers, "loaded": numbers * model.dtype.itemsize}
    print(json.dumps({**found, "anonymous": after - before, "peak": max(highest[0], after) - before}))


if __name__ == "__main__":
    main()
