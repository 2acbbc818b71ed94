"""Plain stacks keep their blocks in networks with a few joins: a long skip, two streams, a context module, sampling."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet.insertion.sites import explain
from tests.insertion.traced.test_structures import Of, Residual, conv

IMAGE = torch.randn(1, 3, 32, 32)


def stack(count: int, inputs: int = 8) -> nn.Sequential:
    return nn.Sequential(conv(inputs, 8), *(conv(8, 8) for _ in range(count - 1)))


def places(model: nn.Module) -> dict[str, str]:
    return {site.name: site.rule for site in explain(model.eval(), example=IMAGE).sites}


def blocks(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "block")


def context(m: Any, x: Tensor) -> Tensor:
    return m.fuse(torch.cat([m.a(x), m.b(x), m.c(x)], 1))  # type: ignore[no-any-return]


def context_module() -> nn.Module:
    return Of(context, a=conv(8, 8), b=conv(8, 8), c=conv(8, 8), fuse=conv(24, 8, 1))


@pytest.mark.parametrize(
    ("module", "site"),
    [
        (context_module(), {"5": "concat"}),
        (Residual(), {"5.norm": "residual"}),
    ],
    ids=["context", "residual"],
)
def test_one_unit_in_a_plain_network_leaves_it_its_blocks(module: nn.Module, site: dict[str, str]) -> None:
    model = nn.Sequential(*stack(5, 3), module, conv(8, 8), nn.Conv2d(8, 2, 1))
    assert places(model) == blocks("1.2", "2.2", "3.2", "4.2", "6.2") | site


def test_plain_layers_between_repeated_units_and_in_a_decoder_are_no_blocks() -> None:
    model = nn.Sequential(*stack(4, 3), Residual(), conv(8, 8), Residual(), *stack(4), nn.Conv2d(8, 2, 1))
    assert places(model) == {"4.norm": "residual", "6.norm": "residual"}


@pytest.mark.parametrize(("depth", "count"), [(6, 0), (7, 6)], ids=["stem", "backbone"])
def test_a_plain_backbone_before_repeated_units_has_its_blocks(depth: int, count: int) -> None:
    units = {f"{depth + n}.norm": "residual" for n in range(4)}
    model = nn.Sequential(*stack(depth, 3), *(Residual() for _ in units), *stack(4), nn.Conv2d(8, 2, 1))
    assert places(model) == blocks(*(f"{n}.2" for n in range(1, 1 + count))) | units


class Wide(nn.Module):
    """Four parallel branches of two layers."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(stack(2, inputs) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


def test_a_unit_that_reads_the_image_is_a_stem_however_many_layers_it_has() -> None:
    assert places(nn.Sequential(Wide(3), Wide(8), Wide(8), nn.Conv2d(8, 2, 1))) == {"1": "parallel", "2": "parallel"}


def test_a_plain_stack_around_one_of_transformer_blocks_has_no_blocks() -> None:
    def tokens(m: Any, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        return (y + m.mlp(y)).transpose(1, 2).reshape_as(x)

    model = nn.Sequential(*stack(5, 3), Residual(), Of(tokens, mlp=nn.Linear(8, 8)), nn.Conv2d(8, 2, 1))
    assert places(model) == {"5.norm": "residual"}


@pytest.mark.parametrize("end", [nn.Conv2d(8, 8, 3, padding=1), conv(8, 8)], ids=["bare", "activated"])
def test_a_skip_around_a_plain_network_is_no_unit(end: nn.Module) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.first(x)
        return m.last(F.pixel_shuffle(m.up(x + m.end(m.body(x))), 2))  # type: ignore[no-any-return]

    parts = {"body": stack(5), "end": end, "up": nn.Conv2d(8, 32, 3, padding=1), "last": nn.Conv2d(8, 3, 1)}
    found = blocks(*(f"body.{n}.2" for n in range(5)), *(["end.2"] if isinstance(end, nn.Sequential) else []))
    assert places(Of(forward, first=conv(3, 8), **parts)) == found


def test_corrections_of_enlarged_images_are_no_units() -> None:
    """LapSRN adds to the image at each size, which the next size enlarges."""

    def forward(m: Any, x: Tensor) -> list[Tensor]:
        y = m.one(m.first(x))
        half = m.grow(x) + m.score(y)
        return [half, m.again(half) + m.other(m.two(y))]

    def enlarge() -> nn.Sequential:
        return nn.Sequential(conv(8, 8), conv(8, 8), nn.ConvTranspose2d(8, 8, 2, 2), nn.ReLU())

    parts = {name: nn.ConvTranspose2d(3, 3, 2, 2) for name in ("grow", "again")}
    scores = {name: nn.Conv2d(8, 3, 3, padding=1) for name in ("score", "other")}
    found = places(Of(forward, first=conv(3, 8), one=enlarge(), two=enlarge(), **parts, **scores))
    assert set(found.values()) == {"block"}
    assert {name.split(".")[0] for name in found} == {"one", "two"}


@pytest.mark.parametrize("how", ["concat", "sum"])
@pytest.mark.parametrize("depth", [2, 5])
def test_two_streams_have_their_blocks(how: str, depth: int) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        a, b = m.a(x), m.b(x)
        return m.head(m.last(m.fuse(torch.cat([a, b], 1) if how == "concat" else a + b)))  # type: ignore[no-any-return]

    parts = {"stem": conv(3, 8), "a": stack(depth), "b": stack(depth), "fuse": conv(16 if how == "concat" else 8, 8)}
    streams = [f"{name}.{n}.2" for name in "ab" for n in range(depth)]
    assert places(Of(forward, **parts, last=conv(8, 8), head=nn.Conv2d(8, 2, 1))) == blocks(
        *streams, "fuse.2", "last.2"
    )


@pytest.mark.parametrize("module", [False, True], ids=["forward", "module"])
def test_a_sum_with_sampled_noise_is_no_unit(module: bool) -> None:
    def sample(m: Any, x: Tensor) -> Tensor:
        mean, scale = m.mean(x), m.scale(x)
        return mean + torch.randn_like(scale) * (scale / 2).exp()  # type: ignore[no-any-return]

    layers = {"mean": nn.Conv2d(8, 4, 1), "scale": nn.Conv2d(8, 4, 1)}
    parts = {"encoder": stack(3, 3), "decoder": nn.Sequential(*stack(2, 4), nn.Conv2d(8, 3, 1))}
    inner: dict[str, nn.Module] = {"sample": Of(sample, **layers)} if module else layers

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.encoder(x)
        return m.decoder(m.sample(x) if module else sample(m, x))  # type: ignore[no-any-return]

    found = blocks("encoder.1.2", "encoder.2.2", "decoder.0.2", "decoder.1.2")
    assert places(Of(forward, **parts, **inner)) == found


def test_layers_whose_output_is_returned_are_blocks_where_others_follow() -> None:
    """A discriminator that returns the maps of all layers."""

    def forward(m: Any, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in m.layers:
            x = layer(x)
            maps.append(x)
        return maps

    layers = nn.ModuleList([*stack(4, 3), nn.Conv2d(8, 1, 3)])
    assert places(Of(forward, layers=layers)) == blocks("layers.1.2", "layers.2.2", "layers.3.2")


def test_a_network_of_transposed_convolutions_has_blocks() -> None:
    """The generator of DCGAN, whose input has one position."""

    def layer(inputs: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(inputs, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]

    first, last = nn.ConvTranspose2d(16, 8, 4), nn.ConvTranspose2d(8, 3, 4, 2, 1)
    model = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), *layer(8), *layer(8), last, nn.Tanh())
    found = explain(model.eval(), example=torch.randn(1, 16, 1, 1)).sites
    assert [(site.name, site.rule) for site in found] == [("5", "block"), ("8", "block")]


def test_layers_that_read_the_image_at_several_resolutions_are_no_backbone() -> None:
    """ESPNetv2 adds the image to its maps at each resolution: many layers before units, and none in series."""

    def forward(m: nn.Module, image: Tensor) -> Tensor:
        x = m.stem(image)
        for number, (units, reads) in enumerate(zip(m.units, m.reads, strict=True), 1):
            x = units(F.max_pool2d(x, 2)) + reads(F.avg_pool2d(image, 2**number))
        return x

    units = nn.ModuleList(nn.Sequential(Residual(), Residual()) for _ in range(4))
    reads = nn.ModuleList(nn.Sequential(conv(3, 8), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)) for _ in range(4))
    model = Of(forward, stem=conv(3, 8), units=units, reads=reads)
    found = explain(model.eval(), example=torch.randn(1, 3, 64, 64)).sites
    assert [site.name for site in found] == [f"units.{n}.{m}.norm" for n in range(4) for m in range(2)]


@pytest.mark.parametrize("concatenated", [False, True])
def test_a_block_with_an_inner_sequence_has_one_site(concatenated: bool) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.body(x)
        return F.relu(m.last(torch.cat([x, y], 1) if concatenated else y))

    def block() -> nn.Module:
        return Of(forward, body=stack(2), last=nn.Conv2d(16 if concatenated else 8, 8, 1))

    assert places(nn.Sequential(conv(3, 8), block(), block(), nn.Conv2d(8, 2, 1))) == blocks("1", "2")
    assert places(nn.Sequential(conv(3, 8), stack(2), stack(2), nn.Conv2d(8, 2, 1))) == blocks(
        "1.0.2", "1.1.2", "2.0.2", "2.1.2"
    )


def test_the_last_block_of_a_feature_extractor_has_a_site_and_a_narrow_last_layer_none() -> None:
    assert places(nn.Sequential(*stack(4, 3))) == blocks("1.2", "2.2", "3.2")
    assert places(nn.Sequential(*stack(3, 3), conv(8, 3))) == blocks("1.2", "2.2")
    assert places(nn.Sequential(*stack(3, 3), conv(8, 8)[:2])) == blocks("1.2", "2.2")


@pytest.mark.parametrize("bare", [False, True])
def test_bare_laterals_of_a_pyramid_on_a_plain_backbone_are_no_blocks(bare: bool) -> None:
    def forward(m: Any, x: Tensor) -> list[Tensor]:
        y = m.first(x)
        top = m.laterals[1](m.second(F.max_pool2d(y, 2)))
        return [m.head(m.last(m.laterals[0](y) + F.interpolate(top, scale_factor=2.0))), m.head(top)]

    laterals = nn.ModuleList(nn.Conv2d(8, 8, 1) if bare else conv(8, 8, 1) for _ in range(2))
    parts = {"first": stack(3, 3), "second": stack(2), "last": conv(8, 8), "head": nn.Conv2d(8, 2, 1)}
    found = ["first.1.2", "first.2.2", "second.0.2", "second.1.2", "last.2"]
    found += [] if bare else ["laterals.0.2", "laterals.1.2"]
    assert places(Of(forward, **parts, laterals=laterals)) == blocks(*found)
