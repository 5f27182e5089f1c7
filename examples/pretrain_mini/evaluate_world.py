"""Measures a model on mini's world: `python -m pretrain_mini.evaluate_world [--split dev] [--scenes N]`.

Prints Markdown tables: shares with 95 % Wilson intervals on fonts, words and wordings that training never sees.
Tune on dev: test is for what is reported. The shipped weights' tables stand in `vlinstruct/mini/CARD.md`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import vlinstruct as vli
from pretrain_mini.evaluate_answers import (
    answer_all,
    family_shares,
    held_out_scenes,
    read_in_canonical_words,
    reading_curve,
    reading_shares,
)
from pretrain_mini.evaluate_instructions import Words, comparison_shares, likelihoods
from pretrain_mini.evaluate_people import rewriting_shares
from pretrain_mini.report import save_reading_curve, table
from vlinstruct.mini import Split

_FEWER = 500
_CURVE_ITEMS = 100
_WORDS: tuple[Words, ...] = ("canonical", "drawn")


def evaluate(backbone: str, split: Split, num_scenes: int, curve: Path | None) -> str:
    """Returns the report on a model.

    Args:
        backbone: a name or folder.
        split: "test", or "dev" while mini is being improved.
        num_scenes: pictures for the answers; the other parts use at most 500.
        curve: PNG file for reading against the height of the letters, or None to leave that out.
    """
    model = vli.load(backbone)
    scenes = held_out_scenes(num_scenes, split)
    answered = answer_all(model, scenes, split)
    fewer = scenes[:_FEWER]
    pairs = {
        (words, exchanged): likelihoods(model, fewer, split, words=words, exchanged=exchanged)
        for words in _WORDS
        for exchanged in (False, True)
    }
    parts = [
        "### Answers to well-worded questions\n",
        table([*family_shares(answered), *reading_shares(answered), read_in_canonical_words(model, scenes)]),
        "\n### Answers to poorly worded questions\n",
        table(family_shares(answer_all(model, fewer, split, poor_share=1.0))),
        "\n### Instructions\n",
        table(
            [
                *rewriting_shares(model, split),
                *comparison_shares(model, fewer, split),
                *(pair.paired for pair in pairs.values()),
            ]
        ),
        "\nAUC of IAS, fitting against mismatched instructions over all pictures: "
        + "; ".join(
            f"{words} words {pairs[words, False].auc:.3f}, pictures exchanged {pairs[words, True].auc:.3f}"
            for words in _WORDS
        )
        + ".",
    ]
    if curve is not None:
        points = reading_curve(model, _CURVE_ITEMS, split)
        save_reading_curve(points, curve)
        parts += ["\n### Reading against the height of the letters\n", table(point.read for point in points)]
    return "\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m pretrain_mini.evaluate_world", description="Measure a model.")
    parser.add_argument("--backbone", default="mini", help="name or folder (default: %(default)s)")
    parser.add_argument("--split", choices=("dev", "test"), default="test", help="part (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=1000, help="pictures (default: %(default)s)")
    parser.add_argument("--curve", type=Path, help="PNG file: draw reading against the height of the letters")
    arguments = parser.parse_args()
    print(evaluate(arguments.backbone, arguments.split, arguments.scenes, arguments.curve))
