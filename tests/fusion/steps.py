"""Steps of training of two networks, compared."""

import torch
from torch import Tensor, nn

from tests.helpers import assert_close


def run(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output, and all gradients as one vector, with the same random numbers in every call."""
    torch.manual_seed(3)
    x = x.clone().requires_grad_()
    out = model(x)
    model.zero_grad()
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
    leaves = [x, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
    return out.detach(), torch.cat([leaf.grad.flatten() for leaf in leaves if leaf.grad is not None])


def check_same(model: nn.Module, other: nn.Module, x: Tensor, relative: float = 1e-12) -> None:
    """Compare two steps of training and an evaluation, with statistics."""
    for _ in range(2):
        for one, two in zip(run(model, x), run(other, x), strict=True):
            assert_close(one, two, relative)
    for one, two in zip(model.buffers(), other.buffers(), strict=True):
        assert_close(one, two, relative)
    assert_close(model.eval()(x), other.eval()(x), relative)
    model.train(), other.train()


def is_map(x: object) -> bool:
    """Return whether an object is a tensor of a map."""
    return isinstance(x, Tensor) and x.ndim > 2
