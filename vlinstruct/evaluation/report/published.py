"""What VisLingInstruct's paper measured (Zhu et al. 2024, section 4), to be read beside what is measured here.

Percent: VQA accuracy, accuracy, and the area under the ROC curve.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from vlinstruct.evaluation.report.text import Block

SOURCE = "Zhu et al. 2024, https://arxiv.org/abs/2402.07398"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One benchmark's figures with one backbone.

    Args:
        vanilla: InstructBLIP as it is.
        ema: with EMA alone.
        rewriting: with rewritten instructions alone.
        aio: with instruction optimization in full.
    """

    vanilla: float
    ema: float
    rewriting: float
    aio: float


# In the order vanilla, EMA, rewriting, AIO.
_FIGURES = {
    "flant5-xl": {
        "textvqa": (46.6, 48.5, 47.5, 48.7),
        "hatefulmemes": (56.6, 60.8, 57.3, 60.0),
        "scienceqa": (70.4, 70.6, 70.4, 71.0),
        "vizwiz": (32.7, 32.8, 31.8, 33.0),
        "gqa": (48.4, 48.6, 48.5, 47.9),
    },
    "flant5-xxl": {
        "textvqa": (46.6, 48.3, 46.7, 48.8),
        "hatefulmemes": (54.1, 55.2, 54.1, 55.7),
        "scienceqa": (70.6, 82.0, 73.5, 81.8),
        "vizwiz": (30.9, 31.5, 31.1, 31.3),
        "gqa": (47.9, 48.0, 48.1, 48.3),
    },
    "vicuna-7b": {
        "textvqa": (50.1, 49.9, 58.3, 60.6),
        "hatefulmemes": (59.6, 60.8, 62.2, 62.7),
        "scienceqa": (60.5, 55.4, 63.0, 74.6),
        "vizwiz": (34.5, 40.5, 40.3, 42.7),
        "gqa": (49.2, 51.9, 47.6, 52.0),
    },
    "vicuna-13b": {
        "textvqa": (50.7, 56.9, 62.4, 65.6),
        "hatefulmemes": (57.5, 61.0, 58.7, 58.9),
        "scienceqa": (63.1, 48.4, 68.0, 71.0),
        "vizwiz": (33.4, 43.0, 41.5, 45.0),
        "gqa": (49.5, 51.6, 51.1, 52.9),
    },
}
PUBLISHED: Mapping[tuple[str, str], Published] = {
    (backbone, benchmark): Published(vanilla=vanilla, ema=ema, rewriting=rewriting, aio=aio)
    for backbone, figures in _FIGURES.items()
    for benchmark, (vanilla, ema, rewriting, aio) in figures.items()
}


def published(backbone: str, benchmarks: Iterable[str]) -> dict[str, Published]:
    """Returns the figures of those benchmarks that the paper has with this backbone.

    >>> published("vicuna-7b", ["textvqa", "nocaps"])["textvqa"].aio
    60.6
    """
    return {name: PUBLISHED[backbone, name] for name in benchmarks if (backbone, name) in PUBLISHED}


def as_block(figures: Mapping[str, Published], plain: Mapping[str, Mapping[str, float]]) -> Block:
    """Returns the figures as columns beside ours.

    Args:
        figures: by benchmark.
        plain: ours, plain answers in canonical words: by benchmark and row of the table, 1 for all right.
    """
    rows = []
    for name, paper in figures.items():
        values = [*asdict(paper).values(), *(100 * ours for ours in plain[name].values())]
        rows.append([name, *(f"{value:.1f}" for value in values)])
    ours_of = next(iter(plain.values()), {})
    return Block(
        title=f"published, in percent ({SOURCE}), beside plain answers here",
        heads=("", "vanilla", "EMA", "rewriting", "AIO", *(f"here: {row}" for row in ours_of)),
        rows=rows,
    )
