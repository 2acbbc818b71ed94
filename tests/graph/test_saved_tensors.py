"""Of whole networks, `tests/costs/test_cost.py` compares what is saved with a training step on tensors with values."""

import torch
from torch import nn

from senet.graph.saved_tensors import saved_bytes


def test_what_each_layer_saves() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, momentum=None), nn.ReLU(), nn.ReLU())
    # The image; the output of the convolution, with mean and deviation of the batch; and the output of each ReLU.
    image, map_ = 4 * 2 * 3 * 100, 4 * 2 * 8 * 64
    assert saved_bytes(model.eval(), torch.empty(2, 3, 10, 10)) == image + 3 * map_ + 2 * 4 * 8
    assert not model.training
    assert model[1].momentum is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
