"""Small residual networks of every family, and what SE in them is, by hand."""

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import timm.models.resnet
import torch
import torchvision.models.resnet
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from senet.models import ResNet, ResNetSpec

_TV, _TIMM = torchvision.models.resnet, timm.models.resnet
_CIFAR = {"units": (2, 1), "stem": "conv3", "stem_channels": 8, "pool": "none"}
_BASIC = {"channels": (8, 16), "widths": (8, 16), "bottleneck": False}


# Planes of the stages, each its own: the 256 and 512 of the libraries would be nine tenths of the parameters.
_PLANES = (64, 128, 80, 96)


def _torchvision(block: type[nn.Module], layers: list[int], **options: object) -> nn.Module:
    """Build torchvision's ResNet with narrow last stages, for 5 classes."""
    make, planes = _TV.ResNet._make_layer, iter(_PLANES)

    def narrow(self: nn.Module, block: type[nn.Module], _: int, *rest: object, **more: object) -> nn.Sequential:
        return make(self, block, next(planes), *rest, **more)

    with patch.object(_TV.ResNet, "_make_layer", narrow):
        model = _TV.ResNet(block, layers, **options)
    model.fc = nn.Linear(_PLANES[-1] * block.expansion, 5)
    return model


def _timm(block: type[nn.Module], layers: tuple[int, ...], **options: object) -> nn.Module:
    """Build timm's ResNet with the same widths."""
    return _TIMM.ResNet(block, layers, num_classes=5, channels=_PLANES, **options)


def _ours(**spec: object) -> Callable[[], nn.Module]:
    return lambda: ResNet(ResNetSpec(**{**_CIFAR, **spec}), num_classes=5)  # type: ignore[arg-type]


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "torchvision basic": lambda: _torchvision(_TV.BasicBlock, [2, 1, 1, 1]),
    "torchvision bottleneck": lambda: _torchvision(_TV.Bottleneck, [2, 1, 1, 1]),
    "torchvision resnext": lambda: _torchvision(_TV.Bottleneck, [1, 1, 1, 1], groups=4, width_per_group=8),
    "torchvision wide": lambda: _torchvision(_TV.Bottleneck, [1, 1, 1, 1], width_per_group=96),
    "torchvision frozen": lambda: _torchvision(_TV.BasicBlock, [2, 1, 1, 1], norm_layer=FrozenBatchNorm2d),
    "torchvision group norm": lambda: _torchvision(_TV.Bottleneck, [1, 1, 1, 1], norm_layer=partial(nn.GroupNorm, 8)),
    "torchvision synchronized": lambda: nn.SyncBatchNorm.convert_sync_batchnorm(FAMILIES["torchvision basic"]()),
    "timm basic": lambda: _timm(_TIMM.BasicBlock, (2, 1, 1, 1)),
    "timm bottleneck": lambda: _timm(_TIMM.Bottleneck, (2, 1, 1, 1)),
    "timm resnext": lambda: _timm(_TIMM.Bottleneck, (1, 1, 1, 1), cardinality=4, base_width=8),
    "timm d": lambda: _timm(_TIMM.Bottleneck, (2, 1, 1, 1), stem_width=16, stem_type="deep", avg_down=True),
    "ours basic": _ours(**_BASIC, shortcut="pad"),
    "ours bottleneck": _ours(channels=(16, 32), widths=(8, 16), bottleneck=True, groups=2, stride_in="conv2"),
    "ours pre-activation basic": _ours(**_BASIC, preactivation=True),
    "ours pre-activation bottleneck": _ours(channels=(16, 32), widths=(8, 16), bottleneck=True, preactivation=True),
}

# For tests that compile, which takes seconds: one unit of each kind of skip.
SHORT: dict[str, Callable[[], nn.Module]] = {
    "ours basic": _ours(**_BASIC, shortcut="pad", units=(1, 1)),
    "ours pre-activation basic": _ours(**_BASIC, preactivation=True, units=(1, 1)),
}


def units(model: nn.Module) -> list[nn.Module]:
    return [unit for name, stage in model.named_children() if name.startswith("layer") for unit in stage]


def unit_by_hand(unit: nn.Module, placement: str, se: nn.Module, x: Tensor) -> Tensor:
    """A unit with SE, written out."""

    def at(where: str, y: Tensor) -> Tensor:
        return se(y) if where == placement else y

    pre = next(iter(dict(unit.named_children()))) == "bn1"
    bottleneck = isinstance(getattr(unit, "conv3", None), nn.Module)
    if pre:
        h = torch.relu(unit.bn1(x))
        skip = x if unit.downsample is None else unit.downsample(h)
        h = at("pre", h)
        h = unit.conv1(h)
        h = unit.bn2(h) if bottleneck else at("conv3x3", unit.bn2(h))
        h = unit.conv2(torch.relu(h))
        if bottleneck:
            h = unit.conv3(torch.relu(at("conv3x3", unit.bn3(h))))
        return at("post", at("standard", h) + at("identity", skip))
    skip = x if unit.downsample is None else unit.downsample(x)
    h = unit.bn1(unit.conv1(at("pre", x)))
    h = torch.relu(h if bottleneck else at("conv3x3", h))
    h = unit.bn2(unit.conv2(h))
    if bottleneck:
        h = unit.bn3(unit.conv3(torch.relu(at("conv3x3", h))))
    return at("post", torch.relu(at("standard", h) + at("identity", skip)))


def network_by_hand(plain: nn.Module, placement: str, blocks: list[nn.Module], x: Tensor) -> Tensor:
    """A network with one SE block in each unit, from the plain network and the blocks."""
    for name, child in plain.named_children():
        if name.startswith("layer"):
            break
        x = child(x)
    for unit, se in zip(units(plain), blocks, strict=True):
        x = unit_by_hand(unit, placement, se, x)
    x = plain.norm(x) if hasattr(plain, "norm") else x
    return plain.fc(x.mean((2, 3)))
