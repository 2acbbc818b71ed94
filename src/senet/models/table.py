"""The table of all named networks, plain and with SE. Networks of other libraries are identified by prefixed names."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn

from senet.models import bn_inception, resnet, shake_shake, shufflenet
from senet.models.bn_inception import BNInception, BNInceptionSpec
from senet.models.detector_names import DETECTORS, MIN_SIZE, NUM_CLASSES, is_detector, split_detector
from senet.models.libraries import (
    LibrarySpec,
    build_of_library,
    is_of_library,
    library_cfg,
    library_names,
    unknown_network,
)
from senet.models.resnet import ResNet, ResNetSpec
from senet.models.shake_shake import SHAKE_EVEN_29_2X4X64D, SHAKE_SHAKE_26_2X96D, ShakeShake, ShakeShakeSpec
from senet.models.shufflenet import ShuffleNet, ShuffleNetSpec
from senet.utils.sizes import Size, parse_size

__all__ = ["CATALOGUE", "Network", "list_models", "network", "plain_name"]


@dataclass(frozen=True)
class Network:
    """A row of the catalogue.

    Attributes:
        spec: the plain network's hyperparameters, a dataclass of its family.
        build: returns the network, from the spec and the keywords `num_classes` and `in_channels`.
        options: fields of the spec that are options of `create_model`; other fields define another network.
        se_name: name of the network with SE.
        size: size of the images: 224 or 299 for ImageNet, 32 for CIFAR; (height, width) if not square.
        num_classes: default number of classes.
    """

    spec: Any
    build: Callable[..., nn.Module]
    options: tuple[str, ...]
    se_name: str
    size: Size
    num_classes: int


# {type of spec: (function that builds the network, its options)}.
_BUILDERS: dict[type, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    ResNetSpec: (ResNet, resnet.OPTIONS),
    BNInceptionSpec: (BNInception, bn_inception.OPTIONS),
    ShuffleNetSpec: (ShuffleNet, shufflenet.OPTIONS),
    ShakeShakeSpec: (ShakeShake, shake_shake.OPTIONS),
    LibrarySpec: (build_of_library, ("drop_rate",)),
}


def _imagenet(
    name: str, spec: Any, se_name: str = "", *, size: int = 224, num_classes: int = 1000
) -> tuple[str, Network]:
    build, options = _BUILDERS[type(spec)]
    return name, Network(spec, build, options, se_name or f"se_{name}", size, num_classes)


_cifar = partial(_imagenet, size=32, num_classes=10)


_WIDTHS = (64, 128, 256, 512)
_WIDE = (256, 512, 1024, 2048)
_basic = partial(ResNetSpec, bottleneck=False, channels=_WIDTHS, widths=_WIDTHS)
_bottleneck = partial(ResNetSpec, bottleneck=True, channels=_WIDE, widths=_WIDTHS)
_resnext = partial(
    ResNetSpec, bottleneck=True, channels=_WIDE, widths=(128, 256, 512, 1024), groups=32, stride_in="conv2"
)


def _small(depth: int, *, wide: int = 1, bottleneck: bool = False, preactivation: bool = False) -> ResNetSpec:
    """Return a CIFAR network's spec: three stages of 16, 32 and 64 channels, times 4 in bottlenecks, times `wide`."""
    widths = tuple(wide * width for width in (16, 32, 64))
    per_stage = (depth - (4 if wide > 1 else 2)) // (9 if bottleneck else 6)
    return ResNetSpec(
        units=(per_stage,) * 3,
        channels=tuple(width * 4 for width in widths) if bottleneck else widths,
        widths=widths,
        bottleneck=bottleneck,
        preactivation=preactivation,
        stem="conv3",
        stem_channels=16,
        pool="none",
        shortcut="projection" if preactivation else "pad",
    )


CATALOGUE: dict[str, Network] = dict(
    [
        _imagenet("resnet18", _basic(units=(2, 2, 2, 2))),
        _imagenet("resnet34", _basic(units=(3, 4, 6, 3))),
        _imagenet("resnet50", _bottleneck(units=(3, 4, 6, 3))),
        _imagenet("resnet101", _bottleneck(units=(3, 4, 23, 3))),
        _imagenet("resnet152", _bottleneck(units=(3, 8, 36, 3))),
        _imagenet("resnext50_32x4d", _resnext(units=(3, 4, 6, 3))),
        _imagenet("resnext101_32x4d", _resnext(units=(3, 4, 23, 3))),
        _imagenet(
            "senet154_plain",
            ResNetSpec(
                units=(3, 8, 36, 3),
                channels=_WIDE,
                widths=_WIDE,
                bottleneck=True,
                groups=64,
                halve_first=True,
                stem="deep",
                stem_channels=128,
                stride_in="conv2",
                projection=3,
                drop_rate=0.2,
            ),
            se_name="senet154",
        ),
        # timm's plain networks are used where it has them.
        _imagenet("vgg16", LibrarySpec("timm/vgg16_bn")),
        _imagenet("bn_inception", BNInceptionSpec()),
        _imagenet("inception_resnet_v2", LibrarySpec("timm/inception_resnet_v2"), size=299),
        _imagenet("mobilenet", LibrarySpec("timm/mobilenetv1_100")),
        _imagenet("shufflenet", ShuffleNetSpec()),
        _cifar("resnet20", _small(20)),
        _cifar("resnet32", _small(32)),
        _cifar("resnet44", _small(44)),
        _cifar("resnet56", _small(56)),
        _cifar("resnet110", _small(110)),
        _cifar("preresnet110", _small(110, preactivation=True)),
        _cifar("preresnet164", _small(164, bottleneck=True, preactivation=True)),
        _cifar("wrn_16_8", _small(16, wide=8, preactivation=True)),
        _cifar("shake_shake_26_2x96d", SHAKE_SHAKE_26_2X96D),
        _cifar("shake_even_29_2x4x64d", SHAKE_EVEN_29_2X4X64D, num_classes=100),
    ]
)
_PLAIN_NAMES = {row.se_name: name for name, row in CATALOGUE.items()}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of networks, plain and with SE, that match a glob, in the catalogue's order.

    Args:
        pattern: "se*" matches the catalogue's names, "timm/se*" those of timm, which may have SE of their own. Networks
            of timm and torchvision are listed for patterns with "/" only, and with SE inserted, as "se_timm/NAME", for
            patterns that begin with "se_". A colon separates the pattern of a detector from that of its backbone:
            "faster_rcnn:se_*".

    Examples:
        >>> senet.list_models("se_resnext*")
        ['se_resnext50_32x4d', 'se_resnext101_32x4d']
    """
    if ":" in pattern:
        of_kind, of_backbone = split_detector(pattern)
        backbones = list_models(of_backbone)
        return [f"{kind}:{name}" for kind in DETECTORS if fnmatchcase(kind, of_kind) for name in backbones]
    names = [name for plain, row in CATALOGUE.items() for name in (plain, row.se_name)]
    if "/" in pattern:
        prefix = "se_" if pattern.startswith("se_") else ""
        names = [f"{prefix}{name}" for name in library_names()]
    return [name for name in names if fnmatchcase(name, pattern)]


def network(name: str) -> Network:
    """Return the row of a plain network; for another library's, such as "timm/resnet26d", a new row.

    The row of a detector is that of its backbone, with the detector's `se_name`, size and number of classes.

    Raises:
        ValueError: an unknown plain network; the message names the closest one.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    if is_detector(name):
        kind, backbone = split_detector(name)
        row = network(backbone)
        return replace(row, se_name=f"{kind}:{row.se_name}", size=MIN_SIZE, num_classes=NUM_CLASSES)
    if not is_of_library(name) or name.startswith("se_"):
        raise ValueError(unknown_network("plain network", name, CATALOGUE))
    cfg = library_cfg(name)
    size = parse_size(cfg["input_size"][1:], "input_size")
    options = ("drop_rate", "drop_path_rate") if name.startswith("timm/") else ()
    return Network(LibrarySpec(name), build_of_library, options, f"se_{name}", size, cfg["num_classes"])


def plain_name(name: str) -> str:
    """Return the name of a network's plain twin; a plain network's own name.

    Raises:
        ValueError: an unknown network; the message names the closest one.
    """
    if name in CATALOGUE:
        return name
    if is_detector(name):
        kind, backbone = split_detector(name)
        return f"{kind}:{plain_name(backbone)}"
    if is_of_library(name):
        plain = name.removeprefix("se_")
        network(plain)  # raises for an unknown name
        return plain
    if name not in _PLAIN_NAMES:
        known = list_models("*:*" if ":" in name else "*")
        raise ValueError(f"{unknown_network('network', name, known)} senet.list_models() lists all.")
    return _PLAIN_NAMES[name]
