"""A 1x1 convolution whose weights are scaled by gates, in place of a map."""

from typing import Literal

import torch
from torch import Tensor, nn

from senet.deployment.rewriting.modules import SEGates

__all__ = ["ScaledConv"]


class ScaledConv(nn.Module):
    """A 1x1 convolution with SE on its input or output, whose gates scale the weights instead of the map.

    W (s * x) = (W diag(s)) x, and s * (W x + b) = (diag(s) W) x + s * b. Each image has weights of its own, which are
    fewer numbers than a large map.

    Args:
        conv: 1x1, without groups, stride and padding.
        gates: of its input or output, from its input.
        scales: what the gates scale.
        matmul: compute a matrix product of positions by channels, instead of a convolution of one group per image.
    """

    def __init__(
        self, conv: nn.Conv2d, gates: SEGates, scales: Literal["input", "output"], *, matmul: bool = False
    ) -> None:
        super().__init__()
        self.conv = conv
        self.gates = gates
        self.scales = scales
        self.matmul = matmul

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)."""
        s = self.gates(x).flatten(1)
        weight = self.conv.weight.flatten(1) * (s.unsqueeze(1) if self.scales == "input" else s.unsqueeze(2))
        bias = self.conv.bias
        if bias is not None:
            bias = bias.expand(len(x), -1) if self.scales == "input" else bias * s
        return self._matmul(x, weight, bias) if self.matmul else self._convolution(x, weight, bias)

    def _matmul(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # The order of channels_last in memory.
        y = torch.matmul(x.permute(0, 2, 3, 1).flatten(1, 2), weight.transpose(1, 2))
        if bias is not None:
            y = y + bias.unsqueeze(1)
        return y.reshape(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)

    def _convolution(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        images = len(x)
        kernels = weight.flatten(0, 1).unsqueeze(-1).unsqueeze(-1)
        bias = None if bias is None else bias.flatten()
        if images == 1:
            return nn.functional.conv2d(x, kernels, bias)
        y = nn.functional.conv2d(x.flatten(0, 1).unsqueeze(0), kernels, bias, groups=images)
        return y.reshape(images, -1, *x.shape[2:])

    def extra_repr(self) -> str:
        """Return what the gates scale."""
        return f"scales={self.scales!r}, matmul={self.matmul}"
