"""The mix of two maps whose gradients have coefficients of their own.

A module apart from `shake_mix.py`: the tests check shapes there by wrapping functions, and `torch.compile` does not
accept an `autograd.Function` with wrapped methods.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["MixFunction"]


class MixFunction(torch.autograd.Function):
    """`alpha y1 + (1 - alpha) y2`, with gradients as if beta were alpha."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y1: Tensor, y2: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        """Mix y1 and y2, (N, C, H, W), by alpha, (N, 1, 1, 1)."""
        return torch.lerp(y2, y1, alpha)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep beta, (N, 1, 1, 1), for backward."""
        ctx.save_for_backward(inputs[3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return the gradients of y1 and y2, (N, C, H, W)."""
        (beta,) = ctx.saved_tensors
        return beta * gradients[0], (1 - beta) * gradients[0], None, None
