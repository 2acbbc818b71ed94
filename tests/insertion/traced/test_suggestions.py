"""Every refusal suggests modules for `at=`, and pasting what it suggests works."""

import ast
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import senet
from senet.insertion.sites import explain
from senet.nn.inserted_se import find_inserted_se


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + x  # type: ignore[no-any-return]


class Timed(nn.Module):
    """A network with an input that cannot be made up."""

    def __init__(self, *, norms: bool) -> None:
        super().__init__()
        parts = [Block(8), Block(8)] if norms else [nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)]
        self.stem, self.blocks = nn.Conv2d(3, 8, 3), nn.ModuleList(parts)

    def forward(self, x: Tensor, *, time: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x) + time
        return x


def vision_transformer() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=32, num_heads=2)


def plain() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)]
    return nn.Sequential(*layers, nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


class Attending(Block):
    """A unit with attention inside, whose own layers are no places for SE."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.attend = nn.ModuleDict({"conv": nn.Conv2d(2, 1, 7, padding=3), "bn": nn.BatchNorm2d(1)})

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        pooled = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
        return x + y * self.attend["bn"](self.attend["conv"](pooled)).sigmoid()  # type: ignore[no-any-return]


class Layer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))  # type: ignore[no-any-return]


class Projected(nn.Module):
    """A unit with attention at the end of its branch, and a projection in its skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.attend, self.skip = Layer(channels), Layer(channels), Spatial(), Layer(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.attend(self.conv2(self.conv1(x).relu()))  # type: ignore[no-any-return]


class Functional(nn.Module):
    """A residual unit whose convolutions are in no module."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 8, 8, 3, 3) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight[0], padding=1).relu()
        return F.relu(x + F.conv2d(y, self.weight[1], padding=1))


class Twice(nn.Module):
    """A network that runs on two images, and compares them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = of(Block(8), Block(8))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (self.backbone(one) - self.backbone(other)).abs().mean((1, 2, 3))


def of(*blocks: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), *blocks)


REFUSALS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "an input that cannot be made up": (lambda: Timed(norms=True), "standard", 'at="blocks.*.bn2"'),
    "one without norms": (lambda: Timed(norms=False), "standard", 'such as at="blocks.0"'),
    "a stem alone": (vision_transformer, "standard", 'the only ones with maps (N, C, *spatial): at="patch_embed.proj"'),
    "a placement that plain layers lack": (
        plain,
        "pre",
        "placement=\"standard\", or name modules, such as at=['3', '6']",
    ),
    "a placement of residual units": (plain, "identity", "with placement=\"standard\", such as at=['3', '6']"),
    "another one": (plain, "conv3x3", "with placement=\"standard\", such as at=['3', '6']"),
    "attention in all units": (lambda: of(Attending(8), Attending(8)), "standard", 'at="*.bn2"'),
    "projections": (
        lambda: of(nn.Sequential(OrderedDict(unit1=Projected(8), unit2=Projected(8)))),
        "standard",
        'at="*.unit*.conv2.bn" or at="*.unit*.conv1.bn"',
    ),
    "units without modules": (lambda: of(Functional(), Functional()), "standard", 'use placement="post"'),
    "skips without modules": (lambda: of(Block(8), Block(8)), "identity", 'use placement="standard"'),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_pasting_what_a_refusal_suggests_works(case: str) -> None:
    build, placement, expected = REFUSALS[case]
    model = build()
    with pytest.raises(ValueError, match=r"use placement=|name modules") as refusal:
        senet.find_sites(model, placement)  # type: ignore[arg-type]
    message = str(refusal.value)
    assert expected in message
    named = re.search(r'modules with placement="(\w+)"', message)
    ways = [(placement if named is None else named[1], text) for text in re.findall(r"at=(\[.*?\]|\".*?\")", message)]
    ways += [(other, "None") for other in re.findall(r'use placement="(\w+)"', message)]
    assert ways
    for where, text in ways:
        fresh = build().eval()
        senet.insert(fresh, where, at=ast.literal_eval(text), reduction=2)  # type: ignore[arg-type]
        assert find_inserted_se(fresh)
        if not isinstance(fresh, Timed):
            fresh(torch.randn(2, 3, 224, 224) if "stem" in case else torch.randn(2, 3, 16, 16))
        senet.remove(fresh)
        assert list(fresh.state_dict()) == list(model.state_dict())


def test_a_network_without_maps_has_none_to_suggest() -> None:
    with pytest.raises(ValueError, match="found no convolutional units in Sequential$"):
        senet.find_sites(nn.Sequential(nn.Linear(3, 3)))


class Spatial(nn.Module):
    """Attention of positions, with layers of several channels."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(torch.cat([x.mean(1, True), x.amax(1, True)], 1))  # type: ignore[no-any-return]


class Gated(nn.Module):
    """A unit of linear layers, whose only convolutions are those of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.attend = nn.Linear(8, 8), nn.Linear(8, 8), Spatial()

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.first(x.permute(0, 2, 3, 1)).relu()).permute(0, 3, 1, 2)
        return x + self.attend(y)  # type: ignore[no-any-return]


def test_no_suggestion_is_in_the_attention_that_is_the_reason() -> None:
    with pytest.raises(ValueError, match=r"1.attend is attention of the network's own") as refusal:
        senet.find_sites(of(Gated(), Gated()).eval(), example=torch.randn(1, 3, 16, 16))
    assert str(refusal.value).endswith('the only ones with maps (N, C, *spatial): at="0"')


class Context(Block):
    """A unit that adds a global context in its own forward, weighted by a softmax (GCNet)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weigh, self.context = nn.Conv2d(channels, 2, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        weights = self.weigh(y).mean(1).flatten(1).softmax(-1)
        return y + self.context((y.flatten(2) @ weights[..., None])[..., None]) + x  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Self-attention that adds to its input (SAGAN)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        weights = (query.transpose(1, 2) @ key).softmax(-1)
        return x + self.out((value @ weights.transpose(1, 2)).view_as(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("unit", "at"), [(Context, 'at="*.bn2" or at="*.bn1"'), (Attention, 'spatial): at="0"')])
def test_of_a_unit_with_attention_in_its_forward_the_layers_before_it_are_suggested(
    unit: Callable[[int], nn.Module], at: str
) -> None:
    with pytest.raises(ValueError, match=rf"1 is attention of the network's own \({unit.__name__}\)") as refusal:
        senet.find_sites(of(unit(8), unit(8)).eval(), example=torch.randn(1, 3, 16, 16))
    assert str(refusal.value).endswith(at)


def test_a_product_with_a_constant_keeps_no_layer_from_being_suggested() -> None:
    class Mixed(Block):
        def forward(self, x: Tensor) -> Tensor:
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return torch.einsum("knchw,kj->jnchw", torch.stack([x, y]), torch.ones(2, 2)).amax(0)

    model = of(nn.ReLU(), Mixed(8), Mixed(8), Mixed(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r'such as at="\*\.bn2"'):
        senet.find_sites(model.eval())


def test_no_suggestion_is_a_norm_of_vectors_or_has_one_channel() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 1, 3), nn.Conv2d(1, 8, 3))
            self.head = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.BatchNorm1d(8))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x / float(x.max())).mean((2, 3)))  # type: ignore[no-any-return]

    with pytest.raises(ValueError, match="give example=") as refusal:
        senet.find_sites(Reads())
    assert str(refusal.value).endswith('or name modules, such as at="body.1"')


def test_a_network_that_runs_twice_shares_se_of_the_module_that_runs() -> None:
    model = Twice()
    images = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    with pytest.raises(ValueError, match=r"units of Twice are in 'backbone', which is called several times") as refusal:
        senet.insert(model, example=images)
    call = re.search(r"senet\.insert\((model\.get_submodule\('(.*)'\))\)", str(refusal.value))
    assert call is not None
    senet.insert(model.get_submodule(call[2]), reduction=2)
    assert len(find_inserted_se(model)) == 2
    model(*images)


def test_the_cell_of_a_recurrence_is_not_suggested() -> None:
    """A convolutional cell runs once for each step: its SE would be shared, and refused with an example."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.Conv2d(9, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

        def forward(self, frames: Tensor) -> Tensor:
            state = torch.zeros_like(frames[:, 0]).expand(-1, 8, -1, -1)
            for frame in frames.unbind(1):
                state = self.cell(torch.cat([frame, state], 1)).tanh()
            return self.head(state)  # type: ignore[no-any-return]

    with pytest.raises(ValueError, match="give example=, an input of the network") as refusal:
        senet.find_sites(Recurrent())
    assert "at=" not in str(refusal.value)
    with pytest.raises(ValueError, match="'cell': called several times") as refusal:
        senet.find_sites(Recurrent(), example=torch.randn(1, 4, 1, 8, 8))
    assert 'at="head"' in str(refusal.value)
    senet.insert(Recurrent(), at="head", example=torch.randn(1, 4, 1, 8, 8))


def test_a_module_that_runs_twice_has_that_reason() -> None:
    class Decoded(Twice):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = nn.Sequential(Block(16), nn.Conv2d(16, 2, 1))

        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return self.decoder(torch.cat([self.backbone(one), self.backbone(other)], 1))  # type: ignore[no-any-return]

    found = explain(Decoded(), example=(torch.randn(1, 3, 16, 16), torch.randn(1, 3, 16, 16)))
    assert [site.name for site in found.sites] == ["decoder.0.bn2"]
    reason = "residual: 'backbone' is called several times with the same weights"
    assert [(e.name, e.reason) for e in found.excluded if e.name.startswith("backbone.1")] == [("backbone.1", reason)]


def compiled(kind: str) -> nn.Module:
    model, image = of(Block(8)).eval(), torch.randn(1, 3, 8, 8)
    if kind == "exported":
        return torch.export.export(model, (image,)).module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch deprecates TorchScript
        return torch.jit.script(model) if kind == "scripted" else torch.jit.trace(model, image)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [("scripted", "before torch.jit.trace"), ("traced", "before torch.jit.trace"), ("exported", "before torch.export")],
)
def test_a_compiled_network_is_refused(kind: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=rf"insert SE {remedy}"):
        senet.insert(compiled(kind))
    assert senet.find_sites(torch.fx.symbolic_trace(of(Block(8))))  # calls its modules


@pytest.mark.parametrize(
    "kind", [nn.ModuleList, lambda modules: nn.ModuleDict({str(i): m for i, m in enumerate(modules)})]
)
def test_a_container_without_forward_is_refused(kind: Callable[[list[nn.Module]], nn.Module]) -> None:
    model = kind([nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)])
    for example in (None, torch.randn(1, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"Module(List|Dict) has no forward: give the network that calls"):
            senet.find_sites(model, example=example)
    assert senet.find_sites(model, at="1")


def test_an_example_of_one_position_has_that_remedy() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Block(8), Block(8), nn.Conv2d(8, 2, 1)).eval()
    with pytest.raises(ValueError, match=r"give a larger example= than \(1, 3, 1, 1\), whose maps have one position"):
        senet.find_sites(model, example=torch.randn(1, 3, 1, 1))
    with pytest.raises(ValueError, match=r"^(?!.*larger)"):
        senet.find_sites(plain().eval(), "identity", example=torch.randn(1, 3, 32, 32))


def test_suggestions_include_the_first_block() -> None:
    """Its first norm reads the stem only."""

    class PreActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(self.first(x).relu())  # type: ignore[no-any-return]

    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    blocks = nn.Sequential(PreActivation(), PreActivation())
    model = nn.Sequential(stem, blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"name modules .*at=\"1\.\*\.first\" or"):
        senet.find_sites(model.eval(), "identity")
