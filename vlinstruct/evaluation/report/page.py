"""The report to look at: one HTML file with the drawing, what follows from it, and a dozen cases with pictures.

Cases are drawn by seed, failures first: a page of successes alone would say nothing about where optimization fails.
"""

from __future__ import annotations

import base64
import html
import io
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vlinstruct.errors import printable
from vlinstruct.evaluation.item import Item
from vlinstruct.evaluation.report.chart import as_svg
from vlinstruct.evaluation.report.table import Table
from vlinstruct.evaluation.report.text import findings, spelled
from vlinstruct.metrics.accuracy import is_exact_match, is_ranked_first
from vlinstruct.values import ROLES

NUM_CASES, NUM_FAILURES = 12, 4
_SHOWN_PX = 200
_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .6rem 0 }
td, th { padding: .15rem .7rem .15rem 0; text-align: left; vertical-align: top }
.case { display: flex; align-items: flex-start; gap: 1.2rem; border-top: 1px solid #ccc; padding: .8rem 0 }
.chosen { background: #eef4fb } .right { color: #1a7f37 } .wrong { color: #c62828 } .quiet { color: #777 }
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one instruction.

    Args:
        role: initial, rewritten or optimized; canonical for the best instruction, which nobody asked.
        instruction: what was asked.
        ias: its score; None where it has none.
        text: what was answered: the likeliest candidate where the task ranks.
        is_right: whether that is a reference, word for word.
    """

    role: str
    instruction: str
    ias: float | None
    text: str
    is_right: bool


@dataclass(frozen=True, kw_only=True)
class Case:
    """An item as it was asked: poorly, where it was.

    Args:
        item: with its picture.
        reference: the right answer, or the one that most people gave.
        answers: of the three instructions, then of the canonical one.
        chosen: the role that `safe` chose.
        reason: why.
    """

    item: Item
    reference: str
    answers: Sequence[Answer]
    chosen: str
    reason: str

    @property
    def is_failure(self) -> bool:
        """Whether the chosen instruction's answer is wrong."""
        return not next(answer for answer in self.answers if answer.role == self.chosen).is_right


def sample_cases(records: Iterable[Mapping[str, Any]], items: Sequence[Item], *, model: str, seed: int) -> list[Case]:
    """Samples a dozen cases of a model, failures first: four of them, or as many as there are.

    Args:
        records: what `runner.run` wrote.
        items: of all tasks.
        model: the row of the table.
        seed: another one draws others.
    """
    by_id = {str(record["id"]): record for record in records}
    words = "poor" if any("poor" in item.instructions for item in items) else "canonical"
    prefix = f"{model}/{words}"
    cases = [
        _case_of(item, by_id[f"{prefix}/{item.id}"], by_id[f"{model}/canonical/{item.id}"])
        for item in items
        if f"{prefix}/{item.id}" in by_id
    ]
    rng = random.Random(f"cases/{seed}")
    failures = [case for case in cases if case.is_failure]
    first = rng.sample(failures, min(NUM_FAILURES, len(failures)))
    rest = [case for case in cases if all(case is not other for other in first)]
    return first + rng.sample(rest, min(NUM_CASES - len(first), len(rest)))


def _case_of(item: Item, record: Mapping[str, Any], canonical: Mapping[str, Any]) -> Case:
    answers = [_answer(record, role, role) for role in ROLES if role in record]
    return Case(
        item=item,
        reference=Counter(record["references"]).most_common(1)[0][0],
        answers=[*answers, _answer(canonical, "initial", "canonical")],
        chosen=record["chosen"],
        reason=record["reason"],
    )


def _answer(record: Mapping[str, Any], role: str, name: str) -> Answer:
    wording, references = record[role], record["references"]
    text = wording["answer"]
    is_right = any(is_exact_match(str(text), reference) for reference in references)
    if "candidates" in record:
        candidates = record["candidates"]
        text = candidates[min(range(len(candidates)), key=lambda place: wording["answer"][place])]
        is_right = is_ranked_first(wording["answer"], candidates.index(references[0]))
    return Answer(role=name, instruction=wording["text"], ias=wording["ias"], text=text, is_right=is_right)


def as_html(table: Table, cases: Sequence[Case], facts: Mapping[str, Any]) -> str:
    """Returns the page; it needs nothing beside itself.

    Args:
        table: the scores.
        cases: single items to show, as `sample_cases` gives them.
        facts: what they were measured on and with.
    """
    setting = ", ".join(f"{name.replace('_', ' ')}: {_text(value)}" for name, value in facts.items() if name != "id")
    rows = [
        f"<tr><td>{_text(name)}</td><td>{spelled(value, signed=True)}</td></tr>"
        for name, value in findings(table).items()
    ]
    lines = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(facts["id"])}</title>',
        f"<style>{_STYLE}</style><h1>Does instruction optimization help?</h1><p>{setting}</p>",
        f"<p>Average over {len(table.tasks)} tasks relative to {_text(table.base.model)} on canonical words (100), "
        "with 95 % intervals over resampled items.</p>",
        as_svg(table),
        f"<h2>What follows</h2><p>Points; of shares 1 is all.</p><table>{''.join(rows)}</table>",
        f"<h2>{len(cases)} cases of {_text(table.models[-1])}, in {table.words[-1]} words</h2>",
        f"<p>Drawn by seed; {sum(case.is_failure for case in cases)} are failures: the chosen instruction's answer is "
        "no reference, word for word.</p>",
        *(line for case in cases for line in _case(case)),
    ]
    return "\n".join([*lines, "</html>", ""])


def _case(case: Case) -> Iterator[str]:
    yield f'<div class="case"><img alt="" width="{_SHOWN_PX}" src="{_embedded(case.item.load_picture())}"><div>'
    yield f"<b>{_text(case.item.id)}</b> right: {_text(case.reference)}"
    yield "<table><tr><th></th><th>instruction</th><th>IAS</th><th>answer</th></tr>"
    yield from (_row(answer, is_chosen=answer.role == case.chosen) for answer in case.answers)
    yield f'</table><span class="quiet">{_text(case.reason)}</span></div></div>'


def _row(answer: Answer, *, is_chosen: bool) -> str:
    ias = "" if answer.ias is None else f"{answer.ias:.4f}"
    rightness = "right" if answer.is_right else "wrong"
    cells = f"<td>{answer.role}</td><td>{_text(answer.instruction)}</td><td>{ias}</td>"
    return f'<tr class="{"chosen" if is_chosen else ""}">{cells}<td class="{rightness}">{_text(answer.text)}</td></tr>'


def _embedded(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _text(value: object) -> str:
    return html.escape(printable(str(value)))
