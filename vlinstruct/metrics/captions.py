"""PTB tokens of a table's captions: by Stanford CoreNLP 3.4.1 where it can be run, else by our own rules.

In: all captions and references of a table. Out: the tokens of each, and which tokenizer served all of them: since the
two differ on some captions, no table is made with both.

CoreNLP runs as pycocoevalcap 1.2's PTBTokenizer runs it. It needs Java, and pycocoevalcap for the jar in its folder;
the package itself is never imported.

Where we differ: CoreNLP looks at the first letter of the next line, so that in pycocoevalcap "plan b." keeps its period
or not by the caption that happens to follow. Here a line of our own follows each, and a caption has the tokens that
pycocoevalcap gives it alone. Of all that CoreNLP takes for the end of a line, pycocoevalcap replaces the newline only,
so that a carriage return in a caption moves all captions after it; here all of them are spaces.

Our own rules follow what pycocoevalcap 1.2 makes of a caption: CoreNLP with `-lowerCase`, then a list of punctuation
left out. Brackets stay, as `-lrb-` and the like: CoreNLP writes them in lower case, the list has them in upper case.
`?!` and `!!` stay too, since they are not on the list. Not followed are emoticons, HTML tags, fractions (`½`),
currencies (`€5` is `$ 5` there), names with symbols (`c++`) and rarer abbreviations.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from vlinstruct.errors import ResourceError

Tokens = tuple[str, ...]
"""The words of one caption; a tuple, so that a caption that nobody tokenized is no `Tokens`."""
CaptionTokenizer = Literal["stanford-corenlp-3.4.1", "built-in"]
_JAR = "stanford-corenlp-3.4.1.jar"
_OPTIONS = ("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase")
_TIMEOUT_S = 180.0
"""A start takes half a second, and 200,000 captions 15 s on a busy machine; NoCaps has 45,000 references."""

_LINE_ENDS = str.maketrans(dict.fromkeys("\n\r\v\f\u2028\u2029", " "))
_SEPARATOR = "."
# pycocoevalcap's list as it stands: CoreNLP writes brackets in lower case, so they are not left out.
_CORENLP_PUNCTUATION = frozenset(
    {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
)


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Tokenized captions.

    Args:
        tokens: by the text of the caption.
        tokenizer: what tokenized all of them: CoreNLP, or `ptb_tokens`, which is built in.
    """

    tokens: Mapping[str, Tokens]
    tokenizer: CaptionTokenizer


def tokenized(texts: Iterable[str], notify: Callable[[str], None] = lambda notice: None) -> Captions:
    """Tokenizes captions, all of them by the same tokenizer.

    Args:
        texts: captions and references, in any order.
        notify: is told when Java is here and failed.

    >>> captions = tokenized(["A dog.", "A cat!", "A dog."])
    >>> captions.tokens["A dog."], len(captions.tokens)
    (('a', 'dog'), 2)
    """
    # One start of Java for all, which takes half a second, and equal captions once.
    distinct = list(dict.fromkeys(texts))
    corenlp = find_corenlp() if distinct else None
    if corenlp is not None:
        try:
            tokens = dict(zip(distinct, corenlp.tokens(distinct), strict=True))
            return Captions(tokens=tokens, tokenizer="stanford-corenlp-3.4.1")
        except ResourceError as error:  # no score is lost for want of Java; the table says which tokenizer it was
            notify(f"captions are tokenized by the built-in rules: {error.message}")
    return Captions(tokens={text: ptb_tokens(text) for text in distinct}, tokenizer="built-in")


@dataclass(frozen=True, kw_only=True)
class CoreNlp:
    """A CoreNLP that can be run.

    Args:
        java: the program.
        folder: where the jar is.
    """

    java: Path
    folder: Path

    def tokens(self, captions: Sequence[str]) -> list[Tokens]:
        """Tokenizes captions in one run of Java.

        Args:
            captions: as written by people or models; a newline is a space.

        Returns:
            Per caption its lower-case tokens without punctuation.

        Raises:
            ResourceError: Java does not start, fails, takes too long, or leaves lines out.
        """
        # A line of our own follows each caption: CoreNLP decides about a final period by the letter that comes next.
        lines = [line for caption in captions for line in (caption.translate(_LINE_ENDS), _SEPARATOR)]
        output = [line.rstrip() for line in self._run(lines).split("\n")]
        if output[1::2] != [_SEPARATOR] * len(captions):
            raise self._error("it gave back other lines than it was given")
        # The inner split and join follow pycocoevalcap's scorer, which parts a token at the no-break space in it.
        return [
            tuple(" ".join(word for word in line.split(" ") if word not in _CORENLP_PUNCTUATION).split())
            for line in output[: len(lines) : 2]
        ]

    def _run(self, lines: Sequence[str]) -> str:
        text = "".join(f"{line}\n" for line in lines).encode(errors="replace")  # a lone surrogate is no UTF-8
        command = [str(self.java), "-cp", _JAR, *_OPTIONS]
        try:
            process = subprocess.run(command, input=text, capture_output=True, cwd=self.folder, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise self._error(f"it took longer than {_TIMEOUT_S:g} seconds") from error
        except OSError as error:
            raise self._error("it cannot be started") from error
        if process.returncode:
            raise self._error(f"it ended with exit code {process.returncode}")
        return process.stdout.decode(errors="replace")

    def _error(self, why: str) -> ResourceError:
        return ResourceError.at("cannot run Stanford CoreNLP", self.java, why, "Take another Java, or none")


def find_corenlp() -> CoreNlp | None:
    """Returns CoreNLP where Java is on the PATH and pycocoevalcap is installed, else None."""
    java, package = shutil.which("java"), find_spec("pycocoevalcap")
    if java is None or package is None:
        return None
    # `find_spec` does not import it: only the jar in its folder is used.
    folders = [Path(location).absolute() / "tokenizer" for location in package.submodule_search_locations or ()]
    with_jar = next((folder for folder in folders if (folder / _JAR).is_file()), None)
    return None if with_jar is None else CoreNlp(java=Path(java).absolute(), folder=with_jar)


_PUNCTUATION = frozenset("'`.?!,:-;")
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_TYPOGRAPHY = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "--", "\u2014": "--", "\u2026": "..."}
)

_TOKEN = re.compile(
    r"""
      https?://\S*[^\s.,;:!?)'"]
    | (?: (?:mr|mrs|ms|dr|drs|prof|sen|rep|lt|col|gen|gov|rev|sgt|cpl|capt|st|mt|ave|blvd|rd|jr|sr|etc|vs|inc|co|corp
        |ltd|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tue|wed|thu|fri|ft|dept|est|bros|ph\.d) \. (?!\w)
      | (?: [^\W\d_]\. )+ (?!\w) )                     # an abbreviation keeps its period: u.s., p.m., st.
    | (?-i: [A-Z]+ (?: &[A-Z]+ )+ )                    # R&B
    | (?: can(?=not\b) | gon(?=na\b) | wan(?=na\b) | got(?=ta\b) | gim(?=me\b) | lem(?=me\b)
      | 't(?=is\b|was\b) | y'(?=all\b|know\b) )        # the first half of two words written as one
    | '(?:s|m|d|ll|re|ve)\b | 'n' | 'n(?!\w) | '(?:em|cause)\b | '\d0s\b
    | (?: [#@](?=[^\W\d_]) | (?<!\S)-(?=\.?\d) | (?<!\S)\.(?=\d) )? [^\W_]
      (?: (?! n't\b | '(?:s|m|d|ll|re|ve)\b | 'n' )    # a word ends before its clitic
        (?: \w | [-/.@](?=[^\W_]) | (?<=[^\W\d_])'(?=[^\W\d_]) | (?<=\d)[,:](?=\d) ) )*
    | \.{2,} | -{2,} | [?!]+ | [^\s"]
    """,
    re.VERBOSE | re.IGNORECASE,
)
_DOTS_OR_DASHES = re.compile(r"\.{2,}|-{2,}")
_BEYOND_BMP = re.compile("[\U00010000-\U0010ffff]")


def ptb_tokens(caption: str) -> Tokens:
    """Splits a caption into lower-case PTB tokens without punctuation.

    Args:
        caption: as written by a person or a model; a newline is a space.

    Returns:
        The tokens, none for a caption of punctuation alone.

    >>> ptb_tokens("The man's dog can't sit (still).")
    ('the', 'man', "'s", 'dog', 'ca', "n't", 'sit', '-lrb-', 'still', '-rrb-')
    """
    # CoreNLP drops characters beyond the basic plane, emoji among them.
    text = _BEYOND_BMP.sub(" ", caption.replace("&amp;", "&").translate(_TYPOGRAPHY))
    tokens = (_BRACKETS.get(token, token.lower()) for token in _TOKEN.findall(text))
    return tuple(token for token in tokens if token not in _PUNCTUATION and not _DOTS_OR_DASHES.fullmatch(token))
