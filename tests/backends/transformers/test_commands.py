"""Commands run on models of other families as on ours; what belongs to InstructBLIP alone is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import vli
from picture_fixtures import make_picture

from vlinstruct.backends.registry import find
from vlinstruct.backends.transformers.memory import TransformersNeeds
from vlinstruct.model import load

from ...evaluation.official_files import write
from .conftest import Pair
from .tiny_families import FAMILIES

ANSWER = ("Ġtwo", "Ġone", "<|im_end|>")


def pictures(folder: Path, count: int) -> Path:
    """Pictures of many sizes."""
    folder.mkdir()
    for number in range(count):
        make_picture(40 + 61 * number % 200, 40 + 37 * number % 160, seed=number).save(folder / f"{number:02}.png")
    return folder


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def nearly(value: Any) -> Any:
    """The value, its numbers with a batch's tolerance: they are written with five decimals."""
    if isinstance(value, dict):
        return {name: nearly(field) for name, field in value.items()}
    if isinstance(value, list):
        return [nearly(entry) for entry in value]
    return pytest.approx(value, abs=1.1e-5) if isinstance(value, float) else value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_vl", "gemma3", "mllama", "smolvlm", "paligemma", "qwen3_5"])
def test_a_folder_in_batches_gives_the_records_of_one_by_one(
    name: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "pictures", 5)
    command = ("ask", folder, "What is this?", "-O", "--max-new-tokens", "4", "--backbone", folder_of(name))
    for size in (1, 4):
        result = vli(*command, "--device", "cpu", "--batch-size", size, "-o", tmp_path / f"{size}.jsonl")
        assert result.exit_code == 0, result.stderr
    assert records(tmp_path / "4.jsonl") == [nearly(record) for record in records(tmp_path / "1.jsonl")]


_PEAK = """
import resource, sys, types
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))
from vlinstruct.cli.main import run_command
code = run_command(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count otherwise")
def test_a_larger_folder_takes_no_more_memory(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    def peak_kib(count: int) -> int:
        folder = pictures(tmp_path / f"{count} pictures", count)
        words = ["ask", folder, "What is this?", "-O", "--max-new-tokens", "4", "--batch-size", "8", "--device", "cpu"]
        words += ["--backbone", folder_of("qwen3_vl"), "-o", tmp_path / f"{count}.jsonl", "-q"]
        command = [sys.executable, "-c", _PEAK, *map(str, words)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # The pixels of 40 pictures more are up to 16 MB as the processor makes them.
    assert peak_kib(56) - peak_kib(16) < 8_000


def test_benchmarks_are_asked_as_chat_models_are_and_the_results_say_it(
    saying: Callable[..., Path], tmp_path: Path
) -> None:
    data, out = write(tmp_path / "data", "gqa", "scienceqa"), tmp_path / "out"
    result = vli(
        "evaluate", "gqa", "scienceqa", "--data", data, "--backbone", saying(*ANSWER), "--device", "cpu", "-o", out
    )
    said = "prompts: chat models', as in lmms-eval"
    assert said in result.text
    assert said in (out / "report.html").read_text().replace("&#x27;", "'")
    results = json.loads((out / "results.json").read_text())
    assert f"prompts: {results['prompts']}" == said
    assert (results["generation"]["gqa"]["num_beams"], results["generation"]["gqa"]["max_new_tokens"]) == (1, 16)
    question, *_, problem = records(out / "records.jsonl")
    assert question["initial"]["text"].endswith("?\nAnswer the question using a single word or phrase.")
    assert question["initial"]["answer"] == "two one"
    assert (problem["candidates"], problem["references"]) == (["A", "B"], ["B"])


@pytest.mark.parametrize("name", ["qwen3_vl", "phi4_multimodal", "paligemma", "blip2_opt"])
def test_who_has_a_chat_template_is_a_chat_model(name: str, folder_of: Callable[[str], Path]) -> None:
    assert find(folder_of(name)).is_chat_model == FAMILIES[name].has_template
    assert not find("mini").is_chat_model


@pytest.mark.slow
def test_models_without_a_chat_template_are_asked_in_the_papers_words(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    data = write(tmp_path / "data", "hatefulmemes")
    command = ("evaluate", "hatefulmemes", "--data", data, "--device", "cpu", "-o", tmp_path / "out", "--limit", "2")
    assert "prompts:" not in vli(*command, "--backbone", folder_of("paligemma")).text
    assert 'written on it. Is it hateful?"' in (tmp_path / "out" / "records.jsonl").read_text()


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (("--adapter", "mini-ema"), "InstructBLIP family"),
        (("--image-size", "64"), "sizes of its own"),
    ],
)
@pytest.mark.parametrize("command", [("ask", "{picture}", "What?"), ("evaluate", "mini/gqa", "--limit", "2")])
def test_options_of_instructblip_are_refused(
    command: tuple[str, ...], option: tuple[str, str], why: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    make_picture(40, 40, seed=0).save(picture)
    words = (word.format(picture=picture) for word in command)
    line = vli(*words, "--backbone", folder_of("qwen3_vl"), *option).refusal(4)
    assert f"cannot use {option[0]} " in line
    assert why in line


def test_thinking_is_refused_where_nothing_thinks(folder_of: Callable[[str], Path]) -> None:
    command = ("ask", "examples/pictures/sign.png", "What?", "--think", "--backbone", folder_of("llava"))
    assert "cannot use --think (" in vli(*command).refusal(4)
    for command in (("ask", "examples/pictures/sign.png", "What?"), ("evaluate", "mini/gqa", "--limit", "2")):
        assert "cannot use --think (mini)" in vli(*command, "--backbone", "mini", "--think").refusal(4)


def test_an_answer_that_was_never_reached_says_why(saying: Callable[..., Path], tmp_path: Path) -> None:
    make_picture(40, 40, seed=0).save(tmp_path / "a.png")
    folder = saying("<think>", "Ġred", "Ġdo", "</think>", *ANSWER)
    command = ("ask", tmp_path / "a.png", "What?", "--backbone", folder, "--device", "cpu")
    cut = vli(*command, "--max-new-tokens", "2")
    assert "the model thought until its tokens ran out" in cut.stderr
    assert cut.text == "\n"
    thought = vli(*command, "--max-new-tokens", "2", "--think")
    assert (thought.text, thought.stderr) == ("two one\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
@pytest.mark.parametrize("name", ["qwen3_vl", "llava", "mllama", "blip2_opt", "blip2_t5", "florence2"])
def test_only_the_layers_of_the_language_model_are_quantized(
    name: str, quantize: Any, pair_of: Callable[[str], Pair], folder_of: Callable[[str], Path]
) -> None:
    ours = pair_of(name).ours.backend.model  # type: ignore[attr-defined]
    model = load(folder_of(name), device="cpu", quantize=quantize)
    changed = {
        place
        for place, module in model.backend.model.named_modules()  # type: ignore[attr-defined]
        if (weight := getattr(module, "weight", None)) is not None
        and type(weight) is not type(ours.get_submodule(place).weight)
    }
    assert changed
    assert all(place.startswith(("model.language_model.", "language_model.")) for place in changed)
    assert not any("head" in place for place in changed)
    num_quantized = sum(ours.get_submodule(place).weight.numel() for place in changed)
    num_planned = TransformersNeeds(find(folder_of(name)).config, name=name).weights.quantizable
    # torchao quantizes T5's `wo`, too.
    assert num_quantized == num_planned or (num_quantized > num_planned and (name, quantize) == ("blip2_t5", "8bit"))
    assert model.ask(make_picture(60, 40, seed=0), "What?").text is not None
