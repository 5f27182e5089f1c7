"""A rewriting that the model was not sure of is not used, wherever its text stands; off, nothing is scored for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from vlinstruct.backend import Row, Written
from vlinstruct.errors import UsageError
from vlinstruct.instruction import Templates, optimize, rewrite
from vlinstruct.instruction.rewrite import Rewritings
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Abilities, Failed, Optimization, TokenScores

from .conftest import FakeBackend, initial_of

TEXTS = ["which text is here?", "what colour is it?"]
SURE = OptimizationSettings(select="ias", least_certainty=0.8)
SILENT = Abilities(can_tell_nll=False)


def model(certainties: Mapping[str, float] | None = None, **more: Any) -> FakeBackend:
    """Rewritten instructions have the lowest IAS, and comparing returns them.

    Args:
        certainties: of the rewriting's least likely token, by the initial instruction.
        **more: other fields of the fake.
    """
    sure = dict(certainties or {})

    def nll(prompt: str) -> tuple[float, ...]:
        return (0.0, -math.log(sure.get(initial_of(prompt), 1.0)))

    scores = {**dict.fromkeys(TEXTS, 3.0), **{f"Tell me: {text}": 1.0 for text in TEXTS}}
    fields = {"ias": scores, "look": lambda image, prompt, text: f"Tell me: {text}", "nll": nll, **more}
    return FakeBackend(**fields)


def silent(certainties: Mapping[str, float] | None = None, **more: Any) -> FakeBackend:
    """The same model that tells its likelihoods only when it is asked to score."""
    telling = model(certainties)
    backend = model(**{"abilities": SILENT, **more, "nll": lambda prompt: None})
    plain = backend.scores

    def scores(row: Row, target: str) -> TokenScores:
        if row.seen:
            return plain(row, target)
        return TokenScores(tokens=("a", "</s>"), token_nll=telling.nll(row.prompt) or ())

    backend.scores = scores  # type: ignore[method-assign]
    return backend


KINDS = pytest.mark.parametrize("make", [model, silent])


def outcomes(backend: FakeBackend, settings: OptimizationSettings, templates: Templates) -> list[Optimization]:
    results = optimize(backend, [0, 1], TEXTS, templates=templates, settings=settings)
    return [result for result in results if isinstance(result, Optimization)]


@KINDS
def test_an_uncertain_rewriting_is_refused_with_its_certainty(make: Any, templates: Templates) -> None:
    first, second = outcomes(make({TEXTS[0]: 0.555}), SURE, templates)
    assert (first.chosen, second.chosen) == ("initial", "rewritten")
    assert first.reason.count("was written with a certainty of 0.56, below 0.8") == 2  # rewritten, and compared again
    assert first.instruction == TEXTS[0]


@KINDS
@pytest.mark.parametrize(("certainty", "chosen"), [(0.79, "initial"), (0.8, "rewritten"), (1.0, "rewritten")])
def test_as_sure_as_asked_for_is_enough(make: Any, certainty: float, chosen: str, templates: Templates) -> None:
    (first, _) = outcomes(make({TEXTS[0]: certainty + 1e-9}), SURE, templates)
    assert first.chosen == chosen


def test_a_comparison_is_as_uncertain_as_it_was_written(templates: Templates) -> None:
    """Also where it writes a text of its own, with the lowest IAS of all."""

    def nll(prompt: str) -> tuple[float, ...]:
        return (0.0, -math.log(0.4 if "Score:" in prompt else 1.0))

    new = "Which colour has it?"
    backend = model(look=lambda image, prompt, text: new, nll=nll)
    backend.ias[new] = 0.5
    (first, _) = outcomes(backend, SURE, templates)
    assert (first.optimized.text, first.optimized.written_certainty) == (new, pytest.approx(0.4))
    assert first.chosen == "rewritten"


@KINDS
def test_the_paper_takes_the_optimized_one_all_the_same(make: Any, templates: Templates) -> None:
    settings = OptimizationSettings(select="paper", least_certainty=0.8)
    (first, _) = outcomes(make({TEXTS[0]: 0.1}), settings, templates)
    assert first.chosen == "optimized"


@KINDS
@pytest.mark.parametrize("least", [None, 0.0])
def test_off_no_certainty_counts(make: Any, least: float | None, templates: Templates) -> None:
    backend = make({TEXTS[0]: 0.1})
    (first, _) = outcomes(backend, OptimizationSettings(select="ias", least_certainty=least), templates)
    assert first.chosen == "rewritten"
    assert [call.method for call in backend.called("rewrite")] == ["write"]


def test_a_certainty_comes_with_the_text(templates: Templates) -> None:
    backend = model()
    outcomes(backend, SURE, templates)
    assert [call.method for call in backend.called("rewrite")] == ["write"]


def test_a_backend_that_cannot_tell_is_asked_to_score_once(templates: Templates) -> None:
    backend = silent()
    rewritings: Rewritings = {}
    for _ in range(2):
        optimize(backend, [0, 1], TEXTS, templates=templates, settings=SURE, rewritings=rewritings)
    write, score = backend.called("rewrite")
    assert (write.method, score.method) == ("write", "score")
    assert score.texts == tuple(f"Tell me: {text}" for text in TEXTS)
    assert score.prompts == write.prompts


def test_a_text_that_was_cut_is_not_sure_of_its_end(templates: Templates, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Written(text="Tell me", token_nll=(0.0, 0.0), is_complete=False)
    monkeypatch.setattr(FakeBackend, "_written", lambda self, row: cut)
    (draft,) = rewrite(model(), TEXTS[:1], templates, SURE, 0.8)
    assert not isinstance(draft, Failed)
    assert draft.certainty == 0


def test_a_rewriting_that_cannot_be_scored_fails(templates: Templates, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = silent()
    failing = backend.score

    def score(rows: Any, targets: Any, **more: Any) -> Any:
        backend.too_long = TEXTS[0]
        return failing(rows, targets, **more)

    monkeypatch.setattr(backend, "score", score)
    first, second = rewrite(backend, TEXTS, templates, SURE, 0.8)
    assert isinstance(first, Failed)
    assert not isinstance(second, Failed)


@pytest.mark.parametrize("select", ["safe", "ias"])
def test_a_model_that_tells_no_likelihood_at_all_is_refused_before_it_writes(select: Any, templates: Templates) -> None:
    backend = silent(abilities=Abilities(can_tell_nll=False, can_score=False))
    with pytest.raises(UsageError, match="least_certainty needs a backend that tells likelihoods"):
        outcomes(backend, OptimizationSettings(select=select, least_certainty=0.8), templates)
    assert backend.calls == []


def test_the_paper_needs_no_certainty(templates: Templates) -> None:
    backend = silent(abilities=Abilities(can_tell_nll=False))
    (first, _) = outcomes(backend, OptimizationSettings(select="paper", least_certainty=0.8), templates)
    assert first.chosen == "optimized"


@pytest.mark.parametrize("nll", [(0.0, math.nan), (math.nan, 0.0), (math.inf, 0.0), ()])
@KINDS
def test_a_likelihood_that_is_no_number_is_no_certainty(
    make: Any, nll: tuple[float, ...], templates: Templates
) -> None:
    backend = make()
    backend.nll = (lambda prompt: nll) if make is model else backend.nll
    if make is silent:
        backend.scores = lambda row, target: TokenScores(tokens=("a",) * len(nll), token_nll=nll)
    (draft,) = rewrite(backend, TEXTS[:1], templates, SURE, 0.8)
    assert not isinstance(draft, Failed)
    assert draft.certainty == 0


@pytest.mark.parametrize("least", [-0.1, 1.1, math.nan])
def test_a_certainty_is_a_probability(least: float) -> None:
    with pytest.raises(UsageError, match="least_certainty must be 0 to 1"):
        OptimizationSettings(least_certainty=least)
