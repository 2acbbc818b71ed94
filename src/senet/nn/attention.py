"""Kinds of channel attention that have SE's form: rows that say which layers compute the gates from the squeeze."""

# Annotations stay text, as in `senet.nn.block`.
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from senet.utils.choices import Attention, Gate

__all__ = ["ATTENTIONS", "AttentionKind", "ChannelConv"]


class ChannelConv(nn.Conv1d):
    """A convolution over neighbouring channels, with zeros at both ends: one filter for all channels (ECA-Net).

    Its odd length is near log2(C) / 2 + 1 / 2 (Wang et al. 2020, equation 12), and 3 or more.

    Args:
        channels: C.
        bias: whether there is a bias, one for all channels.
    """

    def __init__(self, channels: int, bias: bool) -> None:
        nearest = int((math.log2(channels) + 1) / 2)
        length = max(nearest if nearest % 2 else nearest + 1, 3)
        super().__init__(1, 1, length, padding=length // 2, bias=bias)

    def forward(self, input: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        """(*N, C) -> (*N, C)."""
        return super().forward(input.reshape(-1, 1, input.shape[-1])).reshape(input.shape)


@dataclass(frozen=True, kw_only=True)
class AttentionKind:
    """The excitation of a kind of channel attention: `gate(last(...))`, with SE's hidden layer or without.

    Attributes:
        hidden: whether there is a hidden layer, C to C / r, with an activation.
        last: function of C and whether there is a bias; returns the layer that is followed by the gate. With a hidden
            layer it is None, and the layer is linear, hidden to C.
        gate: the gate, unless another one is given.
        bias: whether layers have biases, unless given.
        key: the name of the last layer in timm's module, whose state dict loads; "" for SE's.
    """

    hidden: bool
    last: Callable[[int, bool], nn.Module] | None
    gate: Gate
    bias: bool
    key: str


def _linear(channels: int, bias: bool) -> nn.Module:
    return nn.Linear(channels, channels, bias=bias)


ATTENTIONS: dict[Attention, AttentionKind] = {
    # Hu et al., Squeeze-and-Excitation Networks.
    "se": AttentionKind(hidden=True, last=None, gate="sigmoid", bias=True, key=""),
    # Wang et al. 2020, ECA-Net (arXiv 1910.03151).
    "eca": AttentionKind(hidden=False, last=ChannelConv, gate="sigmoid", bias=False, key="conv"),
    # Lee and Park 2020, CenterMask (arXiv 1911.06667): effective SE, in VoVNetV2.
    "ese": AttentionKind(hidden=False, last=_linear, gate="hard_sigmoid", bias=True, key="fc"),
}
