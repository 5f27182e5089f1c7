from multiprocessing import get_context

import torch
from torch import nn

from pretrain_mini.parallel import Peers, shared_slots


def test_gradients_and_clocks_are_averaged() -> None:
    slots = shared_slots(2, 3)
    slots[1] = torch.tensor([3.0, 5.0, 7.0, 30.0])
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([1.0, 1.0]), torch.zeros(1)
    average = Peers(0, slots, get_context("spawn").Barrier(1))
    assert average.average(parameters, elapsed_s=10.0) == 20.0
    assert parameters[0].grad.tolist() == [2.0, 3.0]
    assert parameters[1].grad.tolist() == [3.5]


def test_every_process_gets_what_the_others_updated() -> None:
    slots = shared_slots(2, 3)
    slots[1, :2] = torch.tensor([5.0, 6.0])
    mine, theirs = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(2))
    Peers(0, slots, get_context("spawn").Barrier(1)).pass_on([[mine], [theirs]])
    assert theirs.tolist() == [5.0, 6.0]
    assert mine.tolist() == [1.0]
    assert slots[0, 0] == 1.0
