"""A 1x1 convolution whose weights are scaled by gates, in place of a map."""

from typing import Literal

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
    """

    def __init__(self, conv: nn.Conv2d, gates: SEGates, scales: Literal["input", "output"]) -> None:
        super().__init__()
        self.conv = conv
        self.gates = gates
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)."""
        images = len(x)
        s = self.gates(x).flatten(1)
        # (N, C_out, C_in)
        weight = self.conv.weight.flatten(1) * (s.unsqueeze(1) if self.scales == "input" else s.unsqueeze(2))
        kernels = weight.flatten(0, 1).unsqueeze(-1).unsqueeze(-1)
        bias = self.conv.bias
        if bias is not None:
            bias = (bias.expand(images, -1) if self.scales == "input" else bias * s).flatten()
        if images == 1:
            return nn.functional.conv2d(x, kernels, bias)
        y = nn.functional.conv2d(x.flatten(0, 1).unsqueeze(0), kernels, bias, groups=images)
        return y.reshape(images, -1, *x.shape[2:])

    def extra_repr(self) -> str:
        """Return what the gates scale."""
        return f"scales={self.scales!r}"
