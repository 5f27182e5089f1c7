"""A prepacked weight multiplies as the weight does, and follows it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vlinstruct.backend import Row, Written
from vlinstruct.backends.instructblip import prepacked
from vlinstruct.backends.instructblip.attention import ready
from vlinstruct.backends.instructblip.language_model import Head
from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import TokenScores, good

pytestmark = pytest.mark.skipif(
    prepacked.platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available(),
    reason="weights are prepacked on x86 alone",
)

FEW = 5  # positions: more than one, fewer than MOST_POSITIONS
WORN_IN = 9  # products, after the last of which there is a copy


@pytest.fixture(autouse=True)
def pack_small_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepacked, "LEAST_NUMBERS", 1)
    monkeypatch.setattr(prepacked, "LEAST_WIDTH", 1)


def layer(kind: type[nn.Linear] = nn.Linear, *, bias: bool = True) -> nn.Linear:
    """A frozen layer that may have a copy."""
    torch.manual_seed(0)
    linear = kind(48, 64, bias=bias).requires_grad_(False)
    prepacked.allow_prepacking(linear)
    return linear


def copy_of(linear: nn.Module) -> Tensor | None:
    keeper = linear.__dict__["prepacked"]
    assert isinstance(keeper, prepacked.Prepacked)
    return keeper._copy


def used(linear: nn.Linear, num_positions: int = FEW, times: int = WORN_IN) -> Tensor:
    """The last of several products, checked against torch's own."""
    hidden = torch.randn(1, num_positions, 48)
    with torch.inference_mode():
        for _ in range(times):
            product = ready(linear)(hidden)
    assert product.shape == (1, num_positions, 64)
    assert torch.allclose(product, F.linear(hidden, linear.weight, linear.bias), rtol=1e-5, atol=1e-5)
    return product


@pytest.mark.parametrize("kind", [nn.Linear, Head])
@pytest.mark.parametrize("bias", [True, False])
def test_a_copy_multiplies_as_the_weight(kind: type[nn.Linear], bias: bool) -> None:
    linear = layer(kind, bias=bias)
    used(linear, times=WORN_IN - 1)
    assert copy_of(linear) is None
    used(linear, times=1)
    assert copy_of(linear) is not None
    for num_positions in (1, 2, 32, prepacked.MOST_POSITIONS, prepacked.MOST_POSITIONS + 1):
        used(linear, num_positions)


@pytest.mark.parametrize("num_positions", [1, prepacked.MOST_POSITIONS + 1])
def test_what_gains_nothing_is_not_copied(num_positions: int) -> None:
    linear = layer()
    used(linear, num_positions, times=3 * WORN_IN)
    assert copy_of(linear) is None


def doubled(linear: nn.Linear) -> None:
    with torch.no_grad():
        linear.weight.mul_(2)


def replaced(linear: nn.Linear) -> None:
    linear.weight = nn.Parameter(torch.randn(64, 48), requires_grad=False)


def loaded(linear: nn.Linear) -> None:
    linear.load_state_dict({**linear.state_dict(), "weight": torch.randn(64, 48)})


def assigned(linear: nn.Linear) -> None:
    linear.load_state_dict({**linear.state_dict(), "weight": torch.randn(64, 48)}, assign=True)


def exchanged(linear: nn.Linear) -> None:
    linear.weight.data = torch.randn(64, 48)


def in_the_same_place(linear: nn.Linear) -> None:
    linear.weight = nn.Parameter(linear.weight.data.mul_(2), requires_grad=False)


@pytest.mark.parametrize("change", [doubled, replaced, loaded, assigned, exchanged, in_the_same_place])
def test_a_copy_follows_its_weight(change: Callable[[nn.Linear], None]) -> None:
    linear = layer()
    before = used(linear)
    change(linear)
    assert not torch.allclose(used(linear, times=1), before)
    used(linear)
    assert copy_of(linear) is not None


def test_a_copied_layer_makes_its_own() -> None:
    linear = layer()
    used(linear)
    other = copy.deepcopy(linear)
    assert copy_of(other) is None
    doubled(other)
    used(other)
    assert copy_of(other) is not None
    used(linear)


def test_gradients_flow_through_the_weight() -> None:
    linear = layer()
    used(linear)
    hidden = torch.randn(1, FEW, 48, requires_grad=True)
    ready(linear)(hidden).sum().backward()
    assert hidden.grad is not None
    assert torch.allclose(hidden.grad[0, 0], linear.weight.sum(0), atol=1e-5)


def test_other_numbers_have_no_copy() -> None:
    for other in (layer().double(), layer().to(torch.bfloat16)):
        hidden = torch.randn(1, FEW, 48, dtype=other.weight.dtype)
        with torch.inference_mode():
            for _ in range(2 * WORN_IN):
                ready(other)(hidden)
        assert copy_of(other) is None


def test_what_learns_has_no_copy() -> None:
    linear = layer().requires_grad_(True)
    used(linear, times=2 * WORN_IN)
    assert copy_of(linear) is None


@pytest.mark.parametrize("free", [None, 10])
def test_without_room_nothing_is_copied(free: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepacked, "available_bytes", lambda: free)
    assert "prepacked" not in layer().__dict__


@pytest.mark.parametrize(("limit", "value"), [("LEAST_NUMBERS", 64 * 48 + 1), ("LEAST_WIDTH", 49)])
def test_small_layers_have_no_copy(limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepacked, limit, value)
    assert "prepacked" not in layer().__dict__


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("language_model", ["t5", "llama"])
def test_texts_and_scores_stay_the_same(
    language_model: str, ema: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_models.write_folder(language_model, tmp_path, seed=5)
    picture = Image.effect_noise((40, 30), 90).convert("RGB")

    def outcomes(times: int) -> tuple[list[Written], list[TokenScores]]:
        backend = load_backend(tmp_path, device="cpu")
        backend.network.use_ema = ema
        for _ in range(times):
            seen = [good(outcome) for outcome in backend.see([picture])]
            rows = [Row(prompt="what is it", seen=tuple(seen), reads="what is it", guess="it is a red star")]
            written = backend.write(rows, GenerationSettings(max_new_tokens=12))
            scores = [of_row[0] for of_row in map(good, backend.score(rows, [["a red star"]]))]
        made = [name for name, module in backend.network.named_modules() if "prepacked" in module.__dict__]
        parts = {name.split(".")[0] for name in made if copy_of(backend.network.get_submodule(name)) is not None}
        assert parts == (set() if times == 1 else {"vision_model", "qformer", "language_model"})
        return [good(outcome) for outcome in written], scores

    (plain, plain_scores), (packed, packed_scores) = outcomes(1), outcomes(WORN_IN)
    assert [text.text for text in packed] == [text.text for text in plain]
    for text, expected in zip(packed, plain, strict=True):
        assert list(text.token_nll or ()) == tiny_models.same_nll(list(expected.token_nll or ()))
    for score, expected_score in zip(packed_scores, plain_scores, strict=True):
        assert list(score.token_nll) == tiny_models.same_nll(list(expected_score.token_nll))
