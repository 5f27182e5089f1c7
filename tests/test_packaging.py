"""What pyproject.toml says of dependencies agrees with itself: nobody keeps the same bound in two places in mind."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: [Requirement(text) for text in texts] for name, texts in PROJECT["optional-dependencies"].items()}
# A cluster's, the developers', and what all is made of.
APART = {"ray", "test", "browser", "photographs", "all"}
# Other families need a newer transformers than InstructBLIP, which is tested with an older one, too.
NEWER = {("vlm", "transformers")}


def test_all_is_every_extra_that_a_machine_can_use() -> None:
    (requirement,) = EXTRAS["all"]
    assert requirement.name == PROJECT["name"]
    assert requirement.extras == EXTRAS.keys() - APART


def test_a_package_has_the_same_bounds_wherever_it_is_named() -> None:
    bounds = {requirement.name: str(requirement.specifier) for requirement in map(Requirement, PROJECT["dependencies"])}
    for name, requirements in EXTRAS.items():
        for requirement in requirements:
            if (name, requirement.name) not in NEWER:
                assert str(requirement.specifier) == bounds.setdefault(requirement.name, str(requirement.specifier)), (
                    name
                )


def test_tests_have_every_package_that_an_extra_brings() -> None:
    """But for what is tried apart: what the words in pictures are read with, and a newer transformers."""
    tested = {requirement.name for requirement in (*EXTRAS["test"], *map(Requirement, PROJECT["dependencies"]))}
    needed = {requirement.name for name in EXTRAS.keys() - APART for requirement in EXTRAS[name]}
    assert needed - tested == {"rapidocr", "onnxruntime"}
