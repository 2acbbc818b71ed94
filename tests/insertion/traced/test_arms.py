"""What the arms of a join are: their depth, norms in code, pools at their end, codebooks."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

import senet
from tests.insertion.traced.test_structures import Of, conv, sites


class FilterResponseNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias, self.least = (nn.Parameter(torch.ones(1, channels, 1, 1)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        normed = x * torch.rsqrt(x.pow(2).mean((2, 3), keepdim=True) + 1e-6)
        return torch.max(self.weight * normed + self.bias, self.least)


class InstanceNorm(FilterResponseNorm):
    def forward(self, x: Tensor) -> Tensor:
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-5) * self.weight + self.bias


class EnergyGate(FilterResponseNorm):
    """Attention without layers: a gate from the energy of each position (SimAM)."""

    def forward(self, x: Tensor) -> Tensor:
        squares = (x - x.mean((2, 3), keepdim=True)).pow(2)
        return x * torch.sigmoid(self.weight * squares / squares.sum((2, 3), keepdim=True) + self.bias)


def _unit(norm: type[nn.Module]) -> nn.Module:
    layers = {"c1": nn.Conv2d(8, 8, 3, padding=1), "n1": norm(8), "c2": nn.Conv2d(8, 8, 3, padding=1), "n2": norm(8)}
    return Of(lambda m, x: x + m.n2(m.c2(m.n1(m.c1(x)))), **layers)


def test_norms_in_code_are_no_attention() -> None:
    found = sites(_unit(FilterResponseNorm), _unit(InstanceNorm))
    assert found == {"1.n2": "residual", "2.n2": "residual"}
    with pytest.raises(ValueError, match="attention of the network's own"):
        sites(_unit(EnergyGate), _unit(EnergyGate))
    model = resnet18(norm_layer=FilterResponseNorm)
    assert [site.rule for site in senet.find_sites(model)] == ["table"] * 8


def test_a_skip_of_layers_without_an_activation_is_a_skip() -> None:
    def unit(inputs: int, outputs: int) -> nn.Module:
        skip = nn.Sequential(nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs), nn.Conv2d(inputs, outputs, 1))
        last = nn.Sequential(*conv(outputs, outputs)[:2])
        branch = {"a": conv(inputs, outputs), "b": conv(outputs, outputs), "c": last}
        return Of(lambda m, x: m.skip(x) + m.c(m.b(m.a(x))), skip=skip, **branch)

    assert sites(unit(8, 8), unit(8, 12)) == {"1.c.1": "residual", "2.c.1": "residual"}


def test_sums_of_parallel_convolutions_are_no_branch() -> None:
    """Hierarchical sums of dilated convolutions, as in ESPNet, are one layer deep."""

    def unit(m: nn.Module, x: Tensor) -> Tensor:
        y = m.reduce(x)
        maps = [m.a(y)]
        for layer in (m.b, m.c):
            maps.append(maps[-1] + layer(y))
        return x + m.merge(torch.cat(maps, 1))

    def block() -> nn.Module:
        dilated = {name: nn.Conv2d(4, 4, 3, padding=d, dilation=d) for d, name in enumerate("abc", 1)}
        return Of(unit, reduce=conv(8, 4, 1), merge=nn.Sequential(*conv(12, 8, 1)[:2]), **dilated)

    assert sites(block(), block()) == {"1.merge.1": "residual", "2.merge.1": "residual"}


def test_a_pool_in_the_code_at_the_end_of_a_branch_is_no_part_of_it() -> None:
    def unit(inputs: int, outputs: int) -> nn.Module:
        branch = {"a": conv(inputs, outputs), "b": nn.Sequential(*conv(outputs, outputs)[:2])}
        forward = lambda m, x: F.avg_pool2d(m.b(m.a(x)), 2) + F.avg_pool2d(m.skip(x), 2)  # noqa: E731
        return Of(forward, skip=nn.Conv2d(inputs, outputs, 1), **branch)

    assert sites(unit(8, 8), unit(8, 12)) == {"1.b.1": "residual", "2.b.1": "residual"}


def test_a_quantizer_is_no_unit() -> None:
    """Residual vector quantization subtracts the projected vectors of a codebook (DAC)."""

    def quantize(m: nn.Module, x: Tensor) -> Tensor:
        y = m.project(x)
        index = torch.cdist(y.flatten(2).transpose(1, 2), m.book.weight[None]).argmin(-1)
        y = y + (m.book(index).transpose(1, 2).reshape(y.shape) - y).detach()
        return x - m.back(y)

    quantizers = (
        Of(quantize, project=nn.Conv2d(8, 4, 1), book=nn.Embedding(5, 4), back=nn.Conv2d(4, 8, 1)) for _ in range(2)
    )
    assert sites(_unit(nn.BatchNorm2d), _unit(nn.BatchNorm2d), *quantizers) == {"1.n2": "residual", "2.n2": "residual"}


def test_a_cell_may_activate_the_sums_that_it_concatenates() -> None:
    def cell(m: nn.Module, x: Tensor) -> Tensor:
        sums = F.relu(m.a(x) + F.max_pool2d(x, 3, 1, 1)), F.relu(m.b(x) + m.c(x))
        return m.last(torch.cat(sums, 1))  # type: ignore[no-any-return]

    def block() -> nn.Module:
        separable = {name: nn.Sequential(*conv(8, 8), *conv(8, 8)[:2]) for name in "abc"}
        return Of(cell, last=conv(16, 8, 1), **separable)

    assert sites(block(), block()) == {"1": "concat", "2": "concat"}


def test_dense_layers_may_activate_what_they_concatenate() -> None:
    def layer(channels: int) -> nn.Module:
        parts = {"first": conv(channels, 8, 1), "second": nn.Conv2d(8, 4, 3, padding=1)}
        return Of(lambda m, x: F.relu(torch.cat([m.second(m.first(x)), x], 1)), **parts)

    assert sites(layer(8), layer(12), layer(16)) == {f"{n}.second": "dense" for n in (1, 2, 3)}


def test_a_head_of_the_class_of_the_units_has_no_site() -> None:
    class Layer(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.first, self.second = conv(inputs, outputs), nn.Sequential(*conv(outputs, outputs)[:2])

        def forward(self, x: Tensor) -> Tensor:
            y = self.second(self.first(x))
            return F.relu(x + y if x.shape == y.shape else y)

    layers = [Layer(8, 8), Layer(8, 12), Layer(12, 12), Layer(12, 5)]
    expected = {"1.second.1": "residual", "2.second.1": "sibling", "3.second.1": "residual"}
    assert sites(*layers, head=False) == expected
    assert sites(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head=False) == expected
    assert sites(*layers) == expected | {"4.second.1": "sibling"}


def test_the_last_unit_of_a_pyramid_is_no_head() -> None:
    def layer(inputs: int, outputs: int, *, skip: bool) -> nn.Module:
        layers = {"a": conv(inputs, outputs), "b": nn.Sequential(*conv(outputs, outputs)[:2])}
        return Of(lambda m, x: F.relu(m.b(m.a(x)) + x * skip if skip else m.b(m.a(x))), **layers)

    parts = {"x": conv(3, 8), "u1": layer(8, 8, skip=True), "u2": layer(8, 12, skip=False)}
    model = Of(lambda m, x: [x := m.u1(m.x(x)), m.u2(F.max_pool2d(x, 2))], **parts)
    assert [site.name for site in senet.find_sites(model.eval(), example=torch.randn(1, 3, 16, 16))] == [
        "u1.b.1",
        "u2.b.1",
    ]


def test_instance_norms_belong_to_layers() -> None:
    """An instance norm reads its map in another shape (the discriminator of PatchGAN)."""
    layers = [m for _ in range(3) for m in (nn.Conv2d(8, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.LeakyReLU(0.2))]
    model = Of(lambda m, x: m.net(x), net=nn.Sequential(nn.Conv2d(3, 8, 3), *layers, nn.Conv2d(8, 1, 3)))
    found = senet.find_sites(model.eval(), example=torch.randn(1, 3, 16, 16))
    assert [site.name for site in found] == ["net.3", "net.6", "net.9"]


def test_a_map_that_is_scaled_and_shifted_by_others_is_no_unit() -> None:
    """A norm whose scale and shift are made from a second image (SPADE)."""

    class Modulated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.scale, self.shift = nn.BatchNorm2d(8), nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor, image: Tensor) -> Tensor:
            return self.norm(x) * (1 + self.scale(image)) + self.shift(image)  # type: ignore[no-any-return]

    def unit(m: nn.Module, x: Tensor, image: Tensor) -> Tensor:
        return x + m.c2(F.relu(m.n2(m.c1(F.relu(m.n1(x, image))), image)))

    def units() -> nn.Module:
        layers = {"c1": nn.Conv2d(8, 8, 3, padding=1), "c2": nn.Conv2d(8, 8, 3, padding=1)}
        return Of(unit, n1=Modulated(), n2=Modulated(), **layers)

    model = Of(lambda m, x: m.b(m.a(m.stem(x), x), x), stem=conv(3, 8), a=units(), b=units()).eval()
    assert [site.name for site in senet.find_sites(model, example=torch.randn(1, 3, 16, 16))] == ["a.c2", "b.c2"]

    gated = nn.Sequential(*conv(8, 16)[:2])
    layers = {"a": conv(8, 8), "b": nn.Sequential(gated, nn.GLU(1))}
    assert sites(Of(lambda m, x: x + m.b(m.a(x)), **layers)) == {"1.b.1": "residual"}


def twice(m: nn.Module, x: Tensor) -> Tensor:
    return m.add(m.add(m.a(x), m.b(x)), x)  # type: ignore[no-any-return]


def mixed(m: nn.Module, x: Tensor) -> Tensor:
    """Mix the branches in code, as Shake-Shake does."""
    return 0.5 * (m.a(x) + m.b(x)) + x  # type: ignore[no-any-return]


SKIPS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "first": lambda m, x: x + m.a(x) + m.b(x),
    "last": lambda m, x: (m.a(x) + m.b(x)) + x,
    "projected": lambda m, x: m.skip(x) + m.a(x) + m.b(x),
    "mixed": mixed,
    "weighted": lambda m, x: m.bias * m.a(x) + (1 - m.bias) * m.b(x) + x,
    "module called twice": twice,
    "layers": lambda m, x: x + m.a[0](x) + m.skip[0](x),
    "shared": lambda m, x: x + m.a(y := m.skip(x)) + m.b(y),
    "in series": lambda m, x: x + (y := m.a(x)) + m.b(y),
    "normed": lambda m, x: m.norm(m.a(x) + m.b(x)) + x,
    "module": lambda m, x: m.add(m.a(x), m.b(x)) + x,
    "pooled": lambda m, x: x + m.a(x) + F.max_pool2d(x, 3, 1, 1),
    "biased": lambda m, x: x + m.a(x) + m.bias,
}


def _several(way: str) -> nn.Module:
    branches = {name: nn.Sequential(*conv(8, 8), *conv(8, 8)[:2]) for name in "ab"}
    parts = {"norm": nn.BatchNorm2d(8), "skip": conv(8, 8, 1)[:2], "add": Of(lambda m, x, y: x + y)}
    unit = Of(lambda m, x: F.relu(SKIPS[way](m, x)), **branches, **parts)
    unit.bias = nn.Parameter(torch.full((1, 8, 1, 1), 0.4))
    return unit


@pytest.mark.parametrize("way", ["first", "last", "projected", "mixed", "weighted", "module called twice"])
def test_branches_that_are_added_with_the_skip_in_one_forward_end_one_by_one(way: str) -> None:
    """SE on the sum would scale the skip."""
    ends = [f"{unit}.{branch}.4" for unit in "12" for branch in "ab"]
    assert sites(_several(way), _several(way)) == dict.fromkeys(ends, "residual")


def test_one_unit_with_two_branches_is_not_repeated() -> None:
    """It leaves a plain network its blocks, as any single unit does."""
    plain = [conv(8, 8) for _ in range(5)]
    assert sites(*plain, _several("mixed")) == dict.fromkeys(["1.2", "2.2", "3.2", "4.2", "5.2"], "block") | {
        "6.a.4": "residual",
        "6.b.4": "residual",
    }


@pytest.mark.parametrize("way", ["layers", "shared", "in series"])
def test_what_is_added_with_the_skip_in_one_sum_is_no_unit_unless_these_are_branches(way: str) -> None:
    """Single layers, as RepVGG's without norms, become one convolution; branches share no layers."""
    with pytest.raises(ValueError, match=r"several branches and the skip are added in one sum.*at="):
        sites(_several(way), _several(way))


@pytest.mark.parametrize(("way", "end"), [("normed", "norm"), ("module", "add"), ("pooled", "a.4"), ("biased", "a.4")])
def test_the_end_of_a_branch_is_before_all_skips(way: str, end: str) -> None:
    assert sites(_several(way), _several(way)) == {f"1.{end}": "residual", f"2.{end}": "residual"}


def test_all_units_of_a_highway_network_have_post_and_none_standard() -> None:
    def unit(m: nn.Module, x: Tensor) -> Tensor:
        gate = m.gate(x).sigmoid()
        return gate * m.body(x) + (1 - gate) * x  # type: ignore[no-any-return]

    units = [Of(unit, body=conv(8, 8), gate=conv(8, 8)[:2]) for _ in range(3)]
    model = nn.Sequential(conv(3, 8), *units, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)).eval()
    assert [site.name for site in senet.find_sites(model, "post")] == ["1", "2", "3"]
    with pytest.raises(ValueError, match=r"use placement=\"post\", or name modules, such as at=\"\*\.body\.1\""):
        senet.find_sites(model)
