"""What is streamed is what is generated, piece by piece and never taken back."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from tiny_models import same_nll
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import vlinstruct as vli
from vlinstruct.backend import Row, Seen, Written
from vlinstruct.backends import decoding
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.language_model import LanguageModel
from vlinstruct.backends.instructblip.tokenization import TextTokenizer
from vlinstruct.backends.text_pieces import text_pieces
from vlinstruct.errors import TextError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Exchange, TokenCount, good

MINI_TOKENIZER = Path(vli.__file__).parent / "mini" / "weights" / "tokenizer.json"


@pytest.fixture(scope="module")
def loaded(tiny_folders: dict[str, Path]) -> dict[str, InstructBlipBackend]:
    names = {**{kind: str(folder) for kind, folder in tiny_folders.items()}, "mini": "mini"}
    return {kind: vli.load(name, device="cpu").backend for kind, name in names.items()}


@pytest.fixture(params=["t5", "llama", "mini"])
def model(request: pytest.FixtureRequest, loaded: dict[str, InstructBlipBackend]) -> InstructBlipBackend:
    return loaded[request.param]


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))


def seen_by(model: InstructBlipBackend, image: Image.Image) -> tuple[Seen, ...]:
    return tuple(map(good, model.see([image])))


def byte_level_tokenizer() -> Tokenizer:
    """One piece per byte, as in GPT-2's and Llama 3's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"<eos>": 0, **{piece: 1 + index for index, piece in enumerate(alphabet)}}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "t5": lambda: tiny_models.text_tokenizer("t5"),
    "llama": lambda: tiny_models.text_tokenizer("llama"),
    "byte_fallback": lambda: Tokenizer.from_file(str(MINI_TOKENIZER)),
    "byte_level": byte_level_tokenizer,
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> TextTokenizer:
    return TextTokenizer(TOKENIZERS[request.param](), eos_id=1)


@pytest.fixture
def byte_fallback() -> TextTokenizer:
    return TextTokenizer(TOKENIZERS["byte_fallback"](), eos_id=1)


SETTINGS = [
    GenerationSettings(max_new_tokens=20),
    GenerationSettings(max_new_tokens=1),
    GenerationSettings(max_new_tokens=12, repetition_penalty=1.7),
    GenerationSettings(max_new_tokens=6, num_beams=3),
    *(GenerationSettings(max_new_tokens=16, do_sample=True, temperature=4.0, seed=seed) for seed in range(2)),
    GenerationSettings(max_new_tokens=8, do_sample=True, top_p=0.7, seed=2**64 - 1),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=range(len(SETTINGS)))
def test_what_is_streamed_is_what_is_written(
    model: InstructBlipBackend, image: Image.Image, settings: GenerationSettings
) -> None:
    seen = seen_by(model, image)
    for row in (
        Row(prompt="what is it?", seen=seen, reads="what is it?"),
        Row(prompt="c?", seen=seen, reads="c?", history=(Exchange(question="a?", answer="b"),), draw=3),
        Row(prompt="what is it?"),
    ):
        (written,) = map(good, model.write([row], settings))
        *pieces, last = model.stream(row, settings)
        assert "".join(pieces) == written.text
        assert isinstance(last, Written)
        assert replace(last, token_nll=None) == replace(written, token_nll=None)
        assert last.token_nll == same_nll(written.token_nll)
        assert (last.token_nll is None) == (settings.num_beams > 1)


def test_the_first_piece_is_there_before_the_rest_is_computed(
    model: InstructBlipBackend, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = GenerationSettings(max_new_tokens=16, do_sample=True, temperature=3.0, seed=3)
    decoded: list[torch.Tensor] = []
    original = type(model.network.language_model).decode

    def counted(self: LanguageModel, input_ids: torch.Tensor, state: object) -> torch.Tensor:
        decoded.append(input_ids)
        return original(self, input_ids, state)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model.network.language_model), "decode", counted)
    pieces = model.stream(Row(prompt="what?", seen=seen_by(model, image), reads="what?"), settings)
    first = next(pieces)
    num_decoded = len(decoded)
    rest = list(pieces)
    assert first
    assert rest
    assert num_decoded < len(decoded)


@pytest.mark.parametrize(
    "written", ["a café", "🙂 and 👩‍🚀", "日本語 in the picture", "  two  spaces ", "🙂", "\u00e9"]
)
def test_a_character_of_several_bytes_is_streamed_whole(
    written: str, loaded: dict[str, InstructBlipBackend], image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded["mini"]
    ids = model.tokenizer.target_ids(written)
    script = itertools.cycle(ids)

    def scripted(scores: torch.Tensor, is_penalized: torch.Tensor, penalty: float) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(script)]), scores.shape[1])

    monkeypatch.setattr(decoding, "penalize_repetition", scripted)
    row, settings = (
        Row(prompt="what?", seen=seen_by(model, image), reads="what?"),
        GenerationSettings(max_new_tokens=len(ids), repetition_penalty=2.0),  # any but 1, which penalizes nothing
    )
    (whole,) = map(good, model.write([row], settings))
    pieces = [piece for piece in model.stream(row, settings) if isinstance(piece, str)]
    assert "".join(pieces) == whole.text == written.strip()
    assert not any("\ufffd" in piece for piece in pieces)


def test_no_text_is_taken_back_whatever_ids_come(tokenizer: TextTokenizer) -> None:
    draw = random.Random(0)
    num_ids = tokenizer.tokenizer.get_vocab_size() + 3  # a model's vocabulary may be larger than its tokenizer's
    for _ in range(600):
        ids = [draw.randrange(num_ids) for _ in range(draw.randrange(20))]
        assert "".join(text_pieces(tokenizer, ids)) == tokenizer.decode(ids).strip()


def test_a_run_of_bytes_that_ends_badly_is_not_shown_before_it_ends(byte_fallback: TextTokenizer) -> None:
    a, *accent = (byte_fallback.tokenizer.token_to_id(piece) for piece in ("▁a", "<0xC3>", "<0xA9>"))
    lone = accent[1]
    assert byte_fallback.decode([a, *accent]) == "aé"
    # The decoder takes the accent back where its run goes on: that is why runs wait for their end.
    assert byte_fallback.decode([a, *accent, lone]) == "a\ufffd\ufffd\ufffd"
    assert list(text_pieces(byte_fallback, [a, *accent, lone])) == ["a", "\ufffd\ufffd\ufffd"]
    without_a_piece = byte_fallback.tokenizer.get_vocab_size()
    for between in ([2], [without_a_piece]):  # such a one and a special token leave a run a run
        assert list(text_pieces(byte_fallback, [a, *accent, *between, lone])) == ["a", "\ufffd\ufffd\ufffd"]


def test_white_space_is_shown_with_what_follows_it(byte_fallback: TextTokenizer) -> None:
    ids = [byte_fallback.tokenizer.token_to_id(piece) for piece in ("▁", "▁a", "▁", "▁star", "▁")]
    assert list(text_pieces(byte_fallback, ids)) == ["a", "  star"]
    assert not list(text_pieces(byte_fallback, ids[:1]))
    assert not list(text_pieces(byte_fallback, []))


@pytest.mark.parametrize(("kind", "expected"), [("t5", 512), ("llama", 2048 - 4), ("mini", 512)])
def test_a_prompt_has_the_room_that_the_picture_leaves(
    kind: str,
    expected: int,
    loaded: dict[str, InstructBlipBackend],
    image: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = loaded[kind]

    def counted(**row: Any) -> TokenCount:
        (count,) = model.num_tokens([Row(prompt="what?", **row)])
        assert count is not None
        assert count.prompt == len(model.tokenizer.prompt_ids("what?"))
        assert count.is_room_shared == (kind == "llama")
        return count

    seen = seen_by(model, image)
    count = counted(seen=seen, reads="a b")
    assert (count.prompt + (count.room or 0), count.reads) == (expected, 4)
    alone = counted()
    assert (alone.prompt + (alone.room or 0), alone.reads) == (expected + (4 if kind == "llama" else 0), 0)
    monkeypatch.setattr(model.network, "use_ema", True)
    with_ema = counted(seen=seen)
    assert with_ema.prompt + (with_ema.room or 0) == expected - (4 if kind == "llama" else 0)


def test_a_conversation_counts_as_it_is_spelt(model: InstructBlipBackend) -> None:
    row = Row(prompt="c?", history=(Exchange(question="a?", answer="b"),))
    is_mini = model.identity.entry is not None  # it learnt no conversation
    spelling = "c?" if is_mini else "Question: a? Answer: b Question: c? Answer:"
    (spelt, whole) = model.num_tokens([row, Row(prompt=spelling)])
    assert spelt == whole


def test_the_text_of_a_prompt_that_is_too_long_is_an_error(loaded: dict[str, InstructBlipBackend]) -> None:
    with pytest.raises(TextError, match="the language model takes 2048"):
        next(loaded["llama"].stream(Row(prompt="x" * 3000), GenerationSettings()))
