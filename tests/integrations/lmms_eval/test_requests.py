"""Which `<image>` is lmms-eval's, and what chat messages say."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

from vlinstruct.integrations.lmms_eval import requests
from vlinstruct.integrations.lmms_eval.requests import parts_of, without_placeholders


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("<image>\nWhat is it?", "What is it?"),
        ("<image> What is it?", "What is it?"),
        ("<image><image>\nWhat?", "What?"),
        ("What is it?\n<image>", "What is it?"),
        ("What is it?\n<image>\nAnswer:", "What is it?\nAnswer:"),
        ("Question: <image>\nWhat is it?", "Question:\nWhat is it?"),
        ("What does <image> do in HTML?", "What does <image> do in HTML?"),
        ("<image>\nWhy does <image> fail?", "Why does <image> fail?"),
        ("Is it <image> or <img>?", "Is it <image> or <img>?"),
        ("no placeholder\n\n", "no placeholder\n\n"),
    ],
)
def test_only_placeholders_of_lmms_eval_go(context: str, expected: str) -> None:
    assert without_placeholders(context) == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "hello"}], ([], "hello")),
        (
            [
                {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
                {"role": "user", "content": [{"type": "image", "url": "a.png"}, {"type": "text", "text": "What?"}]},
            ],
            (["a.png"], "Be short.\nWhat?"),
        ),
        ([{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}], (["a.mp4"], "")),
    ],
)
def test_messages_are_pictures_and_lines(messages: list[dict[str, Any]], expected: tuple[list[object], str]) -> None:
    assert parts_of(messages) == expected


def test_examples_are_true() -> None:
    assert doctest.testmod(requests).failed == 0
