"""What Tab offers in place of a value."""

from __future__ import annotations

import subprocess
import sys

import pytest
from command_line import vli


def offered(monkeypatch: pytest.MonkeyPatch, *typed: str) -> list[str]:
    monkeypatch.setenv("_VLINSTRUCT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(["vlinstruct", *typed]))
    monkeypatch.setenv("COMP_CWORD", str(len(typed)))
    return vli().stdout.decode().split()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("ask", "--backbone", "flant5"), ["flant5-xl", "flant5-xxl"]),
        (("backbones", "vicuna"), ["vicuna-7b", "vicuna-13b"]),
        (("ask", "--adapter", "mini-llama"), ["mini-llama-projection", "mini-llama-ema"]),
        (("evaluate", "gqa", "--adapter", "mini-e"), ["mini-ema"]),
        (("evaluate", "text"), ["textvqa"]),
        (("evaluate", "mini/vi"), ["mini/vizwiz", "mini/visdial"]),
        (("ask", "--columns", "image=file,q"), ["image=file,question="]),
        (("finetune", "--columns", "a"), ["answer="]),
        (("ask", "--select", "a"), ["agree"]),
    ],
)
def test_tab_offers_the_names_that_are_known(
    typed: tuple[str, ...], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(offered(monkeypatch, *typed)) == sorted(expected)


def test_behind_the_sign_at_which_bash_parts_words_nothing_wrong_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered(monkeypatch, "ask", "--columns", "im") == ["image="]
    assert offered(monkeypatch, "ask", "--columns", "image", "=", "file,q") == []


def test_where_no_name_begins_so_nothing_is_offered_and_the_shell_completes_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert offered(monkeypatch, "ask", "--backbone", "./models/") == []


def test_to_complete_imports_nothing_heavy() -> None:
    calls = "[f('m') for f in (c.backbone_names, c.adapter_names, c.benchmark_names)]"
    heavy = "{'torch', 'transformers', 'rich'} & set(sys.modules)"
    code = f"import sys; import vlinstruct.cli.completion as c; assert all({calls}); print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
