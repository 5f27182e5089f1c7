from multiprocessing import get_context

import torch
from torch import nn

from vlinstruct.mini.parallel import GradientAverage, shared_slots


def test_gradients_and_clocks_are_averaged() -> None:
    slots = shared_slots(2, 3)
    slots[1] = torch.tensor([3.0, 5.0, 7.0, 30.0])
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([1.0, 1.0]), torch.zeros(1)
    average = GradientAverage(0, slots, get_context("spawn").Barrier(1))
    assert average.average(parameters, elapsed_s=10.0) == 20.0
    assert parameters[0].grad.tolist() == [2.0, 3.0]
    assert parameters[1].grad.tolist() == [3.5]
