"""The rules that distinguish units from other joins, each in a small network; expected sites are written by hand."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

import senet
from senet.insertion.sites import explain


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), norm, nn.ReLU())


class Residual(nn.Module):
    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.first, self.second = conv(channels, channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


class Of(nn.Module):
    """A module of named parts with a forward of its own."""

    def __init__(self, forward: Callable[..., object], **parts: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *maps: Tensor) -> object:
        return self._forward(self, *maps)


def sites(*modules: nn.Module, head: bool = True) -> dict[str, str]:
    """Names and rules of the sites in a stem, some modules and a classifier: the first module is "1"."""
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(2)] if head else []
    model = nn.Sequential(conv(3, 8), *modules, *last).eval()
    model(torch.randn(1, 3, 16, 16))
    return {site.name: site.rule for site in senet.find_sites(model, example=torch.randn(1, 3, 16, 16))}


class Parallel(nn.Module):
    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.large, self.small = nn.Conv2d(inputs, channels, 3, padding=1), nn.Conv2d(inputs, channels, 1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.large(x) + self.small(x))


def test_parallel_convolutions_of_the_image_are_the_stem() -> None:
    model = nn.Sequential(Parallel(3, 8), Parallel(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    found = explain(model.eval(), example=torch.randn(1, 3, 16, 16))
    assert [(site.name, site.rule) for site in found.sites] == [("1", "parallel")]
    assert found.excluded[0].name == "0"
    assert "stem" in found.excluded[0].reason


def test_a_branch_cut_into_residual_and_dense_channels_ends_before_the_cut() -> None:
    def dual(m: nn.Module, x: Tensor) -> Tensor:
        y = m.last(m.first(x))
        return torch.cat([x[:, :6] + y[:, :6], x[:, 6:], y[:, 6:]], 1)

    found = sites(
        Of(dual, first=conv(8, 8), last=nn.Conv2d(8, 10, 1)), Of(dual, first=conv(12, 8), last=nn.Conv2d(8, 10, 1))
    )
    assert found == {"1.last": "residual", "2.last": "residual"}


def test_a_sum_of_slices_within_a_block_is_no_unit() -> None:
    def scales(m: nn.Module, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return torch.cat([a, b + m.inner(a)], 1)

    found = sites(Residual(), Of(scales, inner=nn.Sequential(conv(4, 4), conv(4, 4))))
    assert found["1.norm"] == "residual"
    assert "residual" not in {rule for name, rule in found.items() if name != "1.norm"}


def test_convolutions_alone_are_no_branch() -> None:
    """An encoding of positions in a transformer; the logits of a segmentation network."""
    position = Of(lambda m, x: x + m.encode(x), encode=nn.Conv2d(8, 8, 3, padding=1, groups=8))
    assert sites(position, Residual()) == {"2.norm": "residual"}
    logits = Of(lambda m, x: x + m.last(x), last=nn.Conv2d(8, 8, 3, padding=1))
    assert sites(Residual(), logits, head=False) == {"1.norm": "residual"}


class Listed(nn.Sequential):
    """A sequence with a forward of its own, which concatenates."""

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for module in self:
            maps.append(module(maps[-1]))
        return torch.cat(maps, 1)


def test_the_block_around_a_sequence_that_concatenates_is_the_site() -> None:
    block = Of(lambda m, x: m.join(m.layers(x)), layers=Listed(conv(8, 4), conv(4, 4)), join=conv(16, 8, 1))
    assert sites(block) == {"1": "concat"}


def test_the_layer_that_joins_is_the_site_where_a_block_returns_a_list() -> None:
    def lists(m: nn.Module, x: Tensor) -> list[Tensor]:
        a = m.a(x)
        y = m.join(torch.cat([a, m.b(a), m.c(x)], 1))
        return [y, y]

    block = Of(lists, a=conv(8, 8), b=conv(8, 8), c=conv(8, 8), join=conv(24, 8, 1))
    assert sites(block, Of(lambda m, maps: maps[0])) == {"1.join.2": "concat"}


def test_the_layer_that_joins_is_the_site_where_a_strided_convolution_follows() -> None:
    block = Of(
        lambda m, x: m.down(m.join(torch.cat([m.a(x), m.b(x)], 1))),
        a=conv(8, 8),
        b=conv(8, 8),
        join=conv(16, 8, 1),
        down=conv(8, 8, 3, 2),
    )
    assert sites(block) == {"1.join.2": "concat"}


def test_a_block_with_attention_after_its_join_is_no_unit() -> None:
    def attention(m: nn.Module, x: Tensor) -> Tensor:
        y = torch.cat([m.a(x), m.b(x)], 1).flatten(2)
        return (y.transpose(1, 2) @ y).softmax(-1).matmul(y.transpose(1, 2)).transpose(1, 2).reshape_as(x)

    assert sites(Residual(), Of(attention, a=conv(8, 4), b=conv(8, 4))) == {"1.norm": "residual"}


def test_merging_a_feature_pyramid_is_no_unit() -> None:
    def merge(m: nn.Module, x: Tensor) -> Tensor:
        small = m.down(x)
        up = F.interpolate(m.c(small), scale_factor=2.0)
        return torch.stack([m.a(F.interpolate(m.lateral(small), scale_factor=2.0)), m.b(up)]).sum(0)

    parts = {name: conv(8, 8) for name in "abc"} | {"lateral": nn.Conv2d(8, 8, 1), "down": conv(8, 8, 3, 2)}
    assert sites(Residual(), Residual(), Of(merge, **parts)) == {"1.norm": "residual", "2.norm": "residual"}


def test_sums_of_stacked_maps_are_joins() -> None:
    weights = torch.tensor([1.0, 0.5])
    forms = {
        "sum": lambda x, y: torch.stack([x, y], 1).sum(1),
        "mean": lambda x, y: torch.stack([x, y], -1).mean(dim=-1),
        "scaled": lambda x, y: (torch.stack([x, y]) * weights.view(2, 1, 1, 1, 1)).sum(0),
        "unsqueezed": lambda x, y: torch.cat([x[:, None], y[:, None]], 1).sum(1),
        "einsum": lambda x, y: torch.einsum("knchw->nchw", torch.stack([x, y])),
        "weighted": lambda x, y: torch.einsum("nkchw,k->nchw", torch.stack([x, y], 1), weights),
        "tensordot": lambda x, y: torch.tensordot(weights, torch.stack([x, y]), dims=1),
    }

    def unit(form: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
        return Of(lambda m, x: F.relu(form(x, m.last(m.first(x)))), first=conv(8, 8), last=nn.Conv2d(8, 8, 1))

    assert sites(*map(unit, forms.values())) == {f"{i}.last": "residual" for i in range(1, len(forms) + 1)}


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda both: both.amax(0), id="no sum"),
        pytest.param(lambda both: both.sum(0) * both.amax(0), id="another reader"),
        pytest.param(lambda both: torch.einsum("knchw,kj->jnchw", both, torch.ones(2, 2)).amax(0), id="two sums"),
        pytest.param(lambda both: (both * both.amax(0)).sum(0), id="weighted by a map"),
    ],
)
def test_a_stack_that_is_not_summed_alone_is_no_join(form: Callable[[Tensor], Tensor]) -> None:
    def stacked(m: nn.Module, x: Tensor) -> Tensor:
        return form(torch.stack([x, m.last(m.first(x))]))

    block = Of(stacked, first=conv(8, 8), last=nn.Conv2d(8, 8, 1))
    assert sites(Residual(), block) == {"1.norm": "residual"}


def test_dense_layers_follow_each_other_and_a_single_skip_is_none() -> None:
    def layer(inputs: int) -> nn.Module:
        body = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 4, 3, padding=1))
        return Of(lambda m, x: torch.cat([x, m.body(x)], 1), body=body)

    assert sites(layer(8), layer(12)) == {"1.body.2": "dense", "2.body.2": "dense"}
    assert sites(Residual(), layer(8), conv(12, 8)) == {"1.norm": "residual"}


def test_a_concatenated_branch_ends_before_the_join_with_a_pooled_skip() -> None:
    def down(m: nn.Module, x: Tensor) -> Tensor:
        return F.relu(torch.cat([m.norm(m.last(m.first(x))), F.avg_pool2d(x, 3, 2, 1)], 1))

    block = Of(down, first=conv(8, 8, 3, 2), last=nn.Conv2d(8, 8, 1), norm=nn.BatchNorm2d(8))
    assert sites(block, Residual(16)) == {"1.norm": "concat", "2.norm": "residual"}


def test_a_gate_at_lower_resolution_within_a_branch_is_no_skip_over_resolutions() -> None:
    def gated(m: nn.Module, x: Tensor) -> Tensor:
        gate = F.interpolate(m.gate(F.max_pool2d(x, 2)), scale_factor=2.0).sigmoid()
        return F.relu(x + m.norm(m.last(m.first(x) * gate)))

    parts = {"gate": conv(8, 8), "first": conv(8, 8), "last": nn.Conv2d(8, 8, 1), "norm": nn.BatchNorm2d(8)}
    assert sites(Of(gated, **parts)) == {"1.norm": "residual"}


class Optional(nn.Module):
    """A unit with a skip, or without, whose output passes the same activation."""

    def __init__(self, skip: bool) -> None:
        super().__init__()
        self.skip, self.body, self.act = skip, nn.Sequential(*conv(8, 8), *conv(8, 8)[:2]), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.body(x) if self.skip else self.body(x))


def test_a_unit_without_a_skip_has_the_place_of_its_siblings() -> None:
    assert sites(Optional(True), Optional(False)) == {"1.body.4": "residual", "2.body.4": "sibling"}


def test_a_block_ends_after_the_norm_outside_of_a_wrapped_convolution() -> None:
    def double(m: nn.Module, x: Tensor) -> Tensor:
        return m.act(m.norm2(m.conv2(m.act(m.norm1(m.conv1(x))))))

    def block() -> nn.Module:
        wrapped = {f"conv{i}": Of(lambda m, x: m.conv(x), conv=nn.Conv2d(8, 8, 3, padding=1)) for i in (1, 2)}
        norms = {f"norm{i}": nn.InstanceNorm2d(8, affine=True) for i in (1, 2)}
        return Of(double, **wrapped, **norms, act=nn.ReLU())

    assert sites(block(), block()) == {"1": "block", "2": "block"}


def test_bare_convolutions_and_convolutional_classifiers_are_no_blocks() -> None:
    def decoder(m: nn.Module, x: Tensor) -> Tensor:
        return m.merge(torch.cat([x, m.up(m.mid(F.max_pool2d(x, 2)))], 1))

    unet = Of(
        decoder, mid=nn.Sequential(conv(8, 16), conv(16, 16)), up=nn.ConvTranspose2d(16, 8, 2, 2), merge=conv(16, 8)
    )
    assert set(sites(unet, conv(8, 8))) == {"1.mid.0.2", "1.mid.1.2", "1.merge.2", "2.2"}
    model = nn.Sequential(conv(3, 8), conv(8, 8), conv(8, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert [site.name for site in senet.find_sites(model, example=torch.randn(1, 3, 16, 16))] == ["1.2"]


def test_the_mlp_of_a_transformer_is_no_unit() -> None:
    def block(m: nn.Module, x: Tensor) -> Tensor:
        x = x + m.value(x) * m.query(x).flatten(2).softmax(-1).reshape(x.shape)
        return x + m.mlp(x)

    mlp = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 1))
    transformer = Of(block, query=nn.Conv2d(8, 8, 1), value=nn.Conv2d(8, 8, 1), mlp=mlp)
    assert sites(Residual(), transformer) == {"1.norm": "residual"}


def test_a_cell_ends_at_the_concatenation_of_its_sums() -> None:
    def cell(m: nn.Module, x: Tensor) -> Tensor:
        y = m.first(x)
        return torch.cat([m.a(y) + y, m.b(y) + m.c(y)], 1)

    assert sites(Of(cell, first=conv(8, 8), a=conv(8, 8), b=conv(8, 8), c=conv(8, 8))) == {"1": "concat"}


@pytest.mark.parametrize("mean", [False, True])
def test_a_convolution_with_an_activation_is_a_branch_and_no_skip(mean: bool) -> None:
    def fractal(m: nn.Module, x: Tensor) -> Tensor:
        maps = torch.stack([m.short(x), m.long(x)])
        return maps.mean(0) if mean else maps.sum(0)

    block = Of(fractal, short=conv(8, 8), long=nn.Sequential(conv(8, 8), conv(8, 8)))
    assert sites(block) == {"1": "parallel"}


class Gate(nn.Module):
    """Attention of another kind, which pools by itself, as in CBAM and ECA."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1)[..., None, None].sigmoid()


def test_a_network_whose_units_have_attention_is_refused_and_gets_no_blocks() -> None:
    def unit() -> nn.Module:
        return Of(
            lambda m, x: F.relu(x + m.attend(m.second(m.first(x)))), first=conv(8, 8), second=conv(8, 8), attend=Gate()
        )

    with pytest.raises(ValueError, match=r"2\.attend is attention .* \(Gate\).*take the plain network, or .*at="):
        sites(conv(8, 8), unit(), unit(), conv(8, 8))
    model = nn.Sequential(conv(3, 8), unit(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    assert [site.name for site in senet.find_sites(model, at="1.second.1")] == ["1.second.1"]


def test_attention_in_some_units_leaves_the_others_their_sites() -> None:
    attending = Of(lambda m, x: x + m.attend(m.second(m.first(x))), first=conv(8, 8), second=conv(8, 8), attend=Gate())
    assert sites(Residual(), attending, Residual()) == {"1.norm": "residual", "3.norm": "residual"}


def test_a_product_of_maps_is_attention() -> None:
    def linear(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (f(x).flatten(2) for f in (m.q, m.k, m.v))
        return x + m.project((v @ k.transpose(1, 2) @ q).reshape(x.shape))

    parts = {name: nn.Conv2d(8, 8, 1) for name in "qkv"}
    assert sites(Residual(), Of(linear, **parts, project=conv(8, 8))) == {"1.norm": "residual"}


def test_an_activated_pointwise_convolution_is_a_skip_and_a_spatial_one_a_branch() -> None:
    def unit(kernel: int) -> nn.Module:
        body = nn.Sequential(conv(8, 8), conv(8, 8), conv(8, 8)[:2])
        return Of(lambda m, x: F.relu(m.skip(x) + m.body(x)), skip=conv(8, 8, kernel), body=body)

    assert list(sites(unit(1)).values()) == ["residual"]
    assert list(sites(unit(3)).values()) == ["parallel"]


class Unread(nn.Module):
    """A network that runs its last unit, and returns the map before it."""

    def __init__(self, unit: type[nn.Module], *arguments: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 8), unit(*arguments), conv(8, 8), conv(8, 8))
        self.last = unit(*arguments)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        self.last(y)
        return torch.as_tensor(y)


@pytest.mark.parametrize(("unit", "arguments", "rule"), [(Residual, (8,), "residual"), (BasicBlock, (8, 8), "table")])
def test_units_that_do_not_affect_the_output_get_no_site(
    unit: type[nn.Module], arguments: tuple[int, ...], rule: str
) -> None:
    found = explain(Unread(unit, *arguments).eval(), example=torch.randn(1, 3, 16, 16))
    assert [(site.unit, site.rule) for site in found.sites] == [("body.1", rule)]
    assert ("last", "does not affect the output") in [(e.name, e.reason) for e in found.excluded]


class ListOfUnits(nn.Module):
    """Units without a module of their own: layers and skips in lists, skips of one width an `Identity`."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(8, 8), (8, 8), (8, 16), (16, 16)]
        self.stem = conv(3, 8)
        self.layers = nn.ModuleList(nn.Sequential(conv(i, o), conv(o, o)[0], nn.BatchNorm2d(o)) for i, o in widths)
        self.skips = nn.ModuleList(nn.Identity() if i == o else nn.Conv2d(i, o, 1) for i, o in widths)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer, skip in zip(self.layers, self.skips, strict=True):
            x = F.relu(layer(x) + skip(x))
        return x


def test_a_skip_of_the_next_unit_is_no_output_of_this_one() -> None:
    model, image = ListOfUnits().eval(), torch.randn(1, 3, 16, 16)
    assert [s.name for s in senet.find_sites(model, example=image)] == [f"layers.{n}.2" for n in range(4)]
    with pytest.raises(ValueError, match="placement 'post'"):  # after a ReLU of F
        senet.find_sites(model, "post", example=image)
    with pytest.raises(ValueError, match="placement 'identity' needs a projection"):
        senet.find_sites(model, "identity", example=image)


def test_a_unit_without_expansion_has_its_own_end() -> None:
    """The first unit of MobileNetV2 has no expansion: its fourth layer is the end, and the depthwise one elsewhere."""

    class Inverted(nn.Module):
        def __init__(self, inputs: int, outputs: int, expansion: int) -> None:
            super().__init__()
            hidden, self.skip = inputs * expansion, inputs == outputs
            first = conv(inputs, hidden, 1) if expansion > 1 else nn.Sequential()
            depthwise = nn.Sequential(
                nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden), nn.BatchNorm2d(hidden), nn.ReLU()
            )
            self.conv = nn.Sequential(*first, *depthwise, nn.Conv2d(hidden, outputs, 1), nn.BatchNorm2d(outputs))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(x) if self.skip else self.conv(x)  # type: ignore[no-any-return]

    units = (Inverted(8, 8, 1), Inverted(8, 16, 4), Inverted(16, 16, 4))
    assert list(sites(*units)) == ["1.conv.4", "2.conv.7", "3.conv.7"]


def test_layers_that_only_gate_another_map_are_attention() -> None:
    """The attention gate of a U-Net: its mask has layers, and a sum of two of them, on the way to a sigmoid."""

    def gate(m: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        return x * m.psi(F.relu(m.wg(g) + m.wx(x)))

    def unet(m: nn.Module, x: Tensor) -> Tensor:
        g = m.up(m.low(F.max_pool2d(x, 2)))
        return m.merge(torch.cat([m.gate(x, g), g], 1))

    def layer(channels: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(8, channels, 1), nn.BatchNorm2d(channels))

    attention = Of(gate, wg=layer(8), wx=layer(8), psi=nn.Sequential(*layer(1), nn.Sigmoid()))
    parts = {"low": conv(8, 8), "up": nn.ConvTranspose2d(8, 8, 2, 2), "merge": conv(16, 8)}
    model = nn.Sequential(conv(3, 8), Of(unet, gate=attention, **parts), nn.Conv2d(8, 2, 1)).eval()
    found = explain(model, example=torch.randn(1, 3, 16, 16))
    assert [site.name for site in found.sites] == ["1.low.2", "1.merge.2"]
    assert ("1.gate", "attention: its output only gates other maps") in [(e.name, e.reason) for e in found.excluded]


def test_units_within_a_mask_are_attention_and_those_of_an_activation_are_not() -> None:
    """The mask of a residual attention network scales by `1 + sigmoid`; `x * sigmoid(x)` is SiLU."""
    silu = Of(lambda m, x: (y := m.body(x)) * torch.sigmoid(1.7 * y), body=nn.Sequential(Residual(), Residual()))
    masked = Of(lambda m, x: m.trunk(x) * (1 + m.mask(x).sigmoid()), trunk=Residual(), mask=Residual())
    assert set(sites(silu, masked)) == {"1.body.0.norm", "1.body.1.norm", "2.trunk.norm"}


def test_the_end_of_a_unit_in_a_dead_branch_is_no_site() -> None:
    """WaveNet returns skips only: nothing reads the residual output of its last block."""

    class WaveNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = conv(3, 8), nn.Conv2d(8, 2, 1)
            for name in ("dilated", "residual", "skip"):
                setattr(self, name, nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))

        def forward(self, x: Tensor) -> Tensor:
            x, skips = self.stem(x), torch.zeros(())
            for dilated, residual, skip in zip(self.dilated, self.residual, self.skip, strict=True):
                y = dilated(x).tanh()
                x, skips = x + residual(y), skips + skip(y)
            return self.head(skips)  # type: ignore[no-any-return]

    found = senet.find_sites(WaveNet().eval(), example=torch.randn(1, 3, 16, 16))
    assert [site.name for site in found] == ["residual.0", "residual.1"]


def test_a_unit_in_a_dead_branch_is_listed_once() -> None:
    """Conv-TasNet's last block: only its skip to the output is read."""

    def unit(m: nn.Module, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y = m.body(maps[0])
        return maps[0] + m.residual(y), maps[1] + m.skip(y)

    parts = [{"body": conv(8, 8), "residual": conv(8, 8, 1), "skip": nn.Conv2d(8, 8, 1)} for _ in range(3)]
    units = [Of(unit, **part) for part in parts]
    start, end = Of(lambda m, x: (x, torch.zeros(()))), Of(lambda m, maps: maps[1])
    model = nn.Sequential(conv(3, 8), start, *units, end, nn.Conv2d(8, 2, 1)).eval()
    found = explain(model, example=torch.randn(1, 3, 16, 16))
    assert [site.name for site in found.sites] == ["2.residual.2", "3.residual.2"]
    assert [e.reason for e in found.excluded if e.name == "4"] == ["does not affect the output"]


def test_a_network_whose_convolutions_are_around_transformer_blocks_is_refused() -> None:
    class Tokens(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.norm, self.mlp = nn.LayerNorm(channels), nn.Linear(channels, channels)

        def forward(self, x: Tensor) -> Tensor:
            y = x.flatten(2).transpose(1, 2)
            return (y + self.mlp(self.norm(y))).transpose(1, 2).reshape_as(x)

    with pytest.raises(ValueError, match="found no convolutional units"):
        sites(conv(8, 8), Tokens(8), conv(8, 16, 3, 2), Tokens(16))


def test_a_stem_of_branches_with_a_stride_is_no_unit() -> None:
    def branches(m: nn.Module, x: Tensor) -> Tensor:
        return m.last(torch.cat([m.a(x), m.b(x)], 1))

    class Stem(Of):
        pass

    stem = Stem(branches, a=conv(8, 8), b=conv(8, 8, 1), last=conv(16, 8, 3, 2))
    blocks = [Of(branches, a=conv(8, 8), b=conv(8, 8, 1), last=conv(16, 8, 1)) for _ in range(2)]
    assert sites(stem, *blocks) == {"2": "concat", "3": "concat"}


def test_a_block_of_two_layers_after_its_join_ends_at_its_output() -> None:
    def block() -> nn.Module:
        return Of(
            lambda m, x: m.second(m.first(torch.cat([m.a(x), m.b(x)], 1))),
            a=conv(8, 8),
            b=conv(8, 8),
            first=conv(16, 4, 1),
            second=conv(4, 8, 1),
        )

    assert sites(block(), block()) == {"1": "concat", "2": "concat"}


def test_a_block_that_also_concatenates_an_older_map_is_the_unit() -> None:
    """SelecSLS passes a map of an earlier block on."""

    def block(m: nn.Module, maps: list[Tensor]) -> list[Tensor]:
        x, old = maps
        a = m.a(x)
        return [m.last(torch.cat([a, m.b(a), old], 1)), old]

    parts = [{"a": conv(8, 8), "b": conv(8, 8), "last": conv(24, 8, 1)} for _ in range(3)]
    start, end = Of(lambda m, x: [x, x]), Of(lambda m, maps: maps[0])
    assert sites(start, *(Of(block, **p) for p in parts), end) == {f"{n}.last.2": "concat" for n in (2, 3, 4)}


def test_a_large_block_is_no_skip_over_the_network() -> None:
    """HarDNet's blocks concatenate the ends of more than 24 convolutions."""

    def deep(m: nn.Module, x: Tensor) -> Tensor:
        maps = [x]
        for layer in m.layers:
            maps.append(layer(maps[-1]))
        return m.last(torch.cat(maps[::9], 1))

    def block() -> nn.Module:
        return Of(deep, layers=nn.ModuleList(conv(8, 8) for _ in range(27)), last=conv(32, 8, 1))

    assert sites(block(), block()) == {"1": "concat", "2": "concat"}


def test_a_cell_of_pools_and_shortcuts_is_a_unit() -> None:
    def reduction(m: nn.Module, x: Tensor) -> Tensor:
        short = m.short(x)
        first = F.max_pool2d(x, 2) + short
        return torch.cat([first, first + F.avg_pool2d(x, 2)], 1)

    assert sites(Residual(), Of(reduction, short=conv(8, 8, 3, 2)), Residual(16))["2"] == "concat"


def test_a_residual_branch_that_ends_in_a_concatenation_has_the_output_of_its_block() -> None:
    def fire(m: nn.Module, x: Tensor) -> Tensor:
        y = m.squeeze(x)
        return x + torch.cat([m.small(y), m.large(y)], 1)

    parts = [{"squeeze": conv(8, 4, 1), "small": conv(4, 4, 1), "large": conv(4, 4)} for _ in range(2)]
    assert sites(*(Of(fire, **p) for p in parts)) == {"1": "residual", "2": "residual"}


def test_a_sibling_by_name_comes_after_a_unit() -> None:
    layers = nn.Sequential(conv(8, 8), conv(8, 8))
    assert set(sites(layers, Residual(), nn.Sequential(conv(8, 8), conv(8, 8)))) == {"2.norm", "3.1.2"}


def test_a_block_of_several_layers_may_end_in_a_bare_convolution() -> None:
    """ConvNeXt's block without its skip ends in the projection."""

    def block() -> nn.Module:
        parts = {"depthwise": nn.Conv2d(8, 8, 3, padding=1, groups=8), "expand": nn.Conv2d(8, 16, 1)}
        return Of(lambda m, x: m.project(F.gelu(m.expand(m.depthwise(x)))), **parts, project=nn.Conv2d(16, 8, 1))

    assert sites(block(), block()) == {"1": "block", "2": "block"}
    # The scores after the last block do not make it a head.
    assert sites(block(), block(), nn.Conv2d(8, 2, 1), head=False) == {"1": "block", "2": "block"}


def test_stages_with_pools_between_their_layers_are_no_single_block() -> None:
    pool = nn.MaxPool2d(2)
    body = nn.Sequential(*conv(8, 8), pool, *conv(8, 16), pool, *conv(16, 16))
    assert sites(body) == {"1.2": "block", "1.6": "block", "1.10": "block"}
    assert sites(nn.Sequential(pool, *conv(8, 8), *conv(8, 8))) == {"1.6": "block"}
    strides = nn.Sequential(*conv(8, 8, 3, 2), *conv(8, 8, 3, 2))
    assert sites(strides) == {"1.2": "block", "1.5": "block"}
    assert sites(nn.Sequential(*conv(8, 8, 3, 2), *conv(8, 8))) == {"1.5": "block"}


def test_a_sum_with_channels_of_the_input_is_a_unit_where_the_branch_reads_all_of_them() -> None:
    """Dual paths: residual and dense channels of a unit come from two convolutions."""

    def dual(m: nn.Module, x: Tensor) -> Tensor:
        y = m.body(x)
        return torch.cat([x[:, :8] + m.residual(y), x[:, 8:], m.dense(y)], 1)

    def unit(channels: int) -> nn.Module:
        return Of(dual, body=conv(channels, 8), residual=nn.Conv2d(8, 8, 1), dense=nn.Conv2d(8, 4, 1))

    assert sites(conv(8, 12), unit(12), unit(16)) == {"2.residual": "residual", "3.residual": "residual"}

    def two(m: nn.Module, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, dense = maps
        y = m.body(torch.cat([x, dense], 1))
        return x + m.residual(y), torch.cat([dense, m.dense(y)], 1)

    parts = [
        {"body": conv(channels, 8), "residual": nn.Conv2d(8, 8, 1), "dense": nn.Conv2d(8, 4, 1)}
        for channels in (16, 20)
    ]
    start, end = Of(lambda m, x: (x, x)), Of(lambda m, maps: torch.cat(maps, 1))
    found = sites(start, *(Of(two, **p) for p in parts), end, conv(24, 8))
    assert found == {"2.residual": "residual", "3.residual": "residual"}


def test_borders_that_the_code_cuts_off_or_adds_are_no_part_of_the_branch() -> None:
    def cropped(m: nn.Module, x: Tensor) -> Tensor:
        return x[..., 1:-1, 1:-1] + m.second(m.first(x))[..., :-1, :-1]

    def padded(m: nn.Module, x: Tensor) -> Tensor:
        return x + F.pad(m.second(m.first(x)), (1, 0, 1, 0))

    def layers(kernel: int) -> dict[str, nn.Module]:
        return {"first": conv(8, 8), "second": nn.Sequential(nn.Conv2d(8, 8, kernel), nn.BatchNorm2d(8))}

    assert sites(Of(cropped, **layers(2)), Of(padded, **layers(2))) == {
        "1.second.1": "residual",
        "2.second.1": "residual",
    }


def test_an_inner_sum_of_a_unit_is_no_unit_of_its_own() -> None:
    def layer(m: nn.Module, x: Tensor) -> Tensor:
        y = m.first(x)
        return torch.cat([x, m.last(y + m.inner(y))], 1)

    def unit(channels: int) -> nn.Module:
        return Of(layer, first=conv(channels, 8), inner=conv(8, 8), last=nn.Conv2d(8, 4, 1))

    assert sites(unit(8), unit(12)) == {"1.last": "dense", "2.last": "dense"}
    two = Of(lambda m, x: x + m.d(m.c(y := x + m.b(m.a(x))) + y), **{name: conv(8, 8)[:2] for name in "abcd"})
    assert "1" not in sites(two)  # a skip around two units


def test_added_branches_in_a_sibling_of_residual_units_are_a_part_of_it() -> None:
    """YOLO's bottlenecks of reparameterized convolutions, and SINet's blocks, have a skip where widths agree."""

    class Bottleneck(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.parallel, self.last = Parallel(inputs, outputs), nn.Sequential(*conv(outputs, outputs)[:2])

        def forward(self, x: Tensor) -> Tensor:
            y = self.last(self.parallel(x))
            return x + y if x.shape == y.shape else y  # type: ignore[no-any-return]

    found = sites(Bottleneck(8, 8), Bottleneck(8, 16), Bottleneck(16, 16))
    assert found == {"1.last.1": "residual", "2.last.1": "sibling", "3.last.1": "residual"}


def test_an_image_in_an_object_gives_the_same_sites() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Residual(), Residual()).eval()
    images = torch.randn(1, 3, 16, 16)
    wrapped = Of(lambda m, batch: m.net(batch.image), net=model).eval()
    found = senet.find_sites(wrapped, example=(SimpleNamespace(image=images),))
    assert [(site.name, site.rule) for site in found] == [("net.1.norm", "residual"), ("net.2.norm", "residual")]
