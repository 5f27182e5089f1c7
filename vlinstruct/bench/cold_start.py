"""From the shell to an answer: seconds and peak memory of whole processes, in turns.

    python -m vlinstruct.bench.cold_start FOLDER PICTURE QUESTION

is transformers' arm: it answers one question about one picture, as one would write it. Of ours it uses the
preprocessing alone, which is lighter to import than transformers' own, and this module's own few imports.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from vlinstruct.bench.timing import Timing, picture
from vlinstruct.bench.workload import INSTRUCTION
from vlinstruct.errors import ResourceError

COLD_ARMS = ("import torch", "transformers, plain", "vlinstruct ask", "vlinstruct ask -O")

# A process inherits its parent's peak of memory until it has become another program, so a small one starts and measures
# the arms. Windows has no such count.
_LAUNCHER = """
import subprocess, sys, time
begin = time.perf_counter()
quiet = subprocess.DEVNULL
code = subprocess.run(sys.argv[1:], stdout=quiet, stderr=quiet).returncode
seconds = time.perf_counter() - begin
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
except ImportError:
    peak = 0
print(seconds, peak)
sys.exit(code)
"""
_BYTES_OF_MAXRSS = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What one process took."""

    seconds: float
    peak_bytes: int


def cold_starts(folder: Path, runs: int) -> tuple[Timing, ...]:
    """Starts every arm `runs` times on the CPU, all of them in each turn, after one turn that is not counted.

    Args:
        folder: the backbone's.
        runs: of every arm, at least 2.

    Raises:
        ResourceError: a process failed.
    """
    with tempfile.TemporaryDirectory() as workplace:
        path = Path(workplace) / "picture.png"
        picture().save(path)
        question = [str(path), INSTRUCTION]
        ask = ["-m", "vlinstruct", "ask", *question, "--backbone", str(folder), "--device", "cpu", "--offline"]
        theirs = ["-m", "vlinstruct.bench.cold_start", str(folder), *question]
        # `import torch` alone is the floor: no arm can start faster.
        commands = dict(zip(COLD_ARMS, (["-c", "import torch"], theirs, ask, [*ask, "-O"]), strict=True))
        turns = [{arm: _run(command) for arm, command in commands.items()} for _ in range(1 + runs)][1:]
    return tuple(
        Timing(
            arm=arm,
            seconds=tuple(turn[arm].seconds for turn in turns),
            peak_bytes=max(turn[arm].peak_bytes for turn in turns) or None,
        )
        for arm in COLD_ARMS
    )


def _run(arguments: Sequence[str]) -> _Run:
    """Runs Python with these arguments in a process of its own, and returns its seconds and peak of memory."""
    command = [sys.executable, *arguments]
    launcher = subprocess.run([sys.executable, "-I", "-c", _LAUNCHER, *command], capture_output=True, text=True)
    if launcher.returncode != 0:
        raise ResourceError(f"the process {' '.join(command[1:4])} failed with exit code {launcher.returncode}.")
    seconds, peak = launcher.stdout.split()
    return _Run(seconds=float(seconds), peak_bytes=int(peak) * _BYTES_OF_MAXRSS)


def answer_with_transformers(folder: Path, image: Path, question: str) -> str:
    """Loads transformers' model and answers greedily."""
    from tokenizers import Tokenizer

    from vlinstruct.backends.instructblip.image_processor import ImageProcessor
    from vlinstruct.bench.models import architecture

    # float32, as our own command computes on a CPU: both arms do the same work.
    model = architecture().from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    config = model.eval().config
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    qformer_tokenizer = Tokenizer.from_file(str(folder / "qformer_tokenizer" / "tokenizer.json"))
    prompt = tokenizer.encode(question).ids
    ids = torch.tensor([[config.image_token_index] * config.num_query_tokens + prompt])
    qformer_ids = torch.tensor([qformer_tokenizer.encode(question).ids])
    with torch.inference_mode():
        written = model.generate(
            pixel_values=ImageProcessor(image_size=config.vision_config.image_size)([Image.open(image)]),
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            qformer_input_ids=qformer_ids,
            qformer_attention_mask=torch.ones_like(qformer_ids),
            max_new_tokens=15,
            do_sample=False,
        )
    return tokenizer.decode(written[0].tolist())


if __name__ == "__main__":
    print(answer_with_transformers(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
