import re
from typing import Any

import pytest
import torch

from senet.models import create_model


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("se_resnet20", [16, 16, 32, 64], [1, 1, 2, 4]),
        ("se_bn_inception", [64, 192, 320, 608, 1024], [2, 4, 8, 16, 32]),
        ("se_shufflenet", [24, 240, 480, 960], [2, 8, 16, 32]),
        ("se_mobilenet", [64, 128, 256, 512, 1024], [2, 4, 8, 16, 32]),
        ("timm/resnet10t", [64, 64, 128, 256, 512], [2, 4, 8, 16, 32]),
    ],
)
def test_maps_have_the_channels_and_strides_that_they_say(name: str, channels: list[int], strides: list[int]) -> None:
    model = create_model(name, features_only=True).eval()
    assert model.feature_info.channels() == channels
    assert model.feature_info.reduction() == strides
    maps = model(torch.randn(1, 3, 64, 64))
    assert [(m.shape[1], 64 // m.shape[2]) for m in maps] == list(zip(channels, strides, strict=True))


def test_se_acts_within_them() -> None:
    """Gates of one half: the maps are not those of the plain network."""
    torch.manual_seed(0)
    plain = create_model("mobilenet", features_only=True, out_indices=(1,)).eval()
    torch.manual_seed(0)
    model = create_model("se_mobilenet", features_only=True, out_indices=(1,)).eval()
    x = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(plain(x)[0], model(x)[0])


@pytest.mark.parametrize(
    ("name", "indices", "message"),
    [
        ("resnet20", (4,), r"among 0 to 3, or negative from the last, got \(4,\)"),
        ("resnet20", (), r"among 0 to 3, .*got \(\)"),
        ("torchvision/resnet18", None, "a ResNet has no `feature_info`.*timm's network of this kind"),
    ],
)
def test_refuses(name: str, indices: tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, features_only=True, out_indices=indices)


@pytest.mark.parametrize("indices", ["x", (0, "x"), 1.5])
def test_refuses_indices_of_other_types(indices: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"a sequence of integers, got {indices!r}")):
        create_model("resnet20", features_only=True, out_indices=indices)
