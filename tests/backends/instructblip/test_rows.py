"""The rows of one call may differ in everything: each gets what it would get alone, in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import same_nll

import vlinstruct as vli
from vlinstruct.backend import ProfiledBackend, Row, Seen, Written
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.prefixes import SeenPicture
from vlinstruct.errors import TextError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Exchange, Failed, TokenScores, good

BRIEF = GenerationSettings(max_new_tokens=8)
SAMPLED = GenerationSettings(max_new_tokens=12, do_sample=True, temperature=3.0, seed=4)
SETTINGS = {
    "greedy": BRIEF,
    "penalty": replace(BRIEF, repetition_penalty=1.7),
    "sampled": SAMPLED,
    "beams": replace(BRIEF, num_beams=3),
}
TARGETS = [
    ["yes"],
    ["no", "a longer answer"],
    [],
    ["x"],
    ["a", "b", "a"],
    ["", "yes"],
    ["it is red"],
    ["b"],
    ["yes", ""],
    ["yes"],
]


@pytest.fixture(scope="module")
def loaded(tiny_folders: dict[str, Path]) -> dict[str, InstructBlipBackend]:
    backends = {kind: vli.load(str(folder), device="cpu").backend for kind, folder in tiny_folders.items()}
    return cast(dict[str, InstructBlipBackend], backends)


@pytest.fixture(params=["t5", "llama"])
def backend(request: pytest.FixtureRequest, loaded: dict[str, InstructBlipBackend]) -> InstructBlipBackend:
    return loaded[request.param]


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def see(backend: InstructBlipBackend, *seeds: int) -> list[Seen]:
    return [good(seen) for seen in backend.see([picture(seed) for seed in seeds])]


def mixed_rows(backend: InstructBlipBackend) -> list[Row]:
    """Ten rows with and without a picture; the last one is the first one, and the fourth equals the second."""
    one, other = see(backend, 0, 1)
    talk = (Exchange(question="which animal?", answer="a cat"), Exchange(question="sure?", answer="yes"))
    rows = [
        Row(prompt="what?", seen=(one,), reads="what?"),
        Row(prompt="a prompt of the language model alone"),
        Row(prompt="and its colour?", seen=(other,), reads="and its colour?", history=talk),
        Row(prompt="a prompt of the language model alone"),
        Row(prompt="w", seen=(one,), reads="something else that is longer", system="Be brief."),
        Row(prompt="rewrite me", guess="rewrite me", stage="rewrite"),
        Row(prompt="what?", seen=(other,), reads="what?", guess="what? what?", draw=2),
        Row(prompt="its Q-Former reads nothing", seen=(other,)),
        Row(prompt="nobody reads what stands beside it", reads="what?"),
    ]
    return [*rows, rows[0]]


def assert_same_scores(
    rows: Sequence[list[TokenScores] | Failed], others: Sequence[list[TokenScores] | Failed]
) -> None:
    for row, other in zip(map(good, rows), map(good, others), strict=True):
        assert [scores.tokens for scores in row] == [scores.tokens for scores in other]
        for scores, expected in zip(row, other, strict=True):
            assert scores.token_nll == same_nll(expected.token_nll)


def assert_same_texts(rows: Sequence[Written | Failed], others: Sequence[Written | Failed]) -> None:
    for row, other in zip(map(good, rows), map(good, others), strict=True):
        assert replace(row, token_nll=None) == replace(other, token_nll=None)
        assert row.token_nll == same_nll(other.token_nll)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("options", [{}, {"with_end": False}, {"num_first": 2}, {"with_end": False, "num_first": 1}])
def test_rows_are_scored_together_as_alone(backend: InstructBlipBackend, options: dict[str, Any], order: int) -> None:
    rows, targets = mixed_rows(backend)[::order], TARGETS[::order]
    alone = [backend.score([row], [texts], **options)[0] for row, texts in zip(rows, targets, strict=True)]
    assert_same_scores(backend.score(rows, targets, **options), alone)


def test_one_target_each_is_scored_as_one_of_several(backend: InstructBlipBackend) -> None:
    rows = mixed_rows(backend)
    single = backend.score(rows, [["it is red"]] * len(rows))
    several = [good(row)[1:] for row in backend.score(rows, [["x", "it is red"]] * len(rows))]
    assert_same_scores(single, several)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("order", [1, -1])
def test_rows_are_written_together_as_alone(backend: InstructBlipBackend, name: str, order: int) -> None:
    rows = mixed_rows(backend)[::order]
    alone = [backend.write([row], SETTINGS[name])[0] for row in rows]
    assert_same_texts(backend.write(rows, SETTINGS[name]), alone)


def test_rows_are_counted_together_as_alone(backend: InstructBlipBackend) -> None:
    rows = mixed_rows(backend)
    assert backend.num_tokens(rows) == [backend.num_tokens([row])[0] for row in rows]


def test_pictures_are_seen_together_as_alone(backend: InstructBlipBackend) -> None:
    for together, alone in zip(see(backend, 0, 1, 2), (see(backend, seed)[0] for seed in range(3)), strict=True):
        embeds = [cast(SeenPicture, seen).image_embeds for seen in (together, alone)]
        torch.testing.assert_close(*embeds, atol=1e-5, rtol=0)


def test_nothing_gives_nothing(backend: InstructBlipBackend) -> None:
    assert backend.see([]) == []
    assert backend.write([], BRIEF) == []
    assert backend.score([], []) == []
    assert backend.num_tokens([]) == []
    assert backend.score([Row(prompt="a")] * 2, [[], []]) == [[], []]
    assert backend.score([Row(prompt="a")], [[""]], with_end=False) == [[TokenScores(tokens=(), token_nll=())]]


@pytest.mark.parametrize("num_first", [1, 3, 100])
def test_the_first_tokens_have_the_scores_that_they_have_in_the_whole_text(
    backend: InstructBlipBackend, num_first: int
) -> None:
    rows = mixed_rows(backend)
    whole = backend.score(rows, TARGETS)
    first = [
        [TokenScores(tokens=one.tokens[:num_first], token_nll=one.token_nll[:num_first]) for one in good(row)]
        for row in whole
    ]
    assert_same_scores(backend.score(rows, TARGETS, num_first=num_first), first)


def test_a_text_without_its_end_lacks_the_end_token_alone(backend: InstructBlipBackend) -> None:
    rows = mixed_rows(backend)
    whole = [good(row) for row in backend.score(rows, TARGETS)]
    assert {scores.tokens[-1] for row in whole for scores in row} == {"</s>"}
    cut = [[TokenScores(tokens=one.tokens[:-1], token_nll=one.token_nll[:-1]) for one in row] for row in whole]
    assert_same_scores(backend.score(rows, TARGETS, with_end=False), cut)


# Rows that fail


@pytest.mark.parametrize("place", [0, 3, 8])
def test_a_prompt_that_is_too_long_fails_alone(loaded: dict[str, InstructBlipBackend], place: int) -> None:
    backend = loaded["llama"]
    rows, targets = mixed_rows(backend), list(TARGETS)
    with_failed, with_targets = list(rows), list(targets)
    with_failed.insert(place, Row(prompt="x" * 3000, seen=rows[0].seen, reads="x"))
    with_targets.insert(place, ["yes"])
    written, scored = backend.write(with_failed, BRIEF), backend.score(with_failed, with_targets)
    for failed in (written.pop(place), scored.pop(place)):
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, TextError)
        assert failed.error.code == "text_too_long"
    assert_same_texts(written, backend.write(rows, BRIEF))
    assert_same_scores(scored, backend.score(rows, targets))


def test_rows_that_are_all_too_long_all_fail(loaded: dict[str, InstructBlipBackend]) -> None:
    rows = [Row(prompt="x" * 3000), Row(prompt="y" * 3000)]
    assert all(isinstance(outcome, Failed) for outcome in loaded["llama"].write(rows, BRIEF))
    assert all(isinstance(outcome, Failed) for outcome in loaded["llama"].score(rows, [["a"], ["b"]]))


def test_a_talk_that_is_too_long_fails_too(loaded: dict[str, InstructBlipBackend]) -> None:
    row = Row(prompt="x", history=(Exchange(question="y" * 3000, answer="z"),))
    (outcome,) = loaded["llama"].write([row], BRIEF)
    assert isinstance(outcome, Failed)


# What changes a text, and what never does


def test_another_draw_is_another_sample_and_an_equal_one_the_same(backend: InstructBlipBackend) -> None:
    (seen,) = see(backend, 0)
    rows = [Row(prompt="what?", seen=(seen,), reads="what?", draw=draw) for draw in (0, 1, 2, 1, 0, 1_000_000)]
    texts = [good(written).text for written in backend.write(rows, SAMPLED)]
    assert (texts[0], texts[1]) == (texts[4], texts[3])
    assert len(set(texts)) == 4
    assert [good(written).text for written in backend.write(rows, replace(SAMPLED, seed=5))] != texts


@pytest.mark.parametrize("name", ["greedy", "penalty", "beams"])
def test_without_sampling_there_is_one_text(backend: InstructBlipBackend, name: str) -> None:
    row = Row(prompt="what?", seen=tuple(see(backend, 0)), reads="what?")
    drawn = backend.write([replace(row, draw=draw) for draw in (0, 1, 7)], SETTINGS[name])
    assert_same_texts(drawn, backend.write([row], SETTINGS[name]) * 3)


@pytest.mark.parametrize("name", SETTINGS)
def test_neither_guess_nor_stage_changes_a_text(backend: InstructBlipBackend, name: str) -> None:
    settings = SETTINGS[name]
    for row in (Row(prompt="what?", seen=tuple(see(backend, 0)), reads="what?"), Row(prompt="rewrite this")):
        (plain,) = map(good, backend.write([row], settings))
        variants = [replace(row, guess=guess) for guess in (plain.text, plain.text[1:], "wrong", "", "e" * 50)]
        variants += [replace(row, stage=stage) for stage in ("rewrite", "judge")]
        assert_same_texts(backend.write(variants, settings), [plain] * len(variants))


# Threads and profiles


def work(backend: InstructBlipBackend | ProfiledBackend, rows: Sequence[Row]) -> dict[str, Callable[[], Any]]:
    return {
        "write": lambda: backend.write(rows, BRIEF),
        "sample": lambda: backend.write(rows, SAMPLED),
        "score": lambda: backend.score(rows, TARGETS),
        "stream": lambda: [list(backend.stream(row, BRIEF)) for row in rows[:3]],
        "see": lambda: backend.see([picture(5), picture(6)]),
    }


def assert_same(name: str, result: Any, expected: Any) -> None:
    if name == "score":
        assert_same_scores(result, expected)
    elif name == "stream":
        assert [pieces[:-1] for pieces in result] == [pieces[:-1] for pieces in expected]
        assert_same_texts([pieces[-1] for pieces in result], [pieces[-1] for pieces in expected])
    elif name == "see":
        for one, other in zip(result, expected, strict=True):
            torch.testing.assert_close(one.image_embeds, other.image_embeds, atol=1e-5, rtol=0)
    else:
        assert_same_texts(result, expected)


def test_several_threads_get_what_one_gets(backend: InstructBlipBackend) -> None:
    expected = {name: call() for name, call in work(backend, mixed_rows(backend)).items()}
    calls = work(backend, mixed_rows(backend))  # pictures that nobody has read yet
    names = [*calls, *reversed(calls)] * 2
    with ThreadPoolExecutor(4) as threads:
        for name, result in zip(names, threads.map(lambda name: calls[name](), names), strict=True):
            assert_same(name, result, expected[name])


def test_a_profiled_backend_gives_the_same(backend: InstructBlipBackend) -> None:
    rows, profiled = mixed_rows(backend), ProfiledBackend(backend)
    assert profiled.abilities == backend.abilities
    for (name, call), plain in zip(work(profiled, rows).items(), work(backend, rows).values(), strict=True):
        assert_same(name, call(), plain())
    assert profiled.costs["see"].num_rows == 2
    assert all(cost.seconds > 0 for cost in profiled.costs.values())


def test_a_row_whose_numbers_overflow_fails_alone(tiny_folders: dict[str, Path]) -> None:
    backend = cast(InstructBlipBackend, vli.load(str(tiny_folders["llama"]), device="cpu").backend)
    rows = [Row(prompt=prompt, stage="rewrite") for prompt in ("red", "Zebra", "a dog")]
    alone = [backend.write([row], BRIEF)[0] for row in rows]
    (token,) = backend.tokenizer.tokenizer.encode("Z", add_special_tokens=False).ids[-1:]
    backend.network.language_model.get_parameter("model.embed_tokens.weight").data[token] = torch.nan
    first, failed, last = backend.write(rows, BRIEF)
    assert [first, last] == [alone[0], alone[2]]
    assert isinstance(failed, Failed)
    assert failed.error.code == "non_finite_logits"


def test_a_text_of_more_tokens_than_are_read_fails_alone(backend: InstructBlipBackend) -> None:
    most = backend.network.config.text_config.max_text_tokens
    rows = [Row(prompt="x" * most * 2, stage="rewrite"), Row(prompt="a", stage="rewrite")]
    failed, written = backend.write(rows, BRIEF)
    assert isinstance(failed, Failed)
    assert failed.error.code == "text_too_long"
    assert isinstance(written, Written)
    (scores,) = backend.score([Row(prompt="a", stage="score")], [["x" * most * 2]])
    assert isinstance(scores, Failed)
