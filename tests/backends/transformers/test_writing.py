"""Ways to write: piece by piece, sampled, with beams, penalties and guesses; test_families.py has the greedy way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from picture_fixtures import make_picture
from recorded_operations import record
from torch import Tensor

from vlinstruct.backend import Row, Seen, Written
from vlinstruct.backends.recordings import Recordings, compile_on_cpu
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import good

from .conftest import Pair
from .test_families import families

if TYPE_CHECKING:
    from vlinstruct.backends.transformers.any_vlm import TransformersBackend

# One each of: positions that depend on the picture, linear attention, a sliding window, cross-attention, a prefix
# language model, encoder-decoders.
KINDS = ("qwen2_5_vl", "qwen3_5", "gemma3", "mllama", "paligemma", "blip2_t5", "florence2")
QUICK = ("qwen3_5", "gemma3", "blip2_t5")
# Sliding windows, linear attention, cross-attention, an encoder: more than keys and values of every position.
KEEP_MORE = ("qwen3_5", "gemma3", "gemma4", "mllama", "blip2_t5", "florence2", "aya_vision")
PICTURES = (make_picture(80, 60, seed=1), make_picture(200, 60, seed=2))


kinds = pytest.mark.parametrize("name", KINDS)
quick_kinds = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in KINDS]
)


def rows_of(seen: Sequence[Seen]) -> list[Row]:
    return [
        Row(prompt="Describe the image in one sentence, please.", seen=(seen[0],)),
        Row(prompt="How many red dogs are there?", seen=(seen[1],)),
        Row(prompt="How many red dogs are there?"),
    ]


def our_rows(pair: Pair) -> list[Row]:
    return rows_of([good(outcome) for outcome in pair.ours.see_each(PICTURES)])


@kinds
def test_pieces_join_to_the_text_that_is_written_at_once(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)
    settings = GenerationSettings(max_new_tokens=8)
    rows = our_rows(pair)
    for row, expected in zip(rows, pair.theirs.write(rows_of(PICTURES), settings), strict=True):
        *pieces, written = pair.ours.backend.stream(row, settings)
        assert isinstance(written, Written)
        pair.assert_same_texts([written], [expected])
        assert "".join(piece for piece in pieces if isinstance(piece, str)) == written.text


@kinds
def test_other_calls_between_two_pieces_change_nothing(name: str, pair_of: Callable[[str], Pair]) -> None:
    backend, (first, second, alone) = pair_of(name).ours.backend, our_rows(pair_of(name))
    settings = GenerationSettings(max_new_tokens=8)
    for row in (first, alone):
        expected = list(backend.stream(row, settings))
        pieces = []
        for piece in backend.stream(row, settings):
            pieces.append(piece)
            backend.score([second, alone], [["yes"], ["no"]])
        assert [piece for piece in pieces if isinstance(piece, str)] == [
            piece for piece in expected if isinstance(piece, str)
        ]
        pair_of(name).assert_same_texts([pieces[-1]], [expected[-1]])


@quick_kinds
def test_threads_that_call_at_the_same_time_get_their_own(name: str, pair_of: Callable[[str], Pair]) -> None:
    backend, rows = pair_of(name).ours.backend, our_rows(pair_of(name))
    settings = GenerationSettings(max_new_tokens=5)
    expected = [backend.write([row], settings)[0] for row in rows]
    with ThreadPoolExecutor(max_workers=3) as threads:
        outcomes = [outcome for (outcome,) in threads.map(lambda row: backend.write([row], settings), rows * 3)]
    pair_of(name).assert_same_texts(outcomes, expected * 3)


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(max_new_tokens=6, num_beams=3),
        pytest.param(GenerationSettings(max_new_tokens=8, num_beams=5, length_penalty=-1.0), marks=pytest.mark.slow),
        pytest.param(GenerationSettings(max_new_tokens=8, repetition_penalty=1.5), marks=pytest.mark.slow),
        pytest.param(GenerationSettings(max_new_tokens=8, num_beams=2, repetition_penalty=3.0), marks=pytest.mark.slow),
    ],
    ids=lambda settings: f"{settings.num_beams} beams, {settings.length_penalty}, {settings.repetition_penalty}",
)
@kinds
def test_beams_and_penalties_are_those_of_generate(
    name: str, settings: GenerationSettings, pair_of: Callable[[str], Pair]
) -> None:
    pair = pair_of(name)
    expected = pair.theirs.write(rows_of(PICTURES), settings)
    pair.assert_same_texts(pair.ours.backend.write(our_rows(pair), settings), expected)


@quick_kinds
def test_a_sample_depends_on_seed_and_draw_and_not_on_its_neighbours(name: str, pair_of: Callable[[str], Pair]) -> None:
    backend, rows = pair_of(name).ours.backend, our_rows(pair_of(name))
    settings = GenerationSettings(max_new_tokens=8, do_sample=True, seed=3)
    rows += [replace(row, draw=1) for row in rows]
    together = [good(outcome) for outcome in backend.write(rows, settings)]
    alone = [good(backend.write([row], settings)[0]) for row in rows]
    assert [written.text for written in together] == [written.text for written in alone]
    assert len({written.text for written in together[::3]}) == 2, "another draw is another sample"
    other_seed = [good(outcome).text for outcome in backend.write(rows, replace(settings, seed=4))]
    assert other_seed != [written.text for written in together]


@quick_kinds
def test_a_likely_sample_is_the_greedy_text(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)
    greedy = GenerationSettings(max_new_tokens=6)
    for sampling in ({"top_p": 1e-6}, {"temperature": 1e-4}):
        settings = replace(greedy, do_sample=True, **sampling)
        # Their likelihoods are the model's own, whatever they were drawn with.
        pair.assert_same_texts(
            pair.ours.backend.write(our_rows(pair), settings), pair.theirs.write(rows_of(PICTURES), greedy)
        )


@quick_kinds
def test_a_guess_changes_no_text(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)
    settings = GenerationSettings(max_new_tokens=8)
    plain = pair.ours.backend.write(our_rows(pair), settings)
    texts = [good(outcome).text for outcome in plain]
    for guesses in (texts, texts[::-1], ["<image> How many red dogs are there?"] * len(texts)):
        rows = [replace(row, guess=guess) for row, guess in zip(our_rows(pair), guesses, strict=True)]
        pair.assert_same_texts(pair.ours.backend.write(rows, settings), plain)


@families(quick=("qwen2_5_vl", "blip2_opt", "gemma3"))
def test_replayed_tokens_are_the_plain_ones(
    name: str, pair_of: Callable[[str], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call records, the second replays what was recorded of other pictures and words."""
    pair, settings = pair_of(name), GenerationSettings(max_new_tokens=8)
    backend = cast("TransformersBackend", pair.ours.backend)

    def recorded(compute: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
        # transformers asks whether a stream is being recorded, and leaves out then what waits for the device.
        with monkeypatch.context() as patch:
            patch.setattr("transformers.utils.import_utils.is_cuda_stream_capturing", lambda: True)
            return record(compute, inputs)

    rows, recordings = our_rows(pair), Recordings(recorded)
    calls = (rows[:1], rows[1:2], rows, rows[::-1])
    plain = [backend.write(call, settings) for call in calls]
    monkeypatch.setattr(backend, "recordings", recordings)
    for call, expected in zip(calls, plain, strict=True):
        pair.assert_same_texts(backend.write(call, settings), expected)
    assert recordings.is_broken == (name == "blip2_opt")  # OPT counts positions by its mask: found out, and left
    assert (recordings.num_replays > 0) == (name not in KEEP_MORE)


# torch's own compiler imports what torch deprecates.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.slow
def test_compiled_tokens_are_the_plain_ones(
    pair_of: Callable[[str], Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    pair, settings = pair_of("qwen2_5_vl"), GenerationSettings(max_new_tokens=8)
    rows, recordings = our_rows(pair)[:2], Recordings(compile_on_cpu, max_rows=1)
    plain = [pair.ours.backend.write([row], settings) for row in rows]
    monkeypatch.setattr(pair.ours.backend, "recordings", recordings)
    for row, expected in zip(rows, plain, strict=True):
        pair.assert_same_texts(pair.ours.backend.write([row], settings), expected)
    assert recordings.num_replays > 0
    assert not recordings.is_broken
