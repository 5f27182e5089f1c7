"""`vlinstruct convert`: what it prints, says and refuses; what it computes is tested in tests/conversion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import lavis_files
import numpy as np
import pytest
import torch
from command_line import Result, vli
from lavis_files import LavisFiles

import vlinstruct
from vlinstruct.backends.instructblip.adapter import save_adapter
from vlinstruct.backends.registry import BACKBONES

NOTICES = [
    "trimmed.pth: 3 entries beside 'model' are ignored: optimizer, config, scaler",
    "trimmed.pth: 3 tensors are left out, the model has no use for them: Qformer.bert 1, Qformer.cls 2",
    "eva.pth: 15 tensors are left out, the model has no use for them: visual_encoder.blocks.2 13, "
    "visual_encoder.norm 1, visual_encoder.head 1",
    "language: 1 tensors are left out, they repeat others: encoder.embed_tokens.weight",
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> LavisFiles:
    return lavis_files.write("t5", tmp_path_factory.mktemp("convert") / "lavis")


@pytest.fixture
def made(template: LavisFiles, tmp_path: Path) -> LavisFiles:
    """LAVIS's files, to be changed."""
    return lavis_files.copy(template, tmp_path / "lavis")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def adapter(tiny_folders: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Writes an adapter for the tiny T5."""

    def write(*layers: str, use_ema: bool = False) -> Path:
        model = vlinstruct.load(str(tiny_folders["t5"]), device="cpu").backend.network
        model.use_ema = use_ema
        model.learn_cmaa()
        save_adapter(tmp_path / "adapter", model, layers=layers or ("projection",))
        return tmp_path / "adapter"

    return write


def refusal(result: Result, exit_code: int, out: Path) -> str:
    line = result.refusal(exit_code)
    assert not out.exists()
    return line


def test_lavis_files_become_a_model_that_answers(made: LavisFiles, out: Path, picture: Path) -> None:
    result = vli("convert", *made.arguments, "-o", out)
    assert result.text == f"{out}\n"
    assert result.lines == [
        *(f"notice: {notice}" for notice in NOTICES),
        "done: LAVIS files to a model: 197 tensors, 0.000429 GB in 1 file",
    ]
    assert vli("ask", picture, "what?", "--backbone", out).exit_code == 0


def test_it_is_a_call_of_the_package(made: LavisFiles, out: Path) -> None:
    told: list[str] = []
    conversion = vlinstruct.convert(
        [*made.files, made.language_model],
        out,
        qformer_tokenizer=made.bert,
        config=made.config,
        notify=told.append,
    )
    assert (conversion.kind, conversion.folder, conversion.num_tensors) == ("lavis", out, 197)
    assert list(conversion.notices) == told == NOTICES


def test_the_result_is_a_record_too(made: LavisFiles, out: Path) -> None:
    size = ["--dtype", "bfloat16", "--max-shard-size", "0.15 mb"]
    result = vli("convert", *made.arguments, "-o", out, "--json", *size)
    assert result.records == [
        {
            "schema": "vlinstruct.convert/1",
            "id": str(out),
            "status": "ok",
            "conversion": "lavis",
            "num_tensors": 197,
            "size_bytes": 214_360,
            "files": ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            "notices": NOTICES,
        }
    ]
    assert "progress: 2 of 2 files written" in result.lines


def test_quiet_is_quiet(made: LavisFiles, out: Path) -> None:
    assert vli("convert", *made.arguments, "-o", out, "--quiet").lines == []


def test_a_checkpoint_becomes_an_adapter(
    made: LavisFiles, out: Path, tiny_folders: dict[str, Path], picture: Path
) -> None:
    line = ["convert", made.files[0], "--to", "adapter", "--backbone", tiny_folders["t5"]]
    (record,) = vli(*line, "--ema", "-o", out, "--json").records
    assert (record["conversion"], record["num_tensors"], record["files"]) == ("adapter", 4, ["alignment.safetensors"])
    assert "an adapter cannot hold them (query_tokens, qformer." in record["notices"][-1]
    assert vli("ask", picture, "what?", "--adapter", out).exit_code == 0
    assert json.loads((out / "alignment_config.json").read_text())["use_ema"] is True
    vli(*line, "--no-ema", "-o", out, "--force")
    assert json.loads((out / "alignment_config.json").read_text())["use_ema"] is False


def test_the_shape_of_a_known_backbone_needs_no_download(made: LavisFiles, out: Path) -> None:
    line = ["convert", made.files[0], "--to", "adapter", "--backbone", "flant5-xl", "-o", out, "--offline"]
    assert "vision_model.post_layernorm.bias (32,) instead of (1408,)" in refusal(vli(*line), 5, out)


def test_an_adapter_is_merged(
    adapter: Callable[..., Path], out: Path, tiny_folders: dict[str, Path], picture: Path
) -> None:
    backbone = tiny_folders["t5"]
    result = vli("convert", adapter(use_ema=True), "--to", "merged", "--backbone", backbone, "-o", out)
    assert result.text == f"{out}\n"
    assert "notice: the adapter uses EMA: vlinstruct does so with this folder, transformers will leave it out" in (
        result.lines
    )
    merged = vli("score", picture, "what?", "--json", "--backbone", out).records[0]["scores"]
    together = vli("score", picture, "what?", "--json", "--adapter", out.parent / "adapter").records[0]["scores"]
    assert merged == together


def test_learned_cmaa_is_refused(adapter: Callable[..., Path], out: Path, tiny_folders: dict[str, Path]) -> None:
    line = ["convert", adapter("projection", "cmaa", use_ema=True), "--to", "merged", "--backbone", tiny_folders["t5"]]
    assert "it learned CMAA" in refusal(vli(*line, "-o", out), 5, out)


def test_a_known_model_is_converted_by_name(out: Path) -> None:
    (record,) = vli("convert", "mini", "--dtype", "bfloat16", "-o", out, "--json").records
    assert record["conversion"] == "folder"
    assert (
        vlinstruct.load(str(out), device="cpu").backend.network.config == vlinstruct.load("mini").backend.network.config
    )


def test_flant5_in_float16_comes_with_a_warning(out: Path, tiny_folders: dict[str, Path]) -> None:
    lines = vli("convert", tiny_folders["t5"], "--dtype", "float16", "-o", out).lines
    assert "notice: FlanT5 overflows when it computes in float16: load the folder in bfloat16 or float32" in lines


def test_an_existing_target_is_refused_without_force(tiny_folders: dict[str, Path], out: Path) -> None:
    shutil.copytree(tiny_folders["llama"], out)
    before = (out / "config.json").read_bytes()
    line = vli("convert", tiny_folders["t5"], "-o", out).refusal(4)
    assert "it exists. Give another --output, or --force to replace it" in line
    assert (out / "config.json").read_bytes() == before
    assert vli("convert", tiny_folders["t5"], "-o", out, "--force").exit_code == 0
    assert (out / "config.json").read_bytes() != before


def test_force_does_not_replace_what_is_no_model(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years")
    line = vli("convert", tiny_folders["t5"], "-o", tmp_path / "home", "--force").refusal(4)
    assert "something else than a model or adapter folder is there" in line
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years"


def test_what_a_killed_run_left_is_removed(tiny_folders: dict[str, Path], out: Path) -> None:
    left = out.parent / ".tmp-out-abc"
    left.mkdir()
    vli("convert", tiny_folders["t5"], "-o", out)
    assert not left.exists()


def test_a_missing_file_is_bad_input(out: Path) -> None:
    line = refusal(vli("convert", "no/such.pth", "--to", "adapter", "--backbone", "mini", "-o", out), 4, out)
    assert "cannot read checkpoint (no/such.pth): there is no such file" in line


@pytest.mark.parametrize("to", ["model", "merged"])
def test_a_missing_folder_is_refused(out: Path, to: str) -> None:
    more = ["--backbone", "mini"] if to == "merged" else []
    assert "(./none)" in refusal(vli("convert", "./none", "--to", to, *more, "-o", out), 5, out)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "eva.pth",
            "--to model takes one folder, and with it LAVIS's .pth files if there are any: FlanT5's or Vicuna's",
        ),
        ("eva.pth language language -o out", "got 1 files and 2 folders"),
        ("language bert -o out", "got 0 files and 2 folders"),
        ("eva.pth language -o out", "--qformer-tokenizer FOLDER is needed: LAVIS's files have no tokenizer. Get"),
        ("language --to adapter", "--to adapter takes .pth files and no folder"),
        ("eva.pth language --to adapter", "--to adapter takes .pth files and no folder"),
        ("eva.pth --to adapter", "--backbone is needed: the model that the checkpoint was made for"),
        ("language --to merged", "--backbone is needed: the model that the adapter was made for"),
        ("eva.pth --to merged --backbone mini", "--to merged takes one adapter folder; got 1 files and 0 folders"),
        ("language --ema", "--ema cannot be used here: this converts a model folder to another one"),
        ("language --qformer-tokenizer bert --config c", "--config, --qformer-tokenizer cannot be used here"),
        ("eva.pth --to adapter --backbone mini --dtype float16", "--dtype cannot be used here: this converts a checkp"),
        ("eva.pth --to adapter --backbone mini --config c", "--backbone and --config contradict each other"),
        ("language --max-shard-size huge", "--max-shard-size huge is no size. Give a number and a unit, e.g. 500MB"),
        ("language --max-shard-size 0", "is no size"),
        (f"language --max-shard-size {10**400}", "is no size"),
        ("language --max-shard-size 5GiB", "is no size"),
        ("language --dtype int8", "--dtype"),
        ("language --to onnx", "--to"),
        ("", "Missing argument"),
    ],
)
def test_a_command_line_that_contradicts_itself_is_usage(
    made: LavisFiles, monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    monkeypatch.chdir(made.config.parent)
    arguments = line.split() if "-o" in line.split() else [*line.split(), "-o", "out"]
    assert words in refusal(vli("convert", *arguments), 2, Path("out"))


def test_an_adapter_is_no_model(adapter: Callable[..., Path], out: Path) -> None:
    line = refusal(vli("convert", adapter(), "-o", out), 2, out)
    assert "is an adapter: --to merged --backbone FOLDER makes a model" in line


def test_the_shape_is_that_of_the_language_model_unless_it_is_given(made: LavisFiles, out: Path) -> None:
    line = ["convert", *made.files, made.language_model, "--qformer-tokenizer", made.bert, "-o", out]
    assert "no InstructBLIP is known with a t5 28 2" in refusal(vli(*line), 5, out)
    config = made.language_model / "config.json"
    config.write_text(json.dumps(BACKBONES["flant5-xl"].config()["text_config"]))
    assert "<image> gets the id 98, the configuration says 32100" in refusal(vli(*line), 5, out)
    (made.config).write_text("{")
    assert "config.json is damaged" in refusal(vli(*line, "--config", made.config), 5, out)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: torch.save({"model": {"a": np.float64(3)}}, path), "it holds more than tensors (numpy"),
        (lambda path: torch.save({"epoch": 3}, path), "no 'model' entry"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "truncated checkpoint"),
        (lambda path: path.write_bytes(b"<!doctype html>"), "a web page"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: torch.save({"model": {}}, path), "tensors do not fit the configuration"),
        (lambda path: torch.save({"model": {"t5_proj.bias": torch.zeros(28).int()}}, path), "language_projection.bias"),
    ],
)
def test_a_bad_checkpoint_is_refused(made: LavisFiles, out: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(made.files[0])
    line = refusal(vli("convert", *made.arguments, "-o", out), 5, out)
    assert words in line
    assert not list(out.parent.glob(".tmp-*"))


def test_a_full_disk_is_resources(tiny_folders: dict[str, Path], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vlinstruct.conversion.shard_writer._write_numbers", fail)
    line = refusal(vli("convert", tiny_folders["t5"], "-o", out), 6, out)
    assert "No space left on device. What was there is as it was" in line
    assert not list(out.parent.glob(".tmp-*"))
