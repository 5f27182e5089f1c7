import pytest
import torch
from torch import nn

from pretrain_mini.architecture import mini_config, new_model
from pretrain_mini.optimizers import Muon, Optimizers


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.lm_head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5)


def _sizes(optimizer: torch.optim.Optimizer) -> list[int]:
    return sorted(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])


def test_only_matrices_between_hidden_states_go_to_muon() -> None:
    optimizers = Optimizers(_Model(), nn.Linear(4, 3), weight_decay=0.0)
    assert _sizes(optimizers.muon) == [16]
    assert _sizes(optimizers.adamw) == [3, 4, 5, 12, 20, 20]


def test_a_step_moves_what_has_a_gradient_by_its_own_rate() -> None:
    model = _Model()
    optimizers = Optimizers(model, nn.Linear(4, 3), weight_decay=0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.hidden.weight.grad, model.words.weight.grad = torch.randn(4, 4), torch.randn(5, 4)
    optimizers.step(muon_rate=0.0, adamw_rate=0.1)
    after = model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"words.weight"}
    assert model.words.weight.grad is None


def test_the_processes_share_the_matrices_out() -> None:
    model, heads = _Model(), nn.Linear(4, 3)
    model.second = nn.Linear(4, 8)
    first, second = (Optimizers(model, heads, weight_decay=0.0, rank=rank, processes=2) for rank in (0, 1))
    assert _sizes(first.muon) == [16]
    assert _sizes(second.muon) == [32]
    assert _sizes(first.adamw) == _sizes(second.adamw)
    assert [[id(one) for one in share] for share in first.shares] == [
        [id(one) for one in share] for share in second.shares
    ]


def test_queries_that_attend_without_a_scale_learn_slower() -> None:
    model = new_model(mini_config(20, 20), seed=0)
    optimizers = Optimizers(model, nn.Linear(4, 3), weight_decay=0.0)
    slower, plain = optimizers.muon.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)].rsplit(".", 2)[-2] for parameter in slower["params"]} == {"q"}
    assert not any(names[id(parameter)].endswith(".q.weight") for parameter in plain["params"])
    assert slower["share"] == pytest.approx(32**-0.5)


def test_matrices_move_as_by_torchs_muon_up_to_its_rounding() -> None:
    before = [torch.randn(shape) for shape in ((24, 16), (16, 24), (16, 16), (16, 24))]
    ours, theirs = ([nn.Parameter(matrix.clone()) for matrix in before] for _ in range(2))
    optimizer = Muon(ours, lr=1e-2, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = other.grad = torch.randn(mine.shape)
        optimizer.step()
        reference.step()
    for mine, other, start in zip(ours, theirs, before, strict=True):
        assert (mine - other).norm() < 0.03 * (other - start).norm()
