"""What README and the rooms' documents say is true: blocks run, commands, options, links and files exist."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest
import typer
from command_line import vli

import vlinstruct
from vlinstruct.cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", ".github/*.md", "vlinstruct/**/*.md", "examples/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
    if not path.relative_to(ROOT).is_relative_to("vlinstruct/mini/adapters")  # cards that finetune wrote
)
# examples/pretrain_mini has scripts with options of their own.
ROOMS = [path for path in DOCUMENTS if path.name in ("README.md", "CONTRIBUTING.md") and "examples" not in path.parts]
# Of `pip`, `torchrun`, `hf` and others whose commands the documents show.
FOREIGN_OPTIONS = {"--help", "--version", "--no-deps", "--index-url", "--nproc-per-node", "--local-dir", "--python"}
FOREIGN_OPTIONS |= {"--enable-scale-out", "--enable-prompt-tokens-details", "--gpu-memory-utilization"}  # vLLM's

PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
CODE_BLOCK = re.compile(r"^(?: {4}.*\n)+", re.MULTILINE)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def options() -> Mapping[str, set[str]]:
    """Every command's options."""
    group = typer.main.get_command(app)
    commands: Mapping[str, click.Command] = getattr(group, "commands")  # noqa: B009
    return {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in commands.items()
    }


def shown_commands(text: str) -> Iterator[list[str]]:
    """The words of every `vlinstruct ...` that a document shows, as a block's line or inside a sentence."""
    lines = [line.strip() for block in CODE_BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    for shown in [*lines, *CODE_SPAN.findall(text)]:
        for command in re.findall(r"(?:^(?:\$ )?|/bin/|-m )vlinstruct ([a-z][a-z-]*\b[^)|>&;#]*)", shown):
            yield command.split()


@pytest.fixture
def in_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder where the examples stand, and what a block writes is thrown away."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)


def test_the_readme_is_a_page() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.usefixtures("in_a_copy")
@pytest.mark.parametrize("block", PYTHON.findall(README))
def test_a_python_block_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With one epoch and two items in place of many: what they answer is examples/finetune.py's matter."""
    block = re.sub(r"(num_train_epochs)=\d+", r"\1=1", re.sub(r"(limit)=\d+", r"\1=2", block))
    exec(compile(block, "README.md", "exec"), {"vli": vlinstruct})
    assert len(capsys.readouterr().out.splitlines()) >= block.count("print(")


def test_the_first_command_answers_as_the_readme_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"^    \.venv/bin/pip install \. && \.venv/bin/vlinstruct (ask .*)$", README, re.MULTILINE)
    result = vli(*shlex.split(command))
    without = vli(*shlex.split(command.removesuffix(" -O")))
    said = f"It prints `{result.text.strip()}`; without `-O` it prints `{without.text.strip()}`, which is wrong."
    assert said in README
    assert (result.stderr, without.stderr) == ("", "")


def test_the_picture_and_its_block_are_what_optimize_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the last decimals, which another processor may round otherwise."""
    monkeypatch.chdir(ROOT)
    (command, shown) = re.findall(r"^    \$ vlinstruct (optimize .*)\n((?: {4}.+\n)+)", README, re.MULTILINE)[0]
    printed = vli(*shlex.split(command)).text
    number = re.compile(r"\d\.\d{4}")
    assert number.sub("#", printed).split() == number.sub("#", shown).split()
    expected = [float(text) for text in number.findall(shown)]
    assert [float(text) for text in number.findall(printed)] == pytest.approx(expected, abs=0.01)
    typed, chosen = re.findall(r"^answer +(.+?)  \((?:as typed|chosen), certainty (.+?)[,)]", printed, re.MULTILINE)
    assert typed[0] != chosen[0] == "yes", "what is shown is a gain"
    assert float(typed[1]) < float(chosen[1])
    picture = (ROOT / "examples" / "pictures" / "optimize.svg").read_text(encoding="utf-8")
    assert all(f">{round(ias, 2):.2f}<" in picture for ias in expected[:3])


def test_the_test_command_is_the_one_that_the_checks_run() -> None:
    assert len(re.findall(r"^ *python3 -m venv .* -m pytest$", README, re.MULTILINE)) == 1


def test_the_readme_lists_every_command_in_a_short_line() -> None:
    lines = re.findall(
        r"^    (vlinstruct ([a-z-]+) +.*)$", README.split("## Commands")[1].split("\n## ")[0], re.MULTILINE
    )
    assert sorted(name for _, name in lines) == sorted(options())
    assert max(len(line) for line, _ in lines) <= 80


@pytest.mark.parametrize("document", ROOMS, ids=relative)
def test_every_command_and_option_of_a_document_exists(document: Path) -> None:
    text, known = document.read_text(encoding="utf-8"), options()
    for name, *words in shown_commands(text):
        assert name in known, f"vlinstruct {name}"
        assert {word for word in words if OPTION.fullmatch(word)} <= known[name] | FOREIGN_OPTIONS, [name, *words]
    named = {option for span in CODE_SPAN.findall(text) if span.startswith("--") for option in OPTION.findall(span)}
    assert named <= set().union(*known.values()) | FOREIGN_OPTIONS


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


@pytest.mark.parametrize("document", [*ROOMS, ROOT / "vlinstruct" / "evaluation" / "RESULTS.md"], ids=relative)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    """Seen from the document's folder, the repository's or the package's; `DIR/NAME/` is a placeholder."""
    starts = (document.parent, ROOT, ROOT / "vlinstruct")
    for span in CODE_SPAN.findall(document.read_text(encoding="utf-8")):
        if re.fullmatch(r"\.?[a-z_][\w.]*(/[\w.]+)+(\.(py|yaml|md)|/)", span):
            assert any((start / span).exists() for start in starts), span


def test_the_design_shows_the_layers_that_are_checked() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = [
        contract["layers"] for contract in pyproject["tool"]["importlinter"]["contracts"] if "layers" in contract
    ]
    design = (ROOT / "vlinstruct" / "README.md").read_text(encoding="utf-8").split("\n## Layers")[1].split("\n## ")[0]
    (block,) = CODE_BLOCK.findall(design)
    assert [line.strip() for line in block.splitlines()] == [layer.replace("vlinstruct.", "") for layer in layers]


def test_every_document_that_code_names_is_in_the_repository() -> None:
    names = {path.name for path in DOCUMENTS}
    for folder in ("vlinstruct", "tests", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            named = re.findall(r"\b([A-Z][A-Z_]+\.md)\b", path.read_text(encoding="utf-8"))
            assert set(named) <= names, relative(path)


def test_every_test_that_the_tests_own_readme_names_exists() -> None:
    """Its table joins what the program must survive with the tests that say so."""
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "tests" / "README.md").read_text(encoding="utf-8")))
    defined = {
        (file, node.name)
        for file in {file for file, _ in named}
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(named) > 100
    assert named - defined == set()
