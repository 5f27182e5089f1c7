"""Our client against servers that are not ours: a real vLLM, and `transformers serve`.

    PYTHONPATH=tests python -m tools.real_servers vllm --python VLLM_ENVIRONMENT/bin/python
    PYTHONPATH=tests python -m tools.real_servers transformers

Each server runs a tiny random Qwen2.5-VL on 127.0.0.1; what it tells is compared with transformers in this process. Run
by hand after a change of the client; tests/tools/README.md says what came out, and
how an environment with vLLM for a CPU is made.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import transformers as hf
from backends.transformers import tiny_families
from picture_fixtures import make_picture
from PIL import Image

from vlinstruct.backend import Row
from vlinstruct.backends.server.backend import ServerBackend
from vlinstruct.errors import VlinstructError
from vlinstruct.model import Model, load
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import good

PORT = 18_517
URL = f"http://127.0.0.1:{PORT}/v1"
QUESTIONS = ["What is written on the sign?", "describe", "how many dogs? yes no"]
TYPED = "is <|im_end|> written, or <|image_pad|>?"


def build(folder: Path) -> Path:
    """Writes a Qwen2.5-VL whose heads are as wide as vLLM's kernels for a CPU want them."""
    form = tiny_families._chatml(**tiny_families.QWEN_MEDIA)
    tokenizer = tiny_families._qwen_tokenizer(form)
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
    text = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "vocab_size": len(tokenizer), "rope_parameters": rope}
    text |= {"max_position_embeddings": 4096, **tiny_families.QWEN_IDS}
    vision = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 128}
    vision |= {"fullatt_block_indexes": [1], "window_size": 56}
    ids = tiny_families._qwen_ids(tokenizer)
    kind = ["Qwen2_5_VLForConditionalGeneration"]
    config = hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, architectures=kind, **ids)
    sizes = tiny_families._qwen_sizes(28)
    images, videos = hf.Qwen2VLImageProcessor(**sizes), hf.Qwen2VLVideoProcessor(**sizes)
    processor = hf.Qwen2_5_VLProcessor(images, tokenizer, videos, chat_template=form)
    tiny_families._randomize(hf.Qwen2_5_VLForConditionalGeneration(config)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[None]:
    """Runs a server until it is left; waits for its health."""
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    quiet |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, **quiet})
    try:
        began = time.monotonic()
        while True:
            if process.poll() is not None or time.monotonic() - began > 300:
                raise SystemExit(f"the server did not start: see {log}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.5)
        print(f"started in {time.monotonic() - began:.0f} s")
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


class Report:
    """Prints each case with what it measured, and counts those that fail."""

    def __init__(self) -> None:
        self.num_failed = 0

    def case(self, name: str, measure: Callable[[], tuple[bool, str]]) -> None:
        """Runs a case; one that raises fails."""
        try:
            holds, measured = measure()
        except (VlinstructError, AssertionError) as error:
            holds, measured = False, f"{type(error).__name__}: {error}"
        self.num_failed += not holds
        print(f"{'ok    ' if holds else 'FAILED'} {name}: {measured}", flush=True)


def apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Returns how far two rows of likelihoods are apart; infinity where they differ in length."""
    if len(ours) != len(theirs):
        return float("inf")
    return max((abs(one - other) for one, other in zip(ours, theirs, strict=True)), default=0.0)


def pictures() -> list[Image.Image]:
    return [make_picture(80, 60, seed=seed) for seed in range(3)]


def compare(here: Model, served: Model, report: Report) -> None:
    """Compares what a server tells with what transformers computes."""

    def scores() -> tuple[bool, str]:
        most = 0.0
        for picture in pictures():
            for one, other in zip(here.score(picture, *QUESTIONS), served.score(picture, *QUESTIONS), strict=True):
                most = max(most, apart(one.scores.token_nll, other.scores.token_nll))
        return most < 1e-4, f"within {most:.0e} nats a token"

    def again() -> tuple[bool, str]:
        ((first,), (second,)) = (served.score(pictures()[0], QUESTIONS[0]) for _ in range(2))
        most = apart(first.scores.token_nll, second.scores.token_nll)
        return most < 1e-4, f"the same target twice, within {most:.0e}"

    def texts() -> tuple[bool, str]:
        generation = GenerationSettings(max_new_tokens=12)
        pairs = [
            (here.ask(picture, text, generation=generation), served.ask(picture, text, generation=generation))
            for picture in pictures()
            for text in QUESTIONS
        ]
        # Cut in the middle of a character, vLLM leaves its first bytes out, and transformers writes U+FFFD.
        num = sum(one.text.rstrip("\ufffd") == other.text.rstrip("\ufffd") for one, other in pairs)
        most = max(apart(one.token_nll or (), other.token_nll or ()) for one, other in pairs)
        return num == len(pairs) and most < 1e-4, f"{num} of {len(pairs)} texts equal, likelihoods within {most:.0e}"

    def optimized() -> tuple[bool, str]:
        settings = OptimizationSettings(max_new_tokens=12)
        one, other = (model.optimize("color plz", pictures()[0], optimization=settings) for model in (here, served))
        difference = abs(one.initial.ias - other.initial.ias)
        is_equal = (one.instruction, one.chosen) == (other.instruction, other.chosen)
        return is_equal and difference < 1e-4, f"{other.chosen}: {other.instruction!r}, IAS within {difference:.0e}"

    def literal() -> tuple[bool, str]:
        if not served.backend.abilities.keeps_typed_tokens:
            try:
                served.ask(pictures()[0], TYPED)
            except VlinstructError as error:
                return error.code == "control_token", f"refused: {error.message}"
            return False, "obeyed"
        generation = GenerationSettings(max_new_tokens=8)
        one, other = (model.ask(pictures()[0], TYPED, generation=generation) for model in (here, served))
        first, second = (model.score(pictures()[0], TYPED)[0] for model in (here, served))
        most = apart(first.scores.token_nll, second.scores.token_nll)
        return one.text == other.text and most < 1e-4, f"kept as text: equal answers, IAS within {most:.0e}"

    def stream() -> tuple[bool, str]:
        row = Row(prompt="describe", seen=(served.see(pictures()[0]),))
        *pieces, _ = served.backend.stream(row, GenerationSettings(max_new_tokens=12))
        whole = good(served.backend.write([row], GenerationSettings(max_new_tokens=12))[0])
        return "".join(map(str, pieces)) == whole.text, f"{len(pieces)} pieces"

    for name, measure in (
        ("scores", scores),
        ("scores again", again),
        ("answers", texts),
        ("optimization", optimized),
        ("typed control tokens", literal),
        ("stream", stream),
    ):
        report.case(name, measure)


def vllm(python: str, folder: Path, report: Report) -> None:
    """Runs the cases on vLLM, by its chat route and by its route for token ids."""
    command = [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        "--served-model-name",
        "tiny",
    ]
    command += ["--host", "127.0.0.1", "--port", str(PORT), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "1024", "--max-num-seqs", "8", "--block-size", "32"]
    command += ["--enable-scale-out", "--enable-prompt-tokens-details"]
    here = load(folder, device="cpu")
    with running(command, folder / "server.log"):
        served = load(URL)
        assert isinstance(served.backend, ServerBackend)
        print(served.backend.contract)
        report.case("token route", lambda: (served.backend.route is not None, "found"))
        compare(here, served, report)
        cached = served.backend.connection.call_each(
            [
                served.backend.route.scoring(row, ids, served.backend.route.text_ids(text, []), reads_cache=True)
                for text in QUESTIONS
                for row in [Row(prompt="describe " * 40, seen=(served.see(pictures()[0]),))]
                for ids in [served.backend.route.prompt_ids(row, [])]
            ]
        )
        read = [reply["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in cached]
        report.case("prefix cache", lambda: (read[-1] > 0, f"{read} tokens from the cache"))
        print("by the chat route alone:")
        served.backend.route = None
        served.backend.abilities = replace(served.backend.abilities, keeps_typed_tokens=False)
        compare(here, served, report)


def transformers_serve(python: str, folder: Path, report: Report) -> None:
    """Runs the path of a server that tells no likelihoods."""
    command = [str(Path(python).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(PORT)]
    with running([*command, str(folder)], folder / "server.log"):
        from vlinstruct.settings import ServerSettings

        served = load(URL, server=ServerSettings(served_model=str(folder)))
        assert isinstance(served.backend, ServerBackend)
        print(served.backend.contract)
        report.case("no likelihoods are believed", lambda: (not served.backend.abilities.can_score, "cannot score"))
        # Texts alone: beside a CPU's PyTorch, torchvision reads no data URI for that server (its log says so).
        row = Row(prompt="describe")
        report.case(
            "writes",
            lambda: (True, repr(good(served.backend.write([row], GenerationSettings(max_new_tokens=8))[0]).text)),
        )


def main() -> None:
    """Runs the cases of one server and exits with 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=["vllm", "transformers"])
    parser.add_argument("--python", default=sys.executable, help="of the environment that the server is installed in")
    parser.add_argument("--folder", type=Path, help="where the tiny model is written")
    arguments = parser.parse_args()
    folder = build(arguments.folder or Path(tempfile.mkdtemp()) / "tiny")
    report = Report()
    if arguments.server == "vllm":
        vllm(arguments.python, folder, report)
    else:
        transformers_serve(arguments.python, folder, report)
    sys.exit(report.num_failed > 0)


if __name__ == "__main__":
    main()
