"""What a notebook shows of a value: nothing that a text can break, and everything that was chosen."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest

from vlinstruct.notebook import answer_html, optimization_html, scored_html
from vlinstruct.values import Answer, Choice, Judgement, Optimization, ScoredInstruction, TokenScores

HOSTILE = '</span><script>alert("1")</script><img src=x onerror=y>\u202e\x1b[2J\n' + "z" * 10_000


def scored(text: str, *token_nll: float, judgement: Judgement | None = None) -> ScoredInstruction:
    tokens = tuple(f"▁{word}" for word in text.split(" ")) if token_nll else ()
    scores = TokenScores(tokens=tokens, token_nll=token_nll)
    return ScoredInstruction(text=text, ias=scores.mean_nll, scores=scores, judgement=judgement)


class Page(HTMLParser):
    """The elements and the text of a piece of HTML."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attributes} <= {"style", "title", "dir", "scope"}
        self.names.append(tag)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def optimization(text: str) -> Optimization:
    answer = Answer(text=text, instruction=text, token_nll=(math.log(2),))
    return Optimization(
        initial=scored(text, *[1.0] * len(text.split(" ")), judgement=Judgement(answer=answer)),
        rewritten=scored("what is it", 0.5, 0.25, 0.0, judgement=Judgement(answer=answer, cross_nll=0.125)),
        optimized=scored("what", math.nan),
        chosen="rewritten",
        reason="it fits best",
        notices=(text,),
    )


def test_an_optimization_is_a_table_whose_chosen_row_is_marked() -> None:
    page = Page(optimization_html(optimization("huh")))
    assert page.rows == [
        ["", "IAS", "instruction", "its answer", "certainty", "cross check"],
        ["initial", "1.0000", "huh", "huh", "0.50", ""],
        ["▸\N{NO-BREAK SPACE}rewritten", "0.2500", "what is it", "huh", "0.50", "0.12"],
        ["optimized", "not finite", "what", "", "", ""],
    ]
    assert page.text.endswith("it fits besthuh")


def test_words_that_were_left_alone_have_no_ias_to_show() -> None:
    page = Page(optimization_html(Optimization(initial=scored("huh"), chosen="initial", reason="sure")))
    assert page.rows[1:] == [["▸\N{NO-BREAK SPACE}initial", "", "huh"]]


def test_an_answer_shows_its_choices_and_how_it_came_about() -> None:
    choices = (Choice(text="yes", probability=0.75, nll=0.5), Choice(text="no", probability=0.25, nll=1.5))
    page = Page(answer_html(Answer(text="yes", instruction="is it?", choices=choices, optimization=optimization("a"))))
    assert page.rows[1:3] == [["▸\N{NO-BREAK SPACE}yes", "0.750", "0.5000"], ["no", "0.250", "1.5000"]]
    assert ["initial", "1.0000", "a", "a", "0.50", ""] in page.rows
    assert "certainty 0.75" in page.text


def test_a_token_is_the_more_coloured_the_less_likely_it_is() -> None:
    html = scored_html(scored("a b c d", 0.0, 1.0, 100.0, math.nan))
    alphas = [float(alpha) for alpha in re.findall(r"rgba\([^)]*, ([0-9.]+)\)", html)]
    assert alphas == sorted(alphas)
    assert alphas[0] == 0 < alphas[1] < alphas[2] == alphas[3] < 0.6  # text stays readable on it
    assert 'title="1.00 nats"' in html


@pytest.mark.parametrize("text", [HOSTILE, "", "\ud800"])
def test_no_text_becomes_markup_or_fills_the_notebook(text: str) -> None:
    answer = Answer(text=text, instruction=text, optimization=optimization(text))
    for html in (answer_html(answer), scored_html(scored(text, *[1.0] * len(text.split(" "))))):
        page = Page(html)
        assert {"script", "img"}.isdisjoint(page.names)
        assert not {"\u202e", "\x1b", "\ud800"} & set(page.text)
        assert len(page.text) < 6_000


def test_many_tokens_are_counted_in_place_of_shown() -> None:
    assert "and 880 more" in Page(scored_html(scored(" ".join("x" * 1000), *[1.0] * 1000))).text


def test_a_repr_is_one_short_printable_line() -> None:
    values = (scored(HOSTILE, 1.0, 1.0, 1.0), optimization(HOSTILE), Answer(text=HOSTILE, instruction=HOSTILE))
    for value in values:
        shown = repr(value)
        assert len(shown) < 250
        assert shown.isprintable()
    assert repr(scored("huh", 0.5)) == "<ScoredInstruction 'huh', IAS 0.5000>"
    assert repr(optimization("huh")) == "<Optimization 'huh' -> 'what is it', rewritten, IAS 1.0000 -> 0.2500>"
    assert repr(Answer(text="a", instruction="b", token_nll=(0.0,))) == "<Answer 'a' to 'b', certainty 1.00>"
