"""Blocks with the children of a residual unit in the tables, whose modules run in another order."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet import find_sites


class Block(nn.Module):
    """Children of a basic unit; subclasses run them."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs)
        self.downsample = None if inputs == outputs and stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def skip(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)


class Basic(Block):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.skip(x))


class Projected(Block):
    """`conv3 bn3` is the projection, as in a bottleneck without its last layer."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, stride)
        self.conv3, self.bn3 = nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
        del self.downsample
        self.downsample = inputs != outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.bn3(self.conv3(x)))


class ProjectedOnce(Projected):
    """The projection runs in some blocks only."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.bn3(self.conv3(x)) if self.downsample else x))


class PreActivation(Block):
    """Defined as `conv1 bn1 conv2 bn2`, and run as `bn1 conv1 bn2 conv2`."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x)))))) + self.skip(x)  # type: ignore[no-any-return]


class WithThird(Block):
    """Another convolution, and possibly another norm, after `bn2`."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, norm: bool = False) -> None:
        super().__init__(inputs, outputs, stride)
        self.conv3, self.norm3 = nn.Conv2d(outputs, outputs, 1), nn.BatchNorm2d(outputs) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))))
        return F.relu((y if self.norm3 is None else self.norm3(y)) + self.skip(x))


class WithThirdNorm(WithThird):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, stride, norm=True)


class Downsampled(Block):
    """`downsample` comes before the unit, and the skip is its output."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(outputs, outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        x = self.skip(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)


def network(kind: type[Block]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), kind(8, 8), kind(8, 16, 2), kind(16, 16))


@pytest.mark.parametrize("example", [None, torch.randn(1, 3, 16, 16)])
@pytest.mark.parametrize(
    ("kind", "end", "rule"),
    [
        (Basic, "bn2", "table"),
        (Projected, "bn2", "residual"),
        (ProjectedOnce, "bn2", "residual"),
        (PreActivation, "conv2", "residual"),
        (WithThird, "conv3", "residual"),
        (WithThirdNorm, "norm3", "residual"),
        (Downsampled, "bn2", "residual"),
    ],
)
def test_a_unit_is_known_by_the_order_in_which_its_children_run(
    kind: type[Block], end: str, rule: str, example: Tensor | None
) -> None:
    """Of one class, all units are found by one rule, so that their stages are counted alike."""
    sites = find_sites(network(kind), example=example)
    assert [(site.name, site.rule) for site in sites] == [(f"{place}.{end}", rule) for place in (2, 3, 4)]


def test_a_traced_network_has_no_sites_at_modules_that_do_not_run() -> None:
    """In a network that torch.fx traced, units are containers, and only their children run."""
    model = torch.fx.symbolic_trace(network(Basic))
    assert [site.name for site in find_sites(model)] == ["2.bn2", "3.bn2", "4.bn2"]
    with pytest.raises(ValueError, match=r"'3' \(Module\) has the children of a residual unit, but it does not run"):
        find_sites(model, "post")
