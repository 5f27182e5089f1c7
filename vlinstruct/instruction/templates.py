"""The texts that instruction optimization sends to the model (appendix B).

A template comes from `templates.yaml` or a user's copy of it. The user's instruction goes in verbatim, in a single
pass: what a user types is never a format string and never read again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache

from vlinstruct.errors import DataError, joined, shortened
from vlinstruct.files import PathLike, read_regular
from vlinstruct.values import ScoredInstruction

# A user's file names the paper's four: a fifth without a default would make every file that exists incomplete.
TEMPLATE_FIELDS = {
    "rewrite": ("instruction",),
    "rewrite_seeing": ("instruction",),
    "score": (),
    "compare": ("candidates",),
    "compare_item": ("instruction", "ias"),
}
IAS_DECIMALS = 4

QUESTION_FIELD = "{question}"
"""Where an item's question goes in a user's template."""

MAX_FILE_BYTES = 64 * 1024
"""Far more than fits into a prompt."""

_MAX_WHY_CHARACTERS = 210  # leaves room for the file's name and an advice in the same line

# A word in braces, also with Python's formatting after it: `{ias:.2f}` is refused, not silently left as it is.
# Possessive (`*+`), since a brace that is never closed would otherwise take quadratic time.
_FIELD = re.compile(r"\{\s*+([A-Za-z_]\w*+)[^{}]*+\}")


def fill(template: str, **fields: str) -> str:
    """Puts the values into the template's fields, in one pass over the template.

    Args:
        template: a text with `{name}` fields.
        **fields: the value of each field, inserted verbatim.

    Returns:
        The filled-in text; braces of the values stay as they are.

    >>> fill("Rewrite {instruction}.", instruction="{ias} %s {0}")
    'Rewrite {ias} %s {0}.'
    """
    return _FIELD.sub(lambda match: fields[match[1]], template)


def pieces(template: str) -> list[str]:
    """Returns the template's own text: what stands before, between and after its fields.

    >>> pieces("Rewrite {instruction}.")
    ['Rewrite ', '.']
    """
    return _FIELD.split(template)[::2]


def written_ias(ias: float) -> str:
    """Writes an IAS as the comparison shows it: always four decimals.

    >>> written_ias(2.0)
    '2.0000'
    """
    return f"{ias:.{IAS_DECIMALS}f}"


@dataclass(frozen=True, kw_only=True)
class Templates:
    """The templates of algorithm 2, checked when they are made.

    Args:
        rewrite: asks the language model for a rewriting of {instruction} (appendix B.1).
        score: the text before a scored instruction (appendix B.2); ends without white space.
        compare: the in-context comparison of {candidates}.
        compare_item: one candidate: {instruction} and its {ias}, lower is better.
        rewrite_seeing: asks for a rewriting of {instruction} with the image before it; ours.

    Raises:
        DataError: a template is empty, surrounded by white space, or lacks a field or names an unknown one.
    """

    rewrite: str
    score: str
    compare: str
    compare_item: str
    rewrite_seeing: str = (
        "The instruction for this image is: {instruction} Please write it again, naming what is in the image."
    )

    def __post_init__(self) -> None:
        problems = [problem for name, text in asdict(self).items() for problem in _problems(name, text)]
        if problems:
            raise DataError(joined(problems, max_characters=_MAX_WHY_CHARACTERS))

    @classmethod
    @cache  # reading the file takes a quarter as long as an answer of mini
    def default(cls) -> Templates:
        """Returns the templates that ship with the package."""
        return cls._parsed(templates_source())

    @classmethod
    def load(cls, path: PathLike) -> Templates:
        """Reads a user's templates file.

        Args:
            path: a YAML file with the four keys of `templates.yaml`.

        Returns:
            The templates, without the white space around them.

        Raises:
            DataError: the file cannot be read or is no complete set of templates; names the file and every problem.
        """
        content = read_regular(path, kind="data", max_bytes=MAX_FILE_BYTES)
        try:
            return cls._parsed(content)
        except DataError as error:
            advice = "Start from a copy of the default templates"
            raise DataError.at("cannot use templates", path, error.message, advice) from error

    @classmethod
    def _parsed(cls, source: str | bytes) -> Templates:
        from vlinstruct.settings_file import parse_settings  # here, since it imports PyYAML

        return cls(**{name: text.strip() for name, text in parse_settings(source, cls).items()})

    def rewrite_prompt(self, instruction: str) -> str:
        """Returns what the language model alone reads to rewrite `instruction`."""
        return fill(self.rewrite, instruction=instruction)

    def rewrite_seeing_prompt(self, instruction: str) -> str:
        """Returns what the model reads, after the image, to rewrite `instruction`."""
        return fill(self.rewrite_seeing, instruction=instruction)

    def score_prompt(self) -> str:
        """Returns the text whose continuation the scored instruction is."""
        return self.score

    def compare_prompt(self, ranked: Sequence[ScoredInstruction]) -> str:
        """Returns the in-context comparison of the instructions in the order given: worst first, see `rank`."""
        items = [fill(self.compare_item, instruction=scored.text, ias=written_ias(scored.ias)) for scored in ranked]
        return fill(self.compare, candidates=" ".join(items))


def templates_source() -> str:
    """Returns `templates.yaml` as it ships, comments included: what a user copies and edits."""
    from importlib.resources import files

    return files("vlinstruct.instruction").joinpath("templates.yaml").read_text(encoding="utf-8")


def _problems(name: str, text: str) -> list[str]:
    """Returns what is wrong with one template; empty when nothing is."""
    if not isinstance(text, str):
        return [f"template {name!r} must be a text, got {type(text).__name__}"]
    if not text.strip():
        return [f"template {name!r} is empty"]
    problems = [] if text == text.strip() else [f"template {name!r} must not begin or end with white space"]
    if any("\ud800" <= char <= "\udfff" for char in text):
        problems.append(f"template {name!r} is not valid Unicode")
    return problems + _field_problems(name, text)


def _field_problems(name: str, text: str) -> list[str]:
    """Returns the fields that are missing or that this template does not have."""
    allowed = [f"{{{field}}}" for field in TEMPLATE_FIELDS[name]]
    used = [match[0] for match in _FIELD.finditer(text)]
    has = f"has {' and '.join(allowed)}" if allowed else "has no fields: the instruction follows it"
    unknown = [field for field in dict.fromkeys(used) if field not in allowed]
    missing = [field for field in allowed if field not in used]
    return [f"template {name!r} lacks {field}" for field in missing] + [
        f"template {name!r} contains {shortened(field, 40)}, but it {has}" for field in unknown
    ]
