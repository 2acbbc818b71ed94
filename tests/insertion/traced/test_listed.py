"""Units whose layers are in lists: a forward runs them, and adds a skip to some."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import MobileNetV2
from torchvision.models.feature_extraction import create_feature_extractor

import senet

_WIDTHS = ((8, 8, 1), (8, 12, 2), (12, 12, 1), (12, 16, 2))


def _parts(inputs: int, outputs: int, stride: int) -> dict[str, nn.Module]:
    hidden = 2 * inputs
    return {
        "expand": nn.Conv2d(inputs, hidden, 1),
        "depthwise": nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden),
        "project": nn.Conv2d(hidden, outputs, 1),
        "norm": nn.BatchNorm2d(outputs),
    }


class Inverted(nn.Module):
    """Inverted residuals of layers in lists, or of dicts of layers; those with a stride have no skip."""

    def __init__(self, *, dicts: bool) -> None:
        super().__init__()
        parts = [_parts(*widths) for widths in _WIDTHS]
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(16, 2, 1)
        self.blocks = nn.ModuleList(map(nn.ModuleDict, parts)) if dicts else nn.ModuleDict()
        for name in () if dicts else parts[0]:
            self.blocks[name] = nn.ModuleList(part[name] for part in parts)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for number, (inputs, outputs, _) in enumerate(_WIDTHS):
            lists = isinstance(self.blocks, nn.ModuleDict)
            layers = {k: v[number] for k, v in self.blocks.items()} if lists else self.blocks[number]
            y = F.relu(layers["depthwise"](F.relu(layers["expand"](x))))
            y = layers["norm"](layers["project"](y))
            x = x + y if inputs == outputs else y
        return self.head(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("dicts", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_units_without_a_skip_have_the_place_of_the_others(dicts: bool, inside: bool) -> None:
    model: nn.Module = Inverted(dicts=dicts)
    model = (nn.Sequential(model, nn.Identity()) if inside else model).eval()
    found = senet.find_sites(model, example=torch.randn(1, 3, 32, 32))
    start = "0." if inside else ""
    names = [f"{start}blocks.{n}.norm" if dicts else f"{start}blocks.norm.{n}" for n in range(4)]
    assert [(site.name, site.rule) for site in found] == list(zip(names, ("residual", "sibling") * 2, strict=True))
    for placement, part in (("pre", "expand"), ("conv3x3", "depthwise")):
        others = senet.find_sites(model, placement, example=torch.randn(1, 3, 32, 32))  # type: ignore[arg-type]
        assert [site.name.split(".")[-2 if not dicts else -1] for site in others] == [part] * 4


def test_layers_of_a_stem_in_the_same_lists_are_no_unit() -> None:
    class Lists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.ModuleList(nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8, 8, 8))
            self.second = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.second[0](F.relu(self.first[0](x)))
            for number in (1, 2):
                x = F.relu(x + self.second[number](F.relu(self.first[number](x))))
            return self.first[3](x)  # type: ignore[no-any-return]

    found = senet.find_sites(Lists().eval(), example=torch.randn(1, 3, 16, 16))
    assert [site.name for site in found] == ["second.1", "second.2"]


def test_a_graph_has_the_sites_of_its_network() -> None:
    """A graph of torch.fx calls the layers of a block without the block."""
    model = MobileNetV2(inverted_residual_setting=[[1, 8, 1, 1], [2, 8, 2, 2], [2, 16, 2, 2]], width_mult=0.25).eval()
    graph = create_feature_extractor(model, {"features.3": "a", "features.6": "b"})
    names = [site.name for site in senet.find_sites(model)]
    assert [site.name for site in senet.find_sites(graph)] == names
    assert len(names) == 5
