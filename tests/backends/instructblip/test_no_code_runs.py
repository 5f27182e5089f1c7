"""No file of a model's folder runs code, whatever it asks for; a native library's panic is one line."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch

import vlinstruct
from vlinstruct.backends.instructblip.load import load_model
from vlinstruct.backends.instructblip.tokenization import named_failures, read_tokenizer
from vlinstruct.backends.registry import find_adapter
from vlinstruct.errors import CheckpointError

SOURCES = sorted(Path(vlinstruct.__file__).parent.rglob("*.py"))
LOADERS = {"from_pretrained", "load_dataset", "from_config"}


@pytest.fixture
def folder(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folders["t5"], tmp_path / "model"))


def test_every_call_that_could_run_a_folders_code_forbids_it() -> None:
    calls = [
        (path, node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADERS
    ]
    assert len(calls) >= 3
    for path, call in calls:
        values = {word.arg: word.value for word in call.keywords}
        forbidden = values.get("trust_remote_code")
        assert isinstance(forbidden, ast.Constant), f"{path}:{call.lineno}"
        assert forbidden.value is False


def with_code(tokenizer: Path, canary: Path) -> None:
    """A tokenizer that transformers can build by running a file of its folder only."""
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    code = f"open({str(canary)!r}, 'w')\nfrom transformers import BertTokenizerFast as Tok\n"
    (tokenizer / "tok.py").write_text(code)
    settings = {"tokenizer_class": "Tok", "auto_map": {"AutoTokenizer": ["tok.Tok", "tok.Tok"]}}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))


def test_a_tokenizer_with_code_is_refused_and_nothing_asks_for_consent(folder: Path, tmp_path: Path) -> None:
    with_code(folder / "qformer_tokenizer", tmp_path / "canary")
    for attempt in (
        lambda: load_model(folder, device=torch.device("cpu"), dtype=torch.float32),
        lambda: read_tokenizer(folder / "qformer_tokenizer"),
    ):
        with pytest.raises(CheckpointError, match="asks for code of its own"):
            attempt()
    assert not (tmp_path / "canary").exists()


def test_an_adapter_with_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(CheckpointError, match="asks for code of its own"):
        find_adapter(str(tmp_path))


def change(path: Path, **changes: object) -> None:
    values = json.loads(path.read_text())
    for name, value in changes.items():
        part, _, field = name.partition("__")
        if field:
            values[part][field] = value
        else:
            values[part] = value
    path.write_text(json.dumps(values))


def test_a_tokenizer_that_panics_over_one_text_fails_in_one_line(folder: Path) -> None:
    catastrophe = {"type": "Split", "pattern": {"Regex": "^(a+)+$"}, "behavior": "Isolated", "invert": False}
    change(folder / "tokenizer.json", pre_tokenizer=catastrophe)
    tokenizer = load_model(folder, device=torch.device("cpu"), dtype=torch.float32).tokenizer
    assert len(tokenizer.encode("red")) > 0
    with pytest.raises(CheckpointError, match="the tokenizer failed over this text"):
        tokenizer.encode("a" * 44 + "!")


def test_only_what_a_library_raised_becomes_its_line() -> None:
    class PanicException(BaseException):
        pass

    for raised in (PanicException("panicked"), ValueError("bad")):
        with pytest.raises(CheckpointError, match="it failed: "), named_failures("it failed"):
            raise raised
    for passed in (KeyboardInterrupt(), SystemExit(3), CheckpointError("of ours")):
        with pytest.raises(type(passed)) as caught, named_failures("it failed"):
            raise passed
        assert caught.value is passed
