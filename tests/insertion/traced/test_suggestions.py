"""Every refusal suggests modules for `at=`, and pasting what it suggests works."""

import ast
import re
from collections.abc import Callable

import pytest
import timm
from torch import Tensor, nn

import senet
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


REFUSALS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "an input that cannot be made up": (lambda: Timed(norms=True), "standard", 'at="blocks.*.bn2"'),
    "one without norms": (lambda: Timed(norms=False), "standard", "at=['stem', 'blocks.0', 'blocks.1']"),
    "a network without convolutional units": (vision_transformer, "standard", 'at="patch_embed.proj"'),
    "a placement that plain layers lack": (plain, "pre", "at=['3', '6']"),
    "a placement of residual units": (plain, "identity", "at=['3', '6']"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_pasting_what_a_refusal_suggests_works(case: str) -> None:
    build, placement, expected = REFUSALS[case]
    model = build()
    with pytest.raises(ValueError, match=r"name modules, such as at=") as refusal:
        senet.find_sites(model, placement)  # type: ignore[arg-type]
    assert expected in str(refusal.value)
    for text in re.findall(r"at=(\[.*?\]|\".*?\")", str(refusal.value)):
        at = ast.literal_eval(text)
        fresh, where = build(), "standard" if placement == "identity" else placement
        senet.insert(fresh, where, at=at, reduction=2)  # type: ignore[arg-type]
        assert len(find_inserted_se(fresh)) >= 1
        senet.remove(fresh)
        assert list(fresh.state_dict()) == list(model.state_dict())


def test_a_network_without_maps_has_none_to_suggest() -> None:
    with pytest.raises(ValueError, match="found no convolutional units in Sequential; name modules with at="):
        senet.find_sites(nn.Sequential(nn.Linear(3, 3)))
