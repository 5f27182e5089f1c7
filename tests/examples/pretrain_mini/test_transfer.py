import numpy as np
import torch

from pretrain_mini.guidance import on_device


def test_an_array_arrives_as_it_was() -> None:
    for array in (np.arange(6).reshape(2, 3), np.zeros((0, 2), np.float32)):
        tensor = on_device(array, torch.device("cpu"))
        assert np.array_equal(tensor.numpy(), array)
        assert tensor.numpy().dtype == array.dtype
