"""Records what every command answers, and compares another state of the code with that recording.

    python tests/tools/recording.py record FILE.json.gz [--checkout FOLDER]
    python tests/tools/recording.py compare FILE.json.gz [--checkout FOLDER]
    python tests/tools/recording.py finetune OTHER_CHECKOUT

`compare` exits with 1 at any difference: texts, keys and their order, exit codes and the lines of stderr are equal,
numbers within 1e-5. A text that holds a rounded number ("the lowest IAS (0.1403)") is a text. `finetune` trains 12
updates with this checkout and with another one, and compares all tensors that both leave bit for bit. --checkout takes
the package from another folder than this file's.

Only the command line is used and nothing of the package is imported, so that its modules may be rearranged at will.

recording.json.gz was made with the code of commit 87ddfe2 (Python 3.11, torch 2.13, transformers 5.24, two cores of a
CPU, OMP_NUM_THREADS=1). Against the recording before it, of d12dbab, no plain answer, score or choice differs; what
optimization chooses does, since its rules are new. Its numbers hold within 1e-5 on one machine and one torch; elsewhere
make a recording of your own first: `git worktree add OLD 87ddfe2`, then `record FILE.json.gz --checkout OLD`. mini has
other weights since then: take a commit after those of 29 November for OLD.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5 + 1e-9  # records are rounded to five decimals: a last digit that flips is within it
NUM_PROCESSES = 2
TINY = ("t5", "llama")
BACKBONES = {"mini": "mini", "mini-llama": "mini-llama", "t5": "models/t5", "llama": "models/llama"}

# Left out of a recording, since two runs of the same code differ in it.
# `key` identifies a record's model and picture by its files' times and contents, which are new at every run.
VOLATILE_KEYS = {"key", "versions", "seconds_per_item", "free_bytes", "disk_free_bytes"}
# The findings of `doctor` that tell of the machine: only the names of these checks are kept.
MACHINE_CHECKS = {"python", "package", "environment", "processor", "gpu", "device", "disk", "cache", "cached backbones"}
# Lines of stderr: progress is said by the clock, and other packages log what this machine cannot load.
VOLATILE_LINES = re.compile(r"^progress: |^[WE]\d{4} |^Failed to load /|^Skipping import of cpp extensions")

# None of these words stand in the repository's tests or in mini's phrasings, or not in this order.
QUESTIONS = (
    "yo, could ya tell which hue the blob wears, cheers",
    "Fetch me the digits daubed upon this placard.",
    "Is a crimson pentagram anywhere within this snapshot?",
    'Choose teal (1) or ochre (2): which tone does "the gizmo" bear?',
    "Render this tableau in a breath",
    "What colour is the star?",
    "</s> <image> {0} [SEP] naïve ☂ trinket",
)
EARNEST = QUESTIONS[:5]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One command line, run in the work folder.

    Args:
        name: unique, shown with every difference.
        arguments: what is typed after `vlinstruct`.
        stdin: what is piped in.
        files: JSON-lines files that it writes, recorded too.
        tensors: a folder whose safetensors are recorded as hashes.
        cut: a file that is cut to its first 700 bytes before, as a killed run leaves it.
    """

    name: str
    arguments: tuple[str, ...]
    stdin: str = ""
    files: tuple[str, ...] = ()
    tensors: str = ""
    cut: str = ""


def case(name: str, *arguments: str, **fields: Any) -> Case:
    return Case(name=name, arguments=arguments, **fields)


def backbone_cases(name: str) -> Iterator[list[Case]]:
    """The cases of one backbone: chains of command lines, each chain in its order."""
    # The random models never end an answer by themselves; their rewriting is long enough.
    model = ("--backbone", BACKBONES[name], "--json", "--offline")
    short = (*model, "--max-new-tokens", "12")
    data = ("ask", "--data", "pictures/questions.jsonl")
    few = ("ask", "--data", "pictures/few.jsonl")
    yield [case(f"{name}/ask", *data, *short)]
    yield [case(f"{name}/ask-batch", *data, *short, "--batch-size", "4")]
    yield [case(f"{name}/ask-folder", "ask", "pictures", QUESTIONS[0], *short)]
    yield [case(f"{name}/ask-choices", *data, *model, "--choices", "crimson,a yellow star,42,yep")]
    yield [case(f"{name}/ask-beams", *data, *short, "--num-beams", "4", "--length-penalty", "0.5")]
    yield [
        case(f"{name}/ask-sample", *few, *short, "--do-sample", "--seed", "3", "--temperature", "2", "--top-p", "0.9")
    ]
    yield [
        case(
            f"{name}/ask-template",
            *few,
            *short,
            "--template",
            "Riddle: {question} Retort:",
            "--repetition-penalty",
            "1.3",
        )
    ]
    for select in ("safe", "paper"):
        for batch in ("1", "4"):
            options = (*short, "-O", "--select", select, "--batch-size", batch)
            yield [case(f"{name}/ask-O-{select}-{batch}", *few, *options)]
        yield [case(f"{name}/optimize-{select}", "optimize", QUESTIONS[3], "pictures", *short, "--select", select)]
    yield [case(f"{name}/ask-O-choices", *few, *model, "-O", "--choices", "teal,ochre")]
    yield [case(f"{name}/score", "score", "pictures", *QUESTIONS, *model)]
    yield [case(f"{name}/score-batch", "score", "pictures", *QUESTIONS, *model, "--batch-size", "4")]
    answer = ("--answer", "--least-certainty", "0.1", "--templates", "templates.yaml")
    yield [case(f"{name}/optimize-answer", "optimize", QUESTIONS[0], "pictures", *short, *answer)]
    yield [case(f"{name}/optimize-shared", "optimize", "--shared", QUESTIONS[4], "pictures", *model)]
    turns = "\n".join(
        [
            *EARNEST[:2],
            "/optimize",
            f"/optimize {QUESTIONS[2]}",
            "and its pal?",
            "/image pictures/dots.png",
            QUESTIONS[4],
        ]
    )
    turns += "\n/reset\n//slash\nwhat now, matey\n/bogus\n/image nowhere.png\nstill there, matey\n/quit\nunheard\n"
    yield [case(f"{name}/chat", "chat", "pictures/star.png", *short, stdin=turns)]
    yield [case(f"{name}/chat-O", "chat", "pictures/number.png", "-O", *short, stdin="\n".join(EARNEST[:3]))]


def adapter_cases(backbone: str, adapter: str) -> Iterator[list[Case]]:
    """Asks, optimizes and scores with a shipped adapter."""
    model = ("--backbone", backbone, "--adapter", adapter, "--json")
    yield [case(f"{adapter}/ask", "ask", "--data", "pictures/questions.jsonl", *model)]
    yield [case(f"{adapter}/ask-O", "ask", "--data", "pictures/few.jsonl", "-O", *model)]
    yield [case(f"{adapter}/score", "score", "pictures", *QUESTIONS, *model)]


def other_cases() -> Iterator[list[Case]]:
    """Evaluation, resuming, failures, texts for people, conversions, listings."""
    evaluation = ("evaluate", "mini", "--limit", "20", "--json", "-o", "evaluation")
    yield [case("evaluate/mini", *evaluation, files=("evaluation/records.jsonl",))]
    gqa = ("evaluate", "mini/gqa", "--backbone", "mini-llama", "--limit", "5", "-o", "gqa")
    yield [case("evaluate/text", *gqa, files=("gqa/records.jsonl",))]
    yield [case("evaluate/list", "evaluate", "--list")]
    asked = ("ask", "pictures", QUESTIONS[1], "-o", "answers.jsonl")
    answers = ("answers.jsonl",)
    yield [
        case("resume/first", *asked, files=answers),
        case("resume/done", *asked, files=answers),
        case("resume/cut", *asked, files=answers, cut="answers.jsonl"),
        case("resume/other-question", "ask", "pictures", QUESTIONS[4], "-o", "answers.jsonl", files=answers),
        case("resume/overwrite", "ask", "pictures", QUESTIONS[4], "-o", "answers.jsonl", "--overwrite", files=answers),
    ]
    yield [case("broken/ask", "ask", "broken", QUESTIONS[1], "-O", "--json")]
    yield [case("broken/score-batch", "score", "broken", QUESTIONS[1], "--json", "--batch-size", "3")]
    yield [case("broken/shared", "optimize", "--shared", QUESTIONS[1], "broken", "--json")]
    yield [case("broken/max-failures", "ask", "broken", QUESTIONS[1], "--max-failures", "1")]
    yield [case("broken/only", "ask", "broken/text.png", QUESTIONS[1], "--json")]
    yield [case("broken/data", "ask", "--data", "bad.jsonl", "--json")]
    yield [case("text/ask", "ask", "pictures/sign.png", QUESTIONS[5])]
    yield [case("text/ask-O", "ask", "pictures/sign.png", QUESTIONS[0], "-O")]
    yield [case("text/ask-choices", "ask", "pictures/star.png", QUESTIONS[5], "--choices", "red,teal")]
    yield [case("text/score", "score", "pictures/star.png", *QUESTIONS)]
    yield [case("text/optimize", "optimize", QUESTIONS[0], "pictures/star.png", "--answer")]
    yield [case("text/optimize-shared", "optimize", QUESTIONS[0], "pictures", "--shared", "-q")]
    yield [case("text/show-templates", "optimize", "--show-templates")]
    yield [case("text/chat", "chat", "pictures/star.png", stdin="what lurks here\n/help\n/optimize\n")]
    yield [case("text/backbones", "backbones")]
    yield [case("backbones/json", "backbones", "--json")]
    for kind in TINY:
        folder = f"models/{kind}"
        half, merged = f"{kind}-bfloat16", f"{kind}-shards"
        yield [case(f"{kind}/doctor", "doctor", "--backbone", folder, "--json", "--offline")]
        yield [case(f"{kind}/backbones", "backbones", folder, "--json", "--batch-size", "3")]
        to_half = ("--dtype", "bfloat16", "-o", half, "--json")
        yield [
            case(f"{kind}/convert-bfloat16", "convert", folder, *to_half, tensors=half),
            case(f"{kind}/ask-bfloat16", "ask", "pictures", QUESTIONS[0], "--backbone", half, "--max-new-tokens", "8"),
        ]
        to_shards = ("--max-shard-size", "150KB", "-o", merged, "--json")
        yield [case(f"{kind}/convert-shards", "convert", folder, *to_shards, tensors=merged)]
        finetune = ("finetune", "--backbone", folder, "--data", "pictures/training.jsonl", "-o", f"{kind}-dry")
        yield [case(f"{kind}/finetune-dry-run", *finetune, "--max-steps", "3", "--dry-run", "--json")]
    to_merged = ("convert", "mini-ema", "--to", "merged", "--backbone", "mini", "-o", "merged", "--json")
    yield [case("convert/merged", *to_merged, tensors="merged")]
    yield [case("finetune/check-data", "finetune", "--data", "bad.jsonl", "--check-data")]
    commands = ("ask", "chat", "optimize", "score", "finetune", "evaluate", "backbones", "convert", "doctor", "bench")
    for command in commands:
        yield [case(f"options/{command}", command, "--help")]


def wrong_cases() -> Iterator[list[Case]]:
    """Command lines that are refused."""
    star, words = "pictures/star.png", QUESTIONS[0]
    lines: dict[str, tuple[str, ...]] = {
        "unknown-command": ("fathom", star),
        "unknown-option": ("ask", star, words, "--frobnicate"),
        "no-question": ("ask", star),
        "missing-picture": ("ask", "nowhere.png", words),
        "missing-folder": ("score", "nowhere/", words),
        "swapped": ("ask", words, star),
        "swapped-optimize": ("optimize", star, words),
        "swapped-score": ("score", words, star),
        "dtype": ("ask", star, words, "--dtype", "float12"),
        "select": ("ask", star, words, "-O", "--select", "boldest"),
        "device": ("ask", star, words, "--device", "abacus"),
        "cuda": ("ask", star, words, "--device", "cuda:7"),
        "batch-size": ("ask", star, words, "--batch-size", "0"),
        "beams": ("ask", star, words, "--num-beams", "0"),
        "sampled-beams": ("ask", star, words, "--num-beams", "2", "--do-sample"),
        "temperature": ("ask", star, words, "--do-sample", "--temperature", "-1"),
        "template": ("ask", star, words, "--template", "no field"),
        "choices": ("ask", star, words, "--choices", "lonely"),
        "choices-empty": ("ask", star, words, "--choices", ","),
        "empty-question": ("ask", star, " "),
        "backbone": ("ask", star, words, "--backbone", "models/absent"),
        "backbone-no-model": ("ask", star, words, "--backbone", "pictures"),
        "adapter": ("ask", star, words, "--adapter", "models/absent"),
        "adapter-of-another": ("ask", star, words, "--backbone", "models/t5", "--adapter", "mini-ema"),
        "templates-file": ("optimize", words, star, "--templates", "absent.yaml"),
        "templates-field": ("optimize", words, star, "--templates", "wrong.yaml"),
        "data-missing": ("ask", "--data", "absent.jsonl"),
        "chat-missing": ("chat", "nowhere.png"),
        "convert-missing": ("convert", "models/absent", "-o", "x"),
        "convert-there": ("convert", "models/t5", "-o", "models/llama"),
        "finetune-no-data": ("finetune", "--backbone", "models/t5"),
        "finetune-steps": ("finetune", "--max-steps", "-4"),
        "evaluate-unknown": ("evaluate", "gadgetqa"),
        "evaluate-no-data": ("evaluate", "gqa", "--data", "nowhere"),
        "url-offline": ("ask", "https://localhost:9/a.png", words, "--offline"),
        "large": ("ask", star, words, "--max-pixels", "10"),
        "backbones-unknown": ("backbones", "zeppelin"),
    }
    for name, arguments in lines.items():
        yield [case(f"wrong/{name}", *arguments)]


def all_chains() -> list[list[Case]]:
    """All cases; what takes longest is first, so that no process is alone at the end."""
    chains = list(other_cases())
    for name in BACKBONES:
        chains += backbone_cases(name)
    for backbone, adapter in (("mini", "mini-ema"), ("mini", "mini-projection"), ("mini-llama", "mini-llama-ema")):
        chains += adapter_cases(backbone, adapter)
    return [*chains, *wrong_cases()]


def write_inputs(folder: Path) -> None:
    """Writes pictures, questions, templates and tiny models, the same ones every time."""
    draw_pictures(folder / "pictures")
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    pairs = [(image, question) for image in names for question in QUESTIONS]
    lines = [
        {"image": image, "question": question, "id": f"q{number}"} for number, (image, question) in enumerate(pairs)
    ]
    write_lines(folder / "pictures/questions.jsonl", lines)
    write_lines(folder / "pictures/few.jsonl", lines[::5])
    answers = ("teal it is", "3", "yep, near the rim", "nope")
    training = [
        {"image": image, "instruction": question, "answer": answers[number % len(answers)]}
        for number, (image, question) in enumerate(pairs)
    ]
    write_lines(folder / "pictures/training.jsonl", training)
    bad = [{"image": "pictures/star.png", "question": "whence?"}, {"image": "pictures/absent.png", "question": "why"}]
    write_lines(folder / "bad.jsonl", [*bad, {"image": "pictures/star.png"}, {"question": 3}])
    (folder / "broken").mkdir()
    for name in ("star.png", "number.png", "dots.png"):
        shutil.copy(folder / "pictures" / name, folder / "broken" / name)
    (folder / "broken/text.png").write_text("this is no picture\n")
    (folder / "broken/cut.png").write_bytes((folder / "pictures/noise.png").read_bytes()[:300])
    templates = {
        "rewrite": "Mend this plea, keep its gist: {instruction} Mended:",
        "score": "A fitting plea for this scene:",
        "compare": "Pleas, worst first. {candidates} The finest plea:",
        "compare_item": "Plea {instruction} got {ias}.",
    }
    (folder / "templates.yaml").write_text(json.dumps(templates))
    (folder / "wrong.yaml").write_text(json.dumps({**templates, "rewrite": "no field here"}))
    for kind in TINY:
        write_tiny_model(kind, folder / "models" / kind)


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def draw_pictures(folder: Path) -> None:
    """Draws pictures of several sizes and modes beside the examples."""
    import numpy as np
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True)
    for name in ("number.png", "sign.png", "star.png"):  # by name: another file there would be another case
        shutil.copy(ROOT / "examples/pictures" / name, folder)
    image = Image.new("RGB", (224, 224), (20, 90, 60))
    draw = ImageDraw.Draw(image)
    for number in range(5):
        corner = (20 + 40 * number, 160 - 30 * number)
        draw.ellipse((*corner, corner[0] + 28, corner[1] + 28), fill=(250, 50 * number, 20))
    image.save(folder / "dots.png")
    wide = Image.new("RGBA", (300, 80), (0, 0, 0, 0))
    ImageDraw.Draw(wide).polygon([(10, 70), (150, 5), (290, 70)], fill=(30, 60, 220, 200))
    wide.save(folder / "wide.png")
    noise = np.random.default_rng(11).integers(0, 256, (90, 61), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")


def write_tiny_model(kind: str, folder: Path) -> None:
    """Writes a random InstructBLIP of 100k parameters in transformers' format, as tests/tiny_models.py does."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

    vision = {"model_type": "instructblip_vision_model", "hidden_size": 32, "intermediate_size": 48}
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28, "patch_size": 14}
    qformer = {"model_type": "instructblip_qformer", "hidden_size": 24, "intermediate_size": 40, "vocab_size": 120}
    qformer |= {"num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 64}
    qformer |= {"encoder_hidden_size": 32}
    t5 = {"model_type": "t5", "vocab_size": 130, "d_model": 28, "d_kv": 6, "d_ff": 36, "num_layers": 2, "num_heads": 4}
    t5 |= {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu", "tie_word_embeddings": False}
    t5 |= {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    llama = {"model_type": "llama", "vocab_size": 130, "hidden_size": 32, "intermediate_size": 44}
    llama |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6}
    llama |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = {"architectures": ["InstructBlipForConditionalGeneration"], "model_type": "instructblip"}
    config |= {"vision_config": vision, "qformer_config": qformer, "text_config": t5 if kind == "t5" else llama}
    config |= {"num_query_tokens": 4, "image_token_index": 129}

    torch.manual_seed(0)
    model = InstructBlipForConditionalGeneration(InstructBlipConfig.from_dict(config))
    for name, parameter in model.named_parameters():  # large enough that answers differ among pictures
        is_norm = "norm" in name.lower() and name.endswith("weight")
        parameter.data = torch.randn_like(parameter) * (0.1 if is_norm else 0.2) + (1.0 if is_norm else 0.0)
    if kind == "t5":
        model.language_model.lm_head.weight = torch.nn.Parameter(torch.randn(130, 28) * 0.3)
    tied = {f"language_model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items() if name not in tied}

    characters = [chr(code) for code in range(33, 127)]
    special = ["<pad>", "</s>", "<unk>"] if kind == "t5" else ["<pad>", "<s>", "</s>", "<unk>"]
    pieces = [(piece, -1.0) for piece in [*special, "▁", *characters]]
    text = Tokenizer(models.Unigram(pieces, unk_id=special.index("<unk>")))
    text.pre_tokenizer, text.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    text.add_special_tokens([AddedToken(token, special=True) for token in [*special, "<image>"]])
    brackets = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]"]
    spelled = [*brackets, *[character for character in characters if not character.isupper()]]
    vocabulary = {piece: index for index, piece in enumerate(spelled)}
    reader = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=""))
    reader.normalizer, reader.pre_tokenizer = (
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
    )
    reader.add_special_tokens([AddedToken(token, special=True) for token in brackets])
    processor = {"size": {"height": 28, "width": 28}, "resample": 3, "do_resize": True, "do_normalize": True}
    processor |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}

    (folder / "qformer_tokenizer").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    text.save(str(folder / "tokenizer.json"))
    reader.save(str(folder / "qformer_tokenizer/tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def run_vlinstruct(
    arguments: tuple[str, ...], *, work: Path, checkout: Path, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a command line in `work` with the package of `checkout`, without this machine's variables of ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VLINSTRUCT_", "HF_"))}
    environment |= {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "vlinstruct", *arguments]
    return subprocess.run(
        command, cwd=work, env=environment, input=stdin, capture_output=True, encoding="utf-8", timeout=600, check=False
    )


def run_case(this: Case, *, work: Path, checkout: Path) -> dict[str, Any]:
    """Runs a case and returns what is recorded of it."""
    if this.cut:
        (work / this.cut).write_bytes((work / this.cut).read_bytes()[:700])
    done = run_vlinstruct(this.arguments, work=work, checkout=checkout, stdin=this.stdin)
    places = {str(work): "<work>", str(checkout): "<checkout>", str(Path.home()): "<home>"}
    if this.name.startswith("options/"):
        # Descriptions may be reworded; the options may not change.
        return {
            "exit_code": done.returncode,
            "options": sorted(set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", done.stdout))),
        }
    stderr = [line for line in with_names(done.stderr, places).splitlines() if not VOLATILE_LINES.match(line)]
    stdout = parsed(with_names(done.stdout, places))
    recorded: dict[str, Any] = {"exit_code": done.returncode, "stdout": stdout, "stderr": stderr}
    for name in this.files:
        path = work / name
        recorded[name] = parsed(with_names(path.read_text(), places)) if path.is_file() else None
    if this.tensors:
        recorded["tensors"] = tensor_hashes(work / this.tensors)
    return recorded


def with_names(text: str, places: dict[str, str]) -> str:
    """Puts names in the place of what belongs to one run: paths, and the milliseconds of `evaluate`'s table."""
    for path, name in places.items():
        text = text.replace(path, name)
    text = re.sub(r" +[\d.]+ ms\b", " # ms", text)
    return re.sub(r"<checkout>/[\w./-]*/", "<checkout>/.../", text)  # the package's folders may be rearranged


def parsed(text: str) -> list[Any]:
    """Reads JSON lines, without what is volatile; other lines stay texts."""
    lines: list[Any] = []
    for line in text.splitlines():
        try:
            value = json.loads(line) if line.startswith("{") else line
        except json.JSONDecodeError:
            value = line
        lines.append(settled(value))
    return lines


def settled(value: Any) -> Any:
    """Leaves out what two runs of the same code differ in."""
    if isinstance(value, list):
        return [settled(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("check") in MACHINE_CHECKS:
        return {"check": value["check"]}
    return {key: settled(item) for key, item in value.items() if key not in VOLATILE_KEYS}


def tensor_hashes(folder: Path) -> dict[str, str]:
    """Returns `file/tensor` with dtype, shape and SHA-256, of all safetensors below a folder."""
    import torch
    from safetensors.torch import load_file

    hashes = {}
    for path in sorted(folder.rglob("*.safetensors")):
        for name, tensor in sorted(load_file(path).items()):
            digest = hashlib.sha256(tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
            hashes[f"{path.relative_to(folder)}/{name}"] = f"{tensor.dtype} {tuple(tensor.shape)} {digest}"
    return hashes


def run_all(checkout: Path, pattern: str) -> dict[str, Any]:
    """Runs all cases whose name has `pattern`, two processes at a time."""
    chains = [chain for chain in all_chains() if any(re.search(pattern, this.name) for this in chain)]
    names = [this.name for chain in chains for this in chain]
    assert len(names) == len(set(names)), "two cases of one name"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        write_inputs(work)

        def run_chain(chain: list[Case]) -> dict[str, Any]:
            return {this.name: run_case(this, work=work, checkout=checkout) for this in chain}

        with ThreadPoolExecutor(NUM_PROCESSES) as pool:
            results = list(pool.map(run_chain, chains))
    return {name: recorded for result in results for name, recorded in result.items() if re.search(pattern, name)}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs at a JSON path; `size` is that of two numbers, within the tolerance too."""

    path: str
    text: str
    size: float = 0.0
    is_error: bool = True


def differences(before: Any, after: Any, path: str) -> Iterator[Difference]:
    """Walks through two JSON values."""
    if isinstance(before, dict) and isinstance(after, dict):
        if list(before) != list(after):
            lost, new = [key for key in before if key not in after], [key for key in after if key not in before]
            text = f"keys lost {lost}, new {new}" if lost or new else f"order of keys {list(before)} is {list(after)}"
            yield Difference(path=path, text=text)
        for key in before:
            if key in after:
                yield from differences(before[key], after[key], f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield Difference(path=path, text=f"{len(before)} entries are {len(after)}: {before} is {after}"[:600])
        for number, (old, new) in enumerate(zip(before, after, strict=False)):
            yield from differences(old, new, f"{path}[{number}]")
    elif type(before) is not type(after):
        yield Difference(path=path, text=f"{before!r} is {after!r}")
    elif isinstance(before, float):
        size = 0.0 if before == after or (math.isnan(before) and math.isnan(after)) else abs(before - after)
        is_error = not size <= TOLERANCE
        if size:
            yield Difference(path=path, text=f"{before} is {after}", size=size, is_error=is_error)
    elif before != after:
        yield Difference(path=path, text=f"{before!r} is {after!r}")


def compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Prints all differences and returns their number."""
    pairs = [difference for name in before for difference in differences(before[name], after.get(name), name)]
    pairs += [Difference(path=name, text="is not in the recording") for name in after if name not in before]
    errors = [difference for difference in pairs if difference.is_error]
    for difference in errors:
        print(f"{difference.path}: {difference.text}")
    largest = max(pairs, key=lambda difference: difference.size, default=None)
    where = f" at {largest.path}" if largest and largest.size else ""
    print(f"largest numeric difference: {largest.size if largest else 0.0:.3g}{where}")
    cases = {difference.path.split(".")[0] for difference in errors}
    print(f"{len(errors)} differences in {len(cases)} of {len(before)} cases")
    return len(errors)


def compare_finetuning(other: Path, pattern: str) -> int:
    """Trains with two checkouts and returns the number of tensors that are not bit-equal."""
    import torch
    from safetensors.torch import load_file

    data = ("--data", "pictures/training.jsonl", "--eval-data", "pictures/training.jsonl")
    tiny = (*data, "--max-steps", "12", "--warmup-steps", "4", "--learning-rate", "1e-3")
    runs = {
        "mini": ("--max-steps", "12"),
        "t5": ("--backbone", "models/t5", *tiny, "--ema", "--per-device-train-batch-size", "4"),
        "llama": ("--backbone", "models/llama", *tiny, "--ema", "--learned-cmaa", "--ln-vision"),
        "t5-lora": ("--backbone", "models/t5", *tiny, "--lora", "--no-ema", "--gradient-accumulation-steps", "2"),
    }
    runs = {name: options for name, options in runs.items() if re.search(pattern, name)}
    unequal = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        write_inputs(work)

        def train(job: tuple[str, Path, str]) -> subprocess.CompletedProcess[str]:
            name, checkout, side = job
            return run_vlinstruct(("finetune", *runs[name], "-q", "-o", f"{side}-{name}"), work=work, checkout=checkout)

        jobs = [(name, checkout, side) for name in runs for checkout, side in ((ROOT, "this"), (other, "other"))]
        with ThreadPoolExecutor(NUM_PROCESSES) as pool:
            for job, done in zip(jobs, pool.map(train, jobs), strict=True):
                if done.returncode:
                    print(f"{job[0]}, {job[2]} checkout: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
                    unequal += 1
        for name in runs:
            sides = [
                {
                    f"{path.relative_to(work / f'{side}-{name}')}/{key}": tensor
                    for path in sorted((work / f"{side}-{name}").rglob("*.safetensors"))
                    for key, tensor in load_file(path).items()
                }
                for side in ("this", "other")
            ]
            this, that = sides
            if set(this) != set(that) or not this:
                print(f"{name}: other tensors: {sorted(set(this) ^ set(that))[:10]}")
                unequal += 1
            common = [key for key in this if key in that]
            wrong = [
                key for key in common if not torch.equal(this[key], that[key]) or this[key].dtype != that[key].dtype
            ]
            for key in wrong:
                is_alike = this[key].shape == that[key].shape
                largest = (this[key].double() - that[key].double()).abs().max().item() if is_alike else math.inf
                print(f"{name}: {key}: largest difference {largest:.3g}")
            unequal += len(wrong)
            print(f"{name}: {len(common) - len(wrong)} of {len(common)} tensors are bit-equal")
    print("equal" if not unequal else f"{unequal} differences")
    return unequal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("record", "compare", "finetune"):
        command = commands.add_parser(name)
        command.add_argument("--only", default="", help="a regular expression of the cases' names")
        if name == "finetune":
            command.add_argument("other", type=Path)
        else:
            command.add_argument("file", type=Path, help=".json or .json.gz")
            command.add_argument("--checkout", type=Path, default=ROOT, help="where the package is taken from")
    options = parser.parse_args()
    start = time.monotonic()
    if options.command == "finetune":
        return int(compare_finetuning(options.other.resolve(), options.only) > 0)
    results = run_all(options.checkout.resolve(), options.only)
    is_packed = options.file.suffix == ".gz"
    if options.command == "record":
        content = json.dumps(results, ensure_ascii=False, indent=None if is_packed else 1).encode()
        options.file.write_bytes(gzip.compress(content, mtime=0) if is_packed else content)
        print(f"{len(results)} cases recorded in {time.monotonic() - start:.0f} s")
        return 0
    content = options.file.read_bytes()
    before = json.loads(gzip.decompress(content) if is_packed else content)
    num_differences = compare({name: before[name] for name in before if re.search(options.only, name)}, results)
    print(f"{len(results)} cases ran in {time.monotonic() - start:.0f} s")
    return int(num_differences > 0)


if __name__ == "__main__":
    sys.exit(main())
