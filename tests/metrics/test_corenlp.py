"""CoreNLP is run as pycocoevalcap runs it, and what Java does wrong is said. Where the real one is, it runs too."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vlinstruct.errors import ResourceError
from vlinstruct.metrics import captions
from vlinstruct.metrics.captions import CoreNlp, find_corenlp

GOLDEN = json.loads(Path(__file__).with_name("ptb_golden.json").read_text())
LINE_ENDS = ("\n", "\r", "\r\n", "\v", "\f", "\u2028", "\u2029", "\n\n")
needs_java = pytest.mark.skipif(find_corenlp() is None, reason="Java or pycocoevalcap is missing")


@pytest.fixture
def java(tmp_path: Path) -> Callable[[str], CoreNlp]:
    """A program in Java's place, written in Python; what it gets are the options and the lines."""

    def written(body: str) -> CoreNlp:
        path = tmp_path / "java"
        path.write_text(f"#!{sys.executable} -IS\nimport sys, time\n{body}\n")
        path.chmod(0o755)
        return CoreNlp(java=path, folder=tmp_path)

    return written


@pytest.fixture(scope="module")
def real() -> CoreNlp:
    found = find_corenlp()
    assert found is not None
    return found


def random_captions(rng: random.Random, count: int) -> list[str]:
    """Each starts with a small letter: what CoreNLP makes of a caption's end depends on the next one's first letter."""
    words = [word for caption, _ in GOLDEN for word in caption.split()]
    words += [
        "U.S.",
        "A.",
        "2 1/2",
        "(415) 555-1234",
        "<b>",
        "&lt;",
        "€5",
        "½",
        ":-)",
        "c++",
        "\x00",
        "\u00a0",
        "\u200b",
    ]
    ends = ["", " ", " ", "  ", ". ", ", ", "\n"]
    return [
        "a " + "".join(rng.choice(words) + rng.choice(ends) for _ in range(rng.randint(0, 12))) for _ in range(count)
    ]


@needs_java
def test_tokens_equal_those_of_the_golden_captions(real: CoreNlp) -> None:
    assert real.tokens([caption for caption, _ in GOLDEN]) == [tuple(tokens) for _, tokens in GOLDEN]


@needs_java
def test_tokens_equal_pycocoevalcaps_on_random_captions(real: CoreNlp) -> None:
    theirs = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer()
    captions = random_captions(random.Random(0), 500)
    found = theirs.tokenize({number: [{"caption": caption}] for number, caption in enumerate(captions)})
    assert real.tokens(captions) == [tuple(found[number][0].split()) for number in range(500)]


@needs_java
def test_the_tokens_of_a_caption_do_not_depend_on_the_others(real: CoreNlp) -> None:
    captions = [*random_captions(random.Random(1), 200), "this is plan B.", "A cat", "", "a cat"]
    order = random.Random(2).sample(range(len(captions)), k=len(captions))
    tokens = real.tokens(captions)
    assert real.tokens([captions[index] for index in order]) == [tokens[index] for index in order]
    assert [real.tokens([caption]) for caption in captions[-4:]] == [[one] for one in tokens[-4:]]


@needs_java
def test_text_that_is_no_utf_8_is_no_hindrance(real: CoreNlp) -> None:
    assert real.tokens(["", "\ud800", "a \udfff dog", "a dog"])[3] == ("a", "dog")


@needs_java
def test_lines_stay_with_their_captions(real: CoreNlp) -> None:
    captions = [*(f"{end}one{end}two{end}" for end in LINE_ENDS), "", "three"]
    assert real.tokens(captions) == [("one", "two")] * len(LINE_ENDS) + [(), ("three",)]


def test_the_options_are_pycocoevalcaps(java: Callable[[str], CoreNlp]) -> None:
    echo = java("options = '|'.join(sys.argv[1:])\nfor line in sys.stdin: print(options if line == 'x\\n' else '.')")
    (options,) = echo.tokens(["x"])[0]
    assert options == ("-cp|stanford-corenlp-3.4.1.jar|edu.stanford.nlp.process.PTBTokenizer|-preserveLines|-lowerCase")


def test_its_list_of_punctuation_is_left_out(java: Callable[[str], CoreNlp]) -> None:
    echo = java("for line in sys.stdin: print(line.rstrip())")
    left_out = "'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;"
    assert echo.tokens([f'a {left_out} b -lrb- -rrb- ?! !! .. "']) == [
        ("a", "b", "-lrb-", "-rrb-", "?!", "!!", "..", '"')
    ]
    assert echo.tokens([left_out, ""]) == [(), ()]


def test_a_token_with_a_no_break_space_is_two_words(java: Callable[[str], CoreNlp]) -> None:
    echo = java("sys.stdout.buffer.write(sys.stdin.buffer.read())")
    assert echo.tokens(["2\u00a01/2 cups"]) == [("2", "1/2", "cups")]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit(1)", "it ended with exit code 1"),
        ("import os; os.kill(os.getpid(), 9)", "it ended with exit code -9"),
        ("sys.stdin.read(); print('a'); print('.')", "it gave back other lines than it was given"),
        ("sys.stdin.read(); print('a\\n.\\nb\\n')", "it gave back other lines than it was given"),
        ("sys.stdin.read(); print('a\\n.\\nb\\n.\\nc')", "it gave back other lines than it was given"),
        ("sys.stdin.read(); sys.stdout.buffer.write(b'\\xff' * 9)", "it gave back other lines than it was given"),
        ("", "it gave back other lines than it was given"),
        ("time.sleep(60)", "it took longer than 0.2 seconds"),
    ],
)
def test_what_java_does_wrong_is_said(
    java: Callable[[str], CoreNlp], monkeypatch: pytest.MonkeyPatch, body: str, why: str
) -> None:
    if "sleep" in body:
        monkeypatch.setattr(captions, "_TIMEOUT_S", 0.2)
    broken = java(body)
    with pytest.raises(ResourceError) as caught:
        broken.tokens(["a", "b"])
    expected = f"cannot run Stanford CoreNLP ({broken.java}): {why}. Take another Java, or none"
    assert caught.value.message == expected


def test_a_program_that_does_not_start_is_said(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="it cannot be started"):
        CoreNlp(java=tmp_path / "java", folder=tmp_path).tokens(["a"])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A Java on the PATH and a package with the jar, neither of which is one."""
    program, jar = tmp_path / "bin" / "java", tmp_path / "site" / "pycocoevalcap" / "tokenizer" / captions._JAR
    for path in (program, jar, jar.parents[1] / "__init__.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise AssertionError('imported')")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    return program, jar


def test_java_and_the_jar_are_found_and_nothing_is_imported(installed: tuple[Path, Path]) -> None:
    program, jar = installed
    assert find_corenlp() == CoreNlp(java=program, folder=jar.parent)
    assert "pycocoevalcap" not in sys.modules


@pytest.mark.parametrize("missing", ["java", "the jar", "the package"])
def test_where_one_of_them_is_missing_there_is_none(
    installed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    program, jar = installed
    if missing == "the package":
        monkeypatch.setattr(sys, "path", [])
    else:
        (program if missing == "java" else jar).unlink()
    assert find_corenlp() is None
