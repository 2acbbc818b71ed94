"""Networks whose convolutions are of classes of their own, as those of StyleGAN."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import senet
from senet.insertion.sites import explain
from tests.insertion.traced.test_structures import Of


class Equalized(nn.Module):
    """A convolution whose weight is scaled when it runs."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(outputs, inputs, kernel, kernel)),
            nn.Parameter(torch.zeros(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight[0].numel() ** -0.5
        return F.conv2d(x, self.weight * scale, self.bias, padding=self.weight.shape[-1] // 2)


class Modulated(nn.Module):
    """A convolution whose weight is scaled by a style."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.weight, self.style = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel)), nn.Linear(4, inputs)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        images, channels, *sides = x.shape
        weight = self.weight * self.style(style)[:, None, :, None, None]
        maps = x.reshape(1, images * channels, *sides)
        y = F.conv2d(maps, weight.flatten(0, 1), padding=self.weight.shape[-1] // 2, groups=images)
        return y.reshape(images, -1, *sides)


def test_residual_units_of_own_convolutions() -> None:
    def unit(inputs: int, outputs: int) -> nn.Module:
        layers = {"first": Equalized(inputs, inputs), "second": Equalized(inputs, outputs)}
        forward = lambda m, x: m.second(m.first(x).relu()) + m.skip(x)  # noqa: E731
        return Of(forward, skip=Equalized(inputs, outputs, 1), **layers)

    model = nn.Sequential(Equalized(3, 8), nn.ReLU(), unit(8, 8), unit(8, 12), Equalized(12, 1))
    found = explain(model.eval(), example=torch.randn(1, 3, 16, 16))
    assert [(site.name, site.rule) for site in found.sites] == [("2.second", "residual"), ("3.second", "residual")]
    assert [(other.name, other.reason.split(":")[0]) for other in found.excluded] == [("0", "stem"), ("4", "head")]


def test_plain_layers_of_own_convolutions() -> None:
    model = nn.Sequential(*(m for c in (3, 8, 8) for m in (Equalized(c, 8), nn.ReLU())), nn.AdaptiveAvgPool2d(1))
    x = torch.randn(1, 3, 16, 16)
    before = model(x)
    assert [site.name for site in senet.find_sites(model, example=x)] == ["3"]
    assert torch.equal(senet.insert(model, example=x, reduction=2).eval()(x), before)


def test_images_that_a_generator_adds_are_outputs() -> None:
    """Each resolution adds an image to the resized one before it (StyleGAN2)."""

    def generate(m: nn.Module, style: Tensor) -> Tensor:
        x, image = m.const.expand(style.shape[0], -1, -1, -1), 0
        for layers in (m.one, m.two):
            x = F.interpolate(x, scale_factor=2)
            for layer in layers[:-1]:
                x = F.leaky_relu(layer(x, style), 0.2)
            image = layers[-1](x, style) + (F.interpolate(image, scale_factor=2) if isinstance(image, Tensor) else 0)
        return image  # type: ignore[return-value]

    layers = [nn.ModuleList([Modulated(8, 8), Modulated(8, 8), Modulated(8, 3, 1)]) for _ in range(2)]
    model = Of(generate, one=layers[0], two=layers[1])
    model.register_parameter("const", nn.Parameter(torch.randn(1, 8, 4, 4)))
    found = senet.find_sites(model.eval(), example=torch.randn(2, 4))
    assert [(site.name, site.rule) for site in found] == [(f"{name}", "block") for name in ("one.1", "two.0", "two.1")]


def test_scales_of_channels_are_no_convolutions() -> None:
    scale = Of(lambda m, x: x * m.weight)
    scale.register_parameter("weight", nn.Parameter(torch.ones(1, 8, 1, 1)))
    model = nn.Sequential(Equalized(3, 8), scale, Equalized(8, 8), nn.ReLU(), Equalized(8, 1))
    found = explain(model.eval(), example=torch.randn(1, 3, 16, 16))
    assert ([site.name for site in found.sites], [other.name for other in found.excluded]) == (["3"], ["0", "4"])
