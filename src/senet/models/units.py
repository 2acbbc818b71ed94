"""Residual units. `senet.insertion.families` identifies them by the names and the order of their children."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from senet.nn.fused import is_watched
from senet.nn.sum_relu import sum_relu
from senet.utils.errors import not_scriptable

__all__ = ["PadShortcut", "PostActivationUnit", "PreActivationUnit"]


class PadShortcut(nn.Module):
    """A shortcut without parameters: subsample by the stride, and pad with zero channels on both sides.

    He et al. 2015 (arXiv 1512.03385), section 4.2, "option A".

    Args:
        in_channels, out_channels: channels of the unit, in_channels <= out_channels.
        stride: stride of the unit.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        before = (out_channels - in_channels) // 2
        self.padding = (0, 0, 0, 0, before, out_channels - in_channels - before)
        self.stride = stride

    def forward(self, x: Float[Tensor, "N C_in H W"]) -> Float[Tensor, "N C_out h w"]:
        """Map (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class _Unit(nn.Module):
    """Children of both types of unit; see the subclasses."""

    conv1: nn.Module
    bn1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    conv3: nn.Module
    bn3: nn.Module

    def __init__(
        self,
        convolutions: Sequence[nn.Conv2d],
        downsample: nn.Module | None = None,
        drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.bottleneck = len(convolutions) == 3
        for number, convolution in enumerate(convolutions, 1):
            self._add(number, convolution)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.drop_path = drop_path or nn.Identity()
        # Stored here: SE on an identity skip may occupy `downsample` later, and takes x itself.
        self.projects = isinstance(downsample, nn.Conv2d)

    def _add(self, number: int, convolution: nn.Conv2d) -> None:
        raise NotImplementedError

    def __prepare_scriptable__(self) -> NoReturn:
        raise not_scriptable(self)


class PostActivationUnit(_Unit):
    """`relu(branch(x) + skip(x))`; the branch is conv BN ReLU ... conv BN (He et al. 2015, Figure 5).

    Args:
        convolutions: two of a basic unit, or three of a bottleneck.
        downsample: the skip; None is the identity.
        drop_path: stochastic depth on the branch.
    """

    def _add(self, number: int, convolution: nn.Conv2d) -> None:
        self.add_module(f"conv{number}", convolution)
        self.add_module(f"bn{number}", nn.BatchNorm2d(convolution.out_channels))

    def forward(self, x: Float[Tensor, "N C_in H W"]) -> Float[Tensor, "N C_out h w"]:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        skip = x if self.downsample is None else self.downsample(x)
        y, last = self.conv2(self.relu(self.bn1(self.conv1(x)))), self.bn2
        if self.bottleneck:
            y, last = self.conv3(self.relu(last(y))), self.bn3
        fused = sum_relu(last, y, skip) if self._is_plain_sum() else None
        return self.relu(self.drop_path(last(y)) + skip) if fused is None else fused

    def _is_plain_sum(self) -> bool:
        """Return whether only a sum and a ReLU, without hooks, follow the branch."""
        between = type(self.drop_path) is nn.Identity and not is_watched(self.drop_path)
        return between and type(self.relu) is nn.ReLU and not is_watched(self.relu)


class PreActivationUnit(_Unit):
    """`branch(x) + skip(x)`; the branch is BN ReLU conv ... BN ReLU conv (He et al. 2016, arXiv 1603.05027).

    A projection takes x after the first batch norm and ReLU, as in the authors' code; any other skip takes x itself.

    Args:
        convolutions: two of a basic unit, or three of a bottleneck.
        downsample: the skip; None is the identity.
        drop_path: stochastic depth on the branch.
    """

    def _add(self, number: int, convolution: nn.Conv2d) -> None:
        self.add_module(f"bn{number}", nn.BatchNorm2d(convolution.in_channels))
        self.add_module(f"conv{number}", convolution)

    def forward(self, x: Float[Tensor, "N C_in H W"]) -> Float[Tensor, "N C_out h w"]:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        y = self.relu(self.bn1(x))
        skip = x if self.downsample is None else self.downsample(y if self.projects else x)
        y = self.conv2(self.relu(self.bn2(self.conv1(y))))
        if self.bottleneck:
            y = self.conv3(self.relu(self.bn3(y)))
        return self.drop_path(y) + skip  # type: ignore[no-any-return]
