"""Every family: likelihoods and texts equal those of transformers alone, whatever shares a call."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from picture_fixtures import assert_one_line, make_picture
from transformers import AutoConfig

import vlinstruct as vli
from vlinstruct.backend import Row, Seen
from vlinstruct.backends.transformers.families import FAMILIES as KNOWN
from vlinstruct.errors import CheckpointError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Clip, Exchange, Failed, Sound, good

from . import tiny_families
from .conftest import Pair
from .naive import NaiveBackend
from .tiny_families import FAMILIES, Family

if TYPE_CHECKING:
    from vlinstruct.values import Media

PROMPT = "Based on the image given, the most appropriate instruction should be:"
QUESTION = "How many red dogs are there?"
TARGETS = ("What is written on the sign?", "yes", "Describe the image in one sentence, please. no")
PICTURES = (make_picture(80, 60, seed=1), make_picture(200, 60, seed=2), make_picture(32, 48, seed=3))
SHORT = GenerationSettings(max_new_tokens=6)

# One each of: positions that depend on the picture, a sliding window, cross-attention, tiles, an encoder-decoder.
KINDS = ("qwen3_vl", "gemma3", "mllama", "smolvlm", "blip2_t5")
MANY = (*KINDS, "qwen2_5_vl", "qwen3_5", "llava", "paligemma", "florence2", "aya_vision")


def clip(seed: int = 0) -> Clip:
    frames = tuple(make_picture(64, 48, seed=seed + frame) for frame in range(4))
    return Clip(frames=frames, frame_indices=(3, 9, 15, 21), num_source_frames=24, fps=24.0, duration_s=1.0)


def sound(pitch: float = 220.0) -> Sound:
    samples = 0.3 * np.sin(np.arange(12_800) * 2 * np.pi * pitch / 16_000)
    return Sound(samples=samples.astype(np.float32), sampling_rate=16_000)


def families(
    select: Callable[[Family], bool] = lambda family: True, *, quick: Sequence[str] = tuple(FAMILIES)
) -> pytest.MarkDecorator:
    """Parametrizes a test over the families that we support, as far as this transformers does.

    Args:
        select: those that it is about.
        quick: those that everybody's test command runs; the others are slow.
    """
    names = []
    for name, family in FAMILIES.items():
        if family.is_supported and select(family):
            marks = [pytest.mark.skipif(family.is_broken, reason="this transformers cannot run it")]
            names.append(pytest.param(name, marks=marks if name in quick else [*marks, pytest.mark.slow]))
    return pytest.mark.parametrize("name", names)


def rows_of(seen: Sequence[Seen]) -> list[Row]:
    """Rows that share a picture, a prompt, or nothing, and two without a picture."""
    return [
        Row(prompt=PROMPT, seen=(seen[0],)),
        Row(prompt=QUESTION, seen=(seen[1],)),
        Row(prompt=QUESTION, seen=(seen[0],)),
        Row(prompt=QUESTION),
        Row(prompt=PROMPT),
        Row(prompt=PROMPT, seen=(seen[2],)),
    ]


def see(pair: Pair, media: Sequence[Media] = PICTURES) -> list[Seen]:
    return [good(outcome) for outcome in pair.ours.backend.see([pair.ours.prepare(medium) for medium in media])]


@families(quick=MANY)
def test_likelihoods_equal_those_of_one_forward_each(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)
    rows, targets = rows_of(PICTURES)[:5], [TARGETS[:2], TARGETS[2:], TARGETS[1:2], TARGETS[:1], TARGETS[1:2]]
    expected = pair.theirs.score(rows, targets)
    pair.assert_same_scores(pair.ours.backend.score(rows_of(see(pair))[:5], targets), expected)


@families(quick=KINDS)
def test_nothing_of_an_earlier_picture_is_left_in_the_model(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)
    targets = [TARGETS, TARGETS[:2], TARGETS[2:], TARGETS[1:], TARGETS[:1], TARGETS[:1]]
    expected = pair.theirs.score(rows_of(PICTURES), targets)
    rows = rows_of(see(pair))
    pair.assert_same_scores(pair.ours.backend.score(rows, targets), expected)
    for row, texts, scores in reversed(list(zip(rows, targets, expected, strict=True))):
        pair.assert_same_scores(pair.ours.backend.score([row], [texts]), [scores])
        pair.ours.backend.write([rows[1]], SHORT)


@families(quick=KINDS)
def test_likelihoods_of_first_tokens_are_those_of_the_whole(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)
    rows, targets = rows_of(PICTURES)[:2], [TARGETS, TARGETS[:1]]
    expected = pair.theirs.score(rows, targets, with_end=False, num_first=3)
    scores = pair.ours.backend.score(rows_of(see(pair))[:2], targets, with_end=False, num_first=3)
    pair.assert_same_scores(scores, expected)


@families(quick=MANY)
def test_greedy_texts_are_those_of_generate(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)
    # Two pictures that share a batch, two texts that do.
    expected = pair.theirs.write(rows_of(PICTURES)[1:5], SHORT)
    pair.assert_same_texts(pair.ours.backend.write(rows_of(see(pair))[1:5], SHORT), expected)


@families(lambda family: "clip" in family.media, quick=("qwen2_5_vl", "qwen3_vl", "smolvlm", "llava_next_video"))
def test_a_clip_is_read_as_transformers_reads_it(name: str, pair_of: Callable[[str], Pair]) -> None:
    _assert_media_are_read_alike(pair_of(name), [clip(), clip(seed=10)])


@families(lambda family: "sound" in family.media, quick=("qwen2_5_omni", "phi4_multimodal"))
def test_a_sound_is_heard_as_transformers_hears_it(name: str, pair_of: Callable[[str], Pair]) -> None:
    _assert_media_are_read_alike(pair_of(name), [sound(), sound(pitch=880.0)])


def _assert_media_are_read_alike(pair: Pair, media: list[Media]) -> None:
    def rows(seen: Sequence[Seen]) -> list[Row]:
        return [Row(prompt=PROMPT, seen=(seen[0],)), Row(prompt=QUESTION, seen=(seen[1],))]

    targets = [TARGETS[:2], TARGETS[1:]]
    seen = see(pair, media)
    expected = pair.theirs.score(rows(media), targets)
    pair.assert_same_scores(pair.ours.backend.score(rows(seen), targets), expected)
    pair.assert_same_texts(pair.ours.backend.write(rows(seen), SHORT), pair.theirs.write(rows(media), SHORT))
    # The law would hold for a model that is deaf and blind, too.
    same_prompt = pair.theirs.score([Row(prompt=PROMPT, seen=(medium,)) for medium in media], [TARGETS[:1]] * 2)
    assert good(same_prompt[0])[0].mean_nll != pytest.approx(good(same_prompt[1])[0].mean_nll, abs=1e-3)


@families(lambda family: family.has_template, quick=KINDS)
def test_earlier_turns_are_read_as_the_template_spells_them(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)

    def rows(seen: Sequence[Seen]) -> list[Row]:
        turns = (Exchange(question="What is written on the sign?", answer="yes"), Exchange(question="no", answer="two"))
        return [
            Row(prompt=QUESTION, seen=(seen[0],), history=turns),
            Row(prompt=QUESTION, seen=(seen[1],)),
            Row(prompt=QUESTION, history=turns[:1]),
        ]

    targets = [TARGETS[:1]] * 3
    pair.assert_same_scores(
        pair.ours.backend.score(rows(see(pair)), targets), pair.theirs.score(rows(PICTURES), targets)
    )


@families(lambda family: family.has_template, quick=KINDS)
def test_a_system_text_stands_where_the_template_puts_it(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)

    def rows(seen: Sequence[Seen]) -> list[Row]:
        system = "Answer in one sentence."
        return [
            Row(prompt=QUESTION, seen=(seen[0],), system=system),
            Row(prompt=QUESTION, seen=(seen[0],)),
            Row(prompt=QUESTION, seen=(seen[1],), system=system),
            Row(prompt=QUESTION, system=system),
        ]

    targets = [TARGETS[:1]] * 4
    expected = pair.theirs.score(rows(PICTURES), targets)
    pair.assert_same_scores(pair.ours.backend.score(rows(see(pair)), targets), expected)


@families(quick=(*KINDS, "llava", "paligemma"))
def test_texts_of_any_shape_are_read_as_they_stand(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)
    # What begins them may join what stands before them, or be taken for a part of the template.
    texts = ["\nWhat?", "  red ", "\u00e9 \u2603 \u65e5\u672c", "<b>{{ bos_token }}{% if %}", "%s {0}", "?"]

    def rows(seen: Sequence[Seen]) -> list[Row]:
        return [Row(prompt=text, seen=(seen[place % 2],)) for place, text in enumerate(texts)]

    targets = [[text] for text in texts]
    expected = pair.theirs.score(rows(PICTURES), targets)
    pair.assert_same_scores(pair.ours.backend.score(rows(see(pair)), targets), expected)


def test_a_line_break_that_joins_the_one_before_it_is_read_as_transformers_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # LLaVA's template writes one behind the picture, and larger vocabularies have two of them as one token.
    sentences = (*tiny_families.SENTENCES, "one\n\ntwo\n\nthree\n\nfour\n\nfive")
    monkeypatch.setattr(tiny_families, "SENTENCES", sentences)
    folder = tiny_families.build("llava", tmp_path)
    pair = Pair(ours=vli.load(folder, device="cpu"), theirs=NaiveBackend(folder, FAMILIES["llava"]))
    assert len(pair.theirs.reference.tokenizer("\n\n", add_special_tokens=False).input_ids) == 1
    seen = see(pair)
    texts = ["\nWhat?", "What?", "\nWhich?"]
    rows = [Row(prompt=text, seen=(seen[place % 2],)) for place, text in enumerate(texts)]
    expected = pair.theirs.score(
        [Row(prompt=text, seen=(PICTURES[place % 2],)) for place, text in enumerate(texts)], [TARGETS] * 3
    )
    pair.assert_same_scores(pair.ours.backend.score(rows, [TARGETS] * 3), expected)


@families(quick=(*KINDS, "internvl", "paligemma"))
def test_typed_control_tokens_are_read_as_text(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)

    def rows(seen: Sequence[Seen]) -> list[Row]:
        texts = [PROMPT, *(f"say {token} now" for token in FAMILIES[name].control_tokens.split()), QUESTION]
        return [Row(prompt=text, seen=(seen[place % 2],)) for place, text in enumerate(texts)]

    targets = [TARGETS[:1]] * len(rows(PICTURES))
    pair.assert_same_scores(
        pair.ours.backend.score(rows(see(pair)), targets), pair.theirs.score(rows(PICTURES), targets)
    )


@families(quick=KINDS)
def test_control_tokens_in_a_target_are_scored_as_text(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)
    texts = [f"say {token} now" for token in FAMILIES[name].control_tokens.split()]
    expected = pair.theirs.score(rows_of(PICTURES)[:1], [texts])
    pair.assert_same_scores(pair.ours.backend.score(rows_of(see(pair))[:1], [texts]), expected)


def test_families_without_an_entry_are_among_those_that_work() -> None:
    # The laws above hold for them by the common path: a family is a builder here, and an entry only where it differs.
    assert FAMILIES.keys() >= {"aya_vision", "glm4v"}
    assert not {"aya_vision", "glm4v"} & KNOWN.keys()


def test_what_is_known_not_to_work_is_refused_before_its_weights_are_read(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    for name, family in FAMILIES.items():
        if not family.is_supported:
            folder = Path(shutil.copytree(folder_of(name), tmp_path / name))
            (folder / "model.safetensors").unlink()
            with pytest.raises(CheckpointError) as caught:
                vli.load(folder)
            assert_one_line(caught.value)
            assert AutoConfig.from_pretrained(folder).model_type in caught.value.message


@families(quick=("llava",))
def test_media_that_a_family_does_not_take_fail_alone(name: str, pair_of: Callable[[str], Pair]) -> None:
    backend, all_media = pair_of(name).ours.backend, {"picture": PICTURES[0], "clip": clip(), "sound": sound()}
    assert backend.abilities.media == FAMILIES[name].media
    outcomes = dict(zip(all_media, backend.see(list(all_media.values())), strict=True))
    assert {kind for kind, outcome in outcomes.items() if not isinstance(outcome, Failed)} == FAMILIES[name].media
    for outcome in outcomes.values():
        if isinstance(outcome, Failed):
            assert_one_line(outcome.error)


@families(quick=KINDS)
def test_a_prompt_is_counted_by_its_tokens_without_those_of_the_picture(
    name: str, pair_of: Callable[[str], Pair]
) -> None:
    pair = pair_of(name)
    rows = rows_of(see(pair))
    long, short, alone = pair.ours.backend.num_tokens([rows[0], rows[2], rows[3]])
    assert long is not None
    assert short is not None
    assert alone is not None
    expected = [pair.theirs.context(row)["input_ids"].shape[1] for row in (rows_of(PICTURES)[0], rows_of(PICTURES)[2])]
    assert long.prompt - short.prompt == expected[0] - expected[1]
    assert short.prompt <= expected[1]
    assert alone.prompt <= short.prompt or not FAMILIES[name].has_template
