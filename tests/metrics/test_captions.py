"""All captions of a table are tokenized by one tokenizer, the exact one where it runs; it never stops a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from vlinstruct.errors import ResourceError
from vlinstruct.evaluation.benchmarks.mini import TASKS, items
from vlinstruct.metrics import captions
from vlinstruct.metrics.captions import Tokens, find_corenlp, ptb_tokens, tokenized

GOLDEN = json.loads(Path(__file__).with_name("ptb_golden.json").read_text())


class Fake:
    """CoreNLP's place, which counts its runs."""

    def __init__(self, error: ResourceError | None = None) -> None:
        self.calls: list[Sequence[str]] = []
        self.error = error

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        self.calls.append(texts)
        if self.error is not None:
            raise self.error
        return [(text, "theirs") for text in texts]


def test_equal_captions_are_tokenized_once_and_all_in_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(captions, "find_corenlp", lambda: fake)
    found = tokenized(iter(["b", "a", "b", ""]))
    assert fake.calls == [["b", "a", ""]]
    assert found.tokens == {text: (text, "theirs") for text in ("b", "a", "")}
    assert found.tokenizer == "stanford-corenlp-3.4.1"


def test_without_java_the_built_in_rules_serve_and_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "find_corenlp", lambda: None)
    said: list[str] = []
    found = tokenized([caption for caption, _ in GOLDEN], said.append)
    assert found.tokens == {caption: tuple(tokens) for caption, tokens in GOLDEN}
    assert (found.tokenizer, said) == ("built-in", [])


def test_where_java_fails_the_built_in_rules_serve_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        captions, "find_corenlp", lambda: Fake(ResourceError.at("cannot run it", "java", "why", "Do that"))
    )
    said: list[str] = []
    found = tokenized(["A dog's."], said.append)
    assert found.tokens == {"A dog's.": ("a", "dog", "'s")}
    assert found.tokenizer == "built-in"
    assert said == ["captions are tokenized by the built-in rules: cannot run it (java): why. Do that"]


def test_no_captions_start_no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(captions, "find_corenlp", lambda: fake)
    assert tokenized([]).tokens == {}
    assert fake.calls == []


@pytest.mark.skipif(find_corenlp() is None, reason="Java or pycocoevalcap is missing")
def test_minis_captions_have_the_same_tokens_by_either() -> None:
    """So its table has the same numbers with Java and without."""
    drawn = [item.references[0] for task in TASKS if task.metric == "cider" for item in items(task, 300)]
    assert len(drawn) == 600
    found = tokenized(drawn)
    assert found.tokenizer == "stanford-corenlp-3.4.1"
    assert found.tokens == {caption: ptb_tokens(caption) for caption in drawn}
