"""The networks that are compared: ours, timm's, SE inserted into timm's, and NVIDIA's form of SE."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from common import Side
from torch import Tensor, nn

import senet
from senet.benchmark import open_network
from senet.models.units import PostActivationUnit

__all__ = ["AddcmulUnit", "Networks"]


class Networks:
    """Sides by a short name: "plain", "plain fused", "ours", "timm plain", "timm", "insert" and "addcmul".

    "plain fused" is the second baseline: the kernels of the SE network compute batch norm, sum and ReLU of the plain
    one. The ratio to it is what SE itself costs.

    Each network is built once and reused in all cases: a measured step's learning rate hardly changes it.

    Args:
        small: take ResNet-18, to try the script out, instead of ResNet-50.
        fused: how the SE networks are computed, see `senet.set_fused`.
        kernels: the choice of `senet.set_fused` that fuses the units of a plain network; None where a GPU has none,
            and so no second baseline.
    """

    def __init__(self, small: bool, fused: str, kernels: str | None) -> None:
        self.network = "resnet18" if small else "resnet50"
        # Torchvision's and timm's stride and pool, so that all networks do the same work.
        self._options: dict[str, Any] = {"pool": "pad"} | ({} if small else {"stride_in": "conv2"})
        self._fused, self._kernels = fused, kernels
        self.build = cache(self._build)

    def sides(self, names: Iterable[str]) -> list[Side]:
        """Sides of a case. The plain networks are PyTorch's own modules, without anything fused."""
        plain, timm = self.network, f"timm/{self.network}"
        second = f"{plain}, units fused"
        table: dict[str, tuple[Any, ...]] = {
            "plain": (plain, plain, "off"),
            "plain fused": (second, plain, self._kernels),
            "ours": (f"se_{plain}", plain, self._fused, second),
            "timm plain": (timm, timm, "off"),
            "timm": (f"timm/se{plain}", timm, "off"),
            "insert": (f"{timm} + senet.insert", timm, self._fused),
            "addcmul": (f"{plain}, SE by addcmul (NVIDIA)", plain, "off"),
        }
        if self._kernels is None:
            names = [name for name in names if name != "plain fused"]
        return [Side(table[name][0], self._builder(name), *table[name][1:]) for name in names]

    def _builder(self, name: str) -> Callable[[], nn.Module]:
        return lambda: self.build(name)

    def _build(self, name: str) -> nn.Module:
        torch.manual_seed(0)
        if name.startswith("timm"):
            return open_network(f"timm/{'' if name == 'timm plain' else 'se'}{self.network}")[1]
        if name == "insert":
            return senet.insert(open_network(f"timm/{self.network}")[1], init="paper")
        model = senet.create_model(f"{'se_' if name == 'ours' else ''}{self.network}", **self._options)
        if name == "addcmul":
            for parent in list(model.modules()):
                for key, child in list(parent.named_children()):
                    if isinstance(child, PostActivationUnit):
                        setattr(parent, key, AddcmulUnit(child))
        return model


class AddcmulUnit(nn.Module):
    """A residual unit with SE as NVIDIA's DeepLearningExamples computes it: the strongest form of eager operations.

    The gate comes from 1x1 convolutions of a map of one pixel. `torch.addcmul(residual, out, gate)` scales and sums in
    one kernel, and neither the scaled map nor a product is saved for backward.

    Args:
        unit: the plain unit, whose modules it takes over.
        reduction: as in the paper.
    """

    def __init__(self, unit: PostActivationUnit, reduction: int = 16) -> None:
        super().__init__()
        self.unit = unit
        last: Any = unit.conv3 if unit.bottleneck else unit.conv2
        channels: int = last.out_channels
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.expand = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, h, w)."""
        unit = self.unit
        skip = x if unit.downsample is None else unit.downsample(x)
        y = unit.bn2(unit.conv2(unit.relu(unit.bn1(unit.conv1(x)))))
        if unit.bottleneck:
            y = unit.bn3(unit.conv3(unit.relu(y)))
        gate = torch.sigmoid(self.expand(unit.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        summed: Tensor = unit.relu(torch.addcmul(skip, y, gate))
        return summed
