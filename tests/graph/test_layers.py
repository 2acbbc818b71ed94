import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet.graph.layers import layers_of
from senet.graph.recorder import trace


class TinyUNet(nn.Module):
    """A skip across a change of resolution, a residual sum, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.leave = nn.Conv2d(24, 8, 3, padding=1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).relu()
        deep = self.deep(F.max_pool2d(x, 2))
        x = x + self.leave(torch.cat([x, F.interpolate(deep, scale_factor=2)], 1))
        return self.fc(x.mean((2, 3)))


def test_layers_joins_and_changes_of_resolution() -> None:
    layers = layers_of(trace(TinyUNet(), torch.empty(2, 3, 16, 16, device="meta"), functional=True))
    assert [(one.name, one.kind, one.channels, one.spatial, one.sources) for one in layers] == [
        ("enter", "layer", 8, (16, 16), ()),
        ("", "resize", 8, (8, 8), (0,)),
        ("deep.0", "layer", 16, (8, 8), (1,)),
        ("", "resize", 16, (16, 16), (2,)),
        ("", "join", 24, (16, 16), (0, 3)),
        ("leave", "layer", 8, (16, 16), (4,)),
        ("", "join", 8, (16, 16), (0, 5)),
        ("fc", "layer", 2, (), (6,)),
    ]
    assert [one.place for one in layers] == sorted(one.place for one in layers)


def test_channels_last_maps_have_their_resolution() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 8, 1), nn.Linear(8, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.conv(x).permute(0, 2, 3, 1))

    layers = layers_of(trace(Last(), torch.empty(2, 3, 16, 12, device="meta"), functional=True))
    assert [(one.kind, one.channels, one.spatial) for one in layers] == [
        ("layer", 8, (16, 12)),
        ("layer", 32, (16, 12)),
    ]
