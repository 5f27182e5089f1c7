"""Whichever tokenizer served a table's captions, it served all of them, and the table says which it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import vli

from vlinstruct.evaluation.benchmark import Task
from vlinstruct.evaluation.report.table import Cell, read_table
from vlinstruct.metrics import captions
from vlinstruct.metrics.captions import CoreNlp, Tokens, find_corenlp, ptb_tokens
from vlinstruct.metrics.cider import cider

FLICKR = Task(name="flickr30k", metric="cider")
GQA = Task(name="gqa", metric="accuracy")
REFERENCES = (["A dog runs.", "The dog ran in snow"], ["Two cats sleep!"], ["A man's red bike"])
ANSWERS = {"initial": ["a dog runs", "cats sleep", "a man"], "rewritten": ["a dog", "two cats sleep", "a red bike"]}


class Counting:
    """CoreNLP's place: tokens of one letter fewer, and a count of the runs."""

    num_runs = 0

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        self.num_runs += 1
        assert len(texts) == len(set(texts))
        return [shorter(text) for text in texts]


def shorter(text: str) -> Tokens:
    return tuple(word[:-1] for word in ptb_tokens(text))


def write(folder: Path, task: str) -> None:
    """Two models, the second of which answers as the first does to the rewritten instruction."""
    records = []
    for model in ("a", "b"):
        for number, references in enumerate(REFERENCES):
            said = {role: {"text": role, "ias": 1.0, "answer": ANSWERS[role][number]} for role in ANSWERS}
            initial = said["initial"] if model == "a" else said["rewritten"]
            roles = {**said, "initial": initial, "optimized": said["rewritten"]}
            head = {"id": f"{model}/canonical/{task}-{number}", "task": task, "references": references}
            records.append({**head, **roles, "chosen": "optimized", "reason": "why"})
    (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    (folder / "times.jsonl").write_text("")


@pytest.mark.parametrize("tokenizer", ["built-in", "stanford-corenlp-3.4.1"])
def test_all_cells_are_scored_on_the_tokens_of_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str
) -> None:
    counting = Counting()
    monkeypatch.setattr(captions, "find_corenlp", lambda: None if tokenizer == "built-in" else counting)
    write(tmp_path, "flickr30k")
    table = read_table(tmp_path, [FLICKR], ["a", "b"], seed=0)
    assert table.caption_tokenizer == tokenizer
    assert counting.num_runs == (tokenizer != "built-in")
    split = ptb_tokens if tokenizer == "built-in" else shorter
    references = [[split(text) for text in row] for row in REFERENCES]
    expected = {role: cider([split(text) for text in ANSWERS[role]], references).mean for role in ANSWERS}
    assert expected["initial"] != expected["rewritten"]
    for cell, role in (
        (Cell("a", "canonical", "plain"), "initial"),
        (Cell("a", "canonical", "AIO paper"), "rewritten"),
        (Cell("b", "canonical", "plain"), "rewritten"),
    ):
        assert table.task_score(cell, "flickr30k").value == pytest.approx(expected[role])


def test_a_table_without_captions_names_no_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "find_corenlp", Counting)
    write(tmp_path, "gqa")
    with np.errstate(all="ignore"):
        assert read_table(tmp_path, [GQA], ["a", "b"], seed=0).caption_tokenizer is None


def evaluated(folder: Path, *options: str) -> Any:
    small = ("--backbone", "mini", "--device", "cpu", "--limit", "4", "--split", "test")
    return vli("evaluate", "mini/flickr30k", "mini/vizwiz", *small, "-o", folder, *options)


def test_the_record_the_lines_and_the_page_say_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "find_corenlp", lambda: None)
    (record,) = evaluated(tmp_path, "--json").records
    assert record["caption_tokenizer"] == "built-in"
    assert record["vqa_normalizer"] == "official"
    lines = evaluated(tmp_path).text.splitlines()
    assert {"vqa normalizer: official", "caption tokenizer: built-in"} <= set(lines)
    page = (tmp_path / "report.html").read_text()
    assert "<dt>captions are tokenized by</dt><dd>rules of our own</dd>" in page


def test_a_java_that_fails_costs_a_notice_and_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!{sys.executable} -IS\nraise SystemExit(3)\n")
    java.chmod(0o755)
    monkeypatch.setattr(captions, "find_corenlp", lambda: None)
    (without,) = evaluated(tmp_path / "run", "--json").records
    monkeypatch.setattr(captions, "find_corenlp", lambda: CoreNlp(java=java, folder=tmp_path))
    result = evaluated(tmp_path / "run", "--json")
    assert result.records == [without]
    (line,) = [line for line in result.lines if "tokenized" in line]
    assert line.startswith("notice: captions are tokenized by the built-in rules: cannot run Stanford CoreNLP (")
    assert "it ended with exit code 3" in line


@pytest.mark.skipif(find_corenlp() is None, reason="Java or pycocoevalcap is missing")
def test_minis_table_with_java_differs_in_the_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (by_java,) = evaluated(tmp_path, "--json").records
    monkeypatch.setattr(captions, "find_corenlp", lambda: None)
    (built_in,) = evaluated(tmp_path, "--json").records
    assert by_java == {**built_in, "caption_tokenizer": "stanford-corenlp-3.4.1"}
