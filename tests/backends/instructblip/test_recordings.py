"""What is replayed is what would be computed anew."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny_models
import torch
from PIL import Image
from recorded_operations import record
from torch import Tensor

import vlinstruct as vli
from vlinstruct.backend import Row, Written
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.backends.recordings import Recordings, compile_on_cpu, recordings_on, require_compilation
from vlinstruct.errors import InputError, ResourceError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed, TokenScores, good

QUESTIONS = ("what is it", "say in a few words what there is to see here", "count them")
GREEDY = GenerationSettings(max_new_tokens=12)


def pictures(num: int) -> list[Image.Image]:
    """Pictures of noise."""
    draw = torch.Generator().manual_seed(num)
    return [
        Image.fromarray(torch.randint(0, 255, (40, 30, 3), generator=draw, dtype=torch.uint8).numpy())
        for _ in range(num)
    ]


@pytest.fixture(params=["t5", "llama"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> InstructBlipBackend:
    tiny_models.write_folder(request.param, tmp_path, seed=5)
    return load_backend(tmp_path, device="cpu")


def recorded(backend: InstructBlipBackend, recordings: Recordings | None = None) -> InstructBlipBackend:
    """The same model with recordings."""
    return InstructBlipBackend(
        backend.network,
        image_processor=backend.image_processor,
        tokenizer=backend.tokenizer,
        qformer_tokenizer=backend.qformer_tokenizer,
        identity=backend.identity,
        recordings=recordings or Recordings(record),
    )


def rows_of(backend: InstructBlipBackend, num: int, guess: str = "") -> list[Row]:
    """One row per picture, of different lengths, and one without a picture."""
    seen = [good(outcome) for outcome in backend.see(pictures(num))]
    with_picture = [
        Row(prompt=question, seen=(picture,), reads=question, guess=guess, draw=place)
        for place, (question, picture) in enumerate(zip(itertools.cycle(QUESTIONS), seen, strict=False))
    ]
    return [*with_picture, Row(prompt="rewrite: what is it", guess=guess)]


def assert_replayed(backend: InstructBlipBackend) -> None:
    assert backend.recordings is not None
    assert backend.recordings.num_replays > 0
    assert not backend.recordings.is_broken


def same_texts(outcomes: Sequence[Written | Failed], expected: Sequence[Written | Failed]) -> None:
    for outcome, plain in zip(map(good, outcomes), map(good, expected), strict=True):
        assert outcome.text == plain.text
        assert outcome.is_complete == plain.is_complete
        assert (outcome.token_nll is None) == (plain.token_nll is None)
        assert list(outcome.token_nll or ()) == tiny_models.same_nll(list(plain.token_nll or ()))


@pytest.mark.parametrize("use_ema", [False, True])
@pytest.mark.parametrize(
    ("settings", "guess"),
    [
        (GREEDY, ""),
        (GREEDY, "a guess that is mostly wrong"),
        (GenerationSettings(max_new_tokens=8, temperature=1.3, do_sample=True), ""),
        (GenerationSettings(max_new_tokens=8, repetition_penalty=1.5), ""),
        (GenerationSettings(max_new_tokens=6, num_beams=3), ""),
    ],
)
def test_replayed_texts_are_the_plain_ones(
    backend: InstructBlipBackend, settings: GenerationSettings, guess: str, use_ema: bool
) -> None:
    """The first call records; the later ones replay what was recorded with other pictures and words."""
    backend.network.use_ema = use_ema
    replaying = recorded(backend)
    for num in (1, 2, 1, 2):
        same_texts(
            replaying.write(rows_of(replaying, num, guess), settings),
            backend.write(rows_of(backend, num, guess), settings),
        )
    assert_replayed(replaying)


def test_a_replay_runs_none_of_the_models_python(backend: InstructBlipBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    replaying = recorded(backend)
    expected = [replaying.write(rows_of(replaying, 2, QUESTIONS[1]), GREEDY) for _ in range(2)]
    same_texts(expected[1], expected[0])

    def fail(*_: object) -> None:
        raise AssertionError("the model was asked")

    language_model = type(backend.network.language_model)
    for name in ("prefill", "prefill_reserved", "decode", "target_logits"):
        monkeypatch.setattr(language_model, name, fail)
    for name in ("encode_image", "image_prefix"):
        monkeypatch.setattr(type(backend.network), name, fail)
    same_texts(replaying.write(rows_of(replaying, 2, QUESTIONS[1]), GREEDY), expected[0])


def test_replayed_scores_are_the_plain_ones(backend: InstructBlipBackend) -> None:
    replaying = recorded(backend)
    for num, targets in ((2, ["one two", "three", "a longer text to be scored"]), (2, ["5", "6 7", "8"])):
        outcomes = [
            of.score(rows_of(of, num), [[target] for target in targets[: num + 1]]) for of in (replaying, backend)
        ]
        for row, plain in zip(*(map(good, outcome) for outcome in outcomes), strict=True):
            assert row[0].tokens == plain[0].tokens
            assert list(row[0].token_nll) == tiny_models.same_nll(list(plain[0].token_nll))
    assert_replayed(replaying)


def test_targets_that_share_a_context_are_scored_without_recordings(backend: InstructBlipBackend) -> None:
    replaying, targets = recorded(backend), [["one", "two three"], ["four", "five"]]

    def scored(of: InstructBlipBackend) -> list[float]:
        outcomes: list[list[TokenScores]] = [good(row) for row in of.score(rows_of(of, 1), targets)]
        return [nats for row in outcomes for target in row for nats in target.token_nll]

    assert scored(replaying) == tiny_models.same_nll(scored(backend))


def test_texts_that_are_written_in_turns_do_not_meet(backend: InstructBlipBackend) -> None:
    """The second text finds the state of its shape in use, and is written without; afterwards it is free again."""
    replaying = recorded(backend)
    rows = rows_of(replaying, 3)[:3]
    expected = [good(backend.write([row], GREEDY)[0]).text for row in rows]
    for _ in range(2):
        streams = [replaying.stream(row, GREEDY) for row in (rows[0], rows[2])]
        pieces: list[list[str | Written]] = [[], []]
        for step in itertools.zip_longest(*streams):
            for place, piece in enumerate(step):
                if piece is not None:
                    pieces[place].append(piece)
        texts = [of_text[-1].text for of_text in pieces if isinstance(of_text[-1], Written)]
        assert texts == [expected[0], expected[2]]
    same_texts(replaying.write(rows[1:2], GREEDY), backend.write(rows[1:2], GREEDY))


def test_what_was_seen_stays_when_other_pictures_are_seen(backend: InstructBlipBackend) -> None:
    """Each replay writes into the same memory; what is kept of one must not be that memory."""
    replaying, images = recorded(backend), pictures(3)
    seen = [good(replaying.see([image])[0]) for image in images]
    plain = [good(backend.see([image])[0]) for image in images]
    rows, expected = (
        [Row(prompt="what is it", seen=(picture,), reads="what is it") for picture in of] for of in (seen, plain)
    )
    prefixes = [replaying.write([row], GREEDY)[0] for row in rows]
    same_texts(prefixes, [backend.write([row], GREEDY)[0] for row in expected])
    same_texts(replaying.write(rows, GREEDY), backend.write(expected, GREEDY))


def test_a_model_loaded_with_recordings_optimizes_and_answers_as_one_without(
    backend: InstructBlipBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlinstruct.backends.machine.require_compilation", lambda *_: None)
    opening = "vlinstruct.backends.instructblip.opening"
    monkeypatch.setattr(f"{opening}.recordings_on", lambda *_, **__: Recordings(record))
    plain, replaying = (vli.load(tmp_path, device="cpu", compile=compile) for compile in (False, True))
    for image in pictures(2):
        for settings in ({}, {"choices": ["yes", "no"]}, {"optimize": True, "select": "ias", "when": "always"}):
            answer, expected = (of.ask(image, "what is it", **settings) for of in (replaying, plain))
            assert answer.text == expected.text
            assert answer.certainty == pytest.approx(expected.certainty, abs=1e-5)
    loaded = replaying.backend
    assert isinstance(loaded, InstructBlipBackend)
    assert_replayed(loaded)


def test_texts_that_begin_at_once_get_memory_of_their_own(
    backend: InstructBlipBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stream` holds no lock while it writes."""
    replaying = recorded(backend)
    rows = rows_of(replaying, 3)[:3:2]
    expected = [good(backend.write([row], GREEDY)[0]).text for row in rows]
    language_model = type(backend.network.language_model)
    reserve = language_model.reserve

    def slowly(*arguments: int) -> object:
        time.sleep(0.05)
        return reserve(*arguments)

    monkeypatch.setattr(language_model, "reserve", slowly)

    def streamed(row: Row) -> str:
        *_, written = replaying.stream(row, GREEDY)
        assert isinstance(written, Written)
        return written.text

    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            assert list(pool.map(streamed, rows)) == expected


def test_large_batches_are_computed_anew(backend: InstructBlipBackend) -> None:
    replaying = recorded(backend)
    same_texts(replaying.write(rows_of(replaying, 9)[:9], GREEDY), backend.write(rows_of(backend, 9)[:9], GREEDY))
    assert replaying.recordings is not None
    assert replaying.recordings.num_replays == 0


@pytest.mark.parametrize("num_good", [0, 1, 2, 3])
def test_what_cannot_be_recorded_is_computed_and_told_once(
    backend: InstructBlipBackend, num_good: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever recording is the first that fails: pictures, prefixes, a context or a token."""
    replaying, left = recorded(backend), itertools.count()

    def refusing(compute: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
        if next(left) >= num_good:
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
        return record(compute, inputs)

    assert replaying.recordings is not None
    replaying.recordings.record = refusing
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            same_texts(
                replaying.write(rows_of(replaying, 1)[:1], GREEDY), backend.write(rows_of(backend, 1)[:1], GREEDY)
            )
    warnings = [line.message for line in caplog.records]
    assert len(warnings) == 1
    assert "not permitted when stream is capturing. " in warnings[0]


@pytest.mark.parametrize("num_good", [0, 1, 2, 3])
def test_a_replay_that_differs_is_found_out(
    backend: InstructBlipBackend, num_good: int, caplog: pytest.LogCaptureFixture
) -> None:
    replaying, left = recorded(backend), itertools.count()

    def wrong(compute: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
        replay, output = record(compute, inputs)
        return (replay, output) if next(left) < num_good else (lambda: output.copy_(output.flip(-1)), output)

    assert replaying.recordings is not None
    replaying.recordings.record = wrong
    for _ in range(2):
        same_texts(replaying.write(rows_of(replaying, 1)[:1], GREEDY), backend.write(rows_of(backend, 1)[:1], GREEDY))
    (warning,) = [line.message for line in caplog.records if line.levelno == logging.WARNING]
    assert warning.startswith("--compile: what is replayed differs from what is computed. ")


# torch's own compiler imports what torch deprecates.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.slow
def test_compiled_texts_and_scores_are_the_plain_ones(
    backend: InstructBlipBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was compiled for one picture and its words computes others."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    compiled = recorded(backend, Recordings(compile_on_cpu, max_rows=1))
    for num in (1, 2):
        rows, expected = ([rows_of(of, num, QUESTIONS[0])[num - 1]] for of in (compiled, backend))
        if (
            not backend.network.config.text_config.is_encoder_decoder
        ):  # one of the two suffices for vision tower and Q-Former
            rows = expected = [Row(prompt=QUESTIONS[num], guess=QUESTIONS[0])]
        same_texts(compiled.write(rows, GREEDY), backend.write(expected, GREEDY))
        targets = [["one two three"[: 4 * num]]]
        (scored,), (plain,) = good(compiled.score(rows, targets)[0]), good(backend.score(expected, targets)[0])
        assert list(scored.token_nll) == tiny_models.same_nll(list(plain.token_nll))
    assert_replayed(compiled)


def test_quantized_layers_are_not_recorded() -> None:
    with pytest.raises(InputError, match=r"cannot use --compile \(--quantize 4bit\)"):
        require_compilation(torch.device("cuda"), "4bit")


def test_a_model_whose_products_read_copies_of_weights_is_not_compiled(caplog: pytest.LogCaptureFixture) -> None:
    assert recordings_on(torch.device("cpu"), "large", is_prepacked=True) is None
    assert [line.message for line in caplog.records] == [
        "--compile is left out: on a CPU a model of this size is as fast without"
    ]


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ResourceError, match=r"no compiler for C\+\+ \(no-such-compiler\)"):
        require_compilation(torch.device("cpu"), None)
