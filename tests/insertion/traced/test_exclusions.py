"""The reasons of modules without a site are true of the network."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet.insertion.sites import explain


def layer(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.first, self.second = layer(channels, channels), layer(channels, channels)[:2]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Pools(nn.Module):
    """The pools of SPPF: no branch has a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = layer(8, 4, 1), layer(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = layer(8, 8, 3, 2), layer(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(torch.cat([x, F.interpolate(self.down(x), scale_factor=2)], 1))  # type: ignore[no-any-return]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.between, self.unit = layer(3, 8), nn.Conv2d(8, 8, 3, 2, 1), Residual()
        self.time = nn.Linear(4, 8)
        self.pools, self.twice, self.decoder, self.other = Pools(), layer(8, 8), Decoder(), Residual()
        self.scores, self.tokens, self.classifier = nn.Conv2d(8, 2, 1), nn.Linear(2, 3), nn.Linear(2, 3)

    def forward(self, image: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        x = self.unit(self.stem(image)) + self.time(time)[:, :, None, None]
        x = self.between(self.twice(self.twice(self.pools(x))))
        x = self.scores(self.decoder(self.other(x)))
        return self.tokens(x.flatten(2).transpose(1, 2)), self.classifier(x.mean((2, 3)).softmax(-1))


def test_reasons() -> None:
    found = explain(Network().eval(), example=(torch.randn(1, 3, 16, 16), torch.randn(1, 4)))
    assert [site.name for site in found.sites] == ["unit.second.1", "other.second.1"]
    assert {module.name: module.reason for module in found.excluded} == {
        "stem": "stem: no layer comes before it",
        "between": "a convolution by itself: nothing joins in it",
        "time": "no maps: its inputs have no spatial axes",
        "pools": "no unit: no arm of its join has a convolution",
        "twice": "called several times with the same weights",
        "decoder": "no unit: an arm of its join has another resolution, as the skip of a U-Net",
        "scores": "a convolution by itself: nothing joins in it",
        "tokens": "no maps (N, C, *spatial): its channels are on another axis than 1",
        "classifier": "classifier: its maps have no spatial axes",
    }


def test_layers_of_a_unit_without_a_module_have_a_site() -> None:
    class Lists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.layers = layer(3, 8), nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
            self.classifier = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for number in (0, 2):
                x = F.relu(x + self.layers[number + 1](F.relu(self.layers[number](x))))
            return self.classifier(x.mean((2, 3)))  # type: ignore[no-any-return]

    found = explain(Lists().eval(), example=torch.randn(1, 3, 16, 16))
    assert [site.name for site in found.sites] == ["layers.1", "layers.3"]
    assert [module.name for module in found.excluded] == ["stem", "classifier"]
