"""The table of every named network, plain and with SE, and `create_model`, which builds one by its name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from os import PathLike
from typing import Any

from torch import nn

from senet.errors import unknown_name
from senet.insertion import insert
from senet.models.resnet import OPTIONS, ResNet, ResNetSpec
from senet.weights import fit, implied_options, read_checkpoint

__all__ = ["CATALOGUE", "IMAGENET_MEAN", "IMAGENET_STD", "Network", "create_model", "list_models", "plain_name"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INSERT_OPTIONS = ("placement", "reduction", "squeeze", "gate", "bias", "stages", "at", "start")
# What timm and torchvision call it, and what it is called here.
_ELSEWHERE = {
    "in_chans": "in_channels",
    "pretrained": "weights",
    "drop": "drop_rate",
    "drop_path": "drop_path_rate",
    "se_ratio": "reduction",
    "rd_ratio": "reduction",
}


@dataclass(frozen=True)
class Network:
    """A row of the catalogue.

    Attributes:
        spec: the plain network's numbers.
        se_name: the name of the same network with SE.
        size: of the images that it was made for: 224 for ImageNet's, 32 for CIFAR's.
        num_classes: unless told otherwise.
    """

    spec: ResNetSpec
    se_name: str
    size: int
    num_classes: int


def _imagenet(name: str, spec: ResNetSpec, se_name: str = "") -> tuple[str, Network]:
    return name, Network(spec, se_name or f"se_{name}", size=224, num_classes=1000)


def _cifar(name: str, spec: ResNetSpec) -> tuple[str, Network]:
    return name, Network(spec, f"se_{name}", size=32, num_classes=10)


_WIDTHS = (64, 128, 256, 512)
_WIDE = (256, 512, 1024, 2048)
_basic = partial(ResNetSpec, bottleneck=False, channels=_WIDTHS, widths=_WIDTHS)
_bottleneck = partial(ResNetSpec, bottleneck=True, channels=_WIDE, widths=_WIDTHS)
_resnext = partial(
    ResNetSpec, bottleneck=True, channels=_WIDE, widths=(128, 256, 512, 1024), groups=32, stride_in="conv2"
)


def _small(depth: int, *, wide: int = 1, bottleneck: bool = False, preactivation: bool = False) -> ResNetSpec:
    """CIFAR's networks: three stages of 16, 32 and 64 channels, times 4 in bottlenecks, times `wide`."""
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
        _cifar("resnet20", _small(20)),
        _cifar("resnet32", _small(32)),
        _cifar("resnet44", _small(44)),
        _cifar("resnet56", _small(56)),
        _cifar("resnet110", _small(110)),
        _cifar("preresnet110", _small(110, preactivation=True)),
        _cifar("preresnet164", _small(164, bottleneck=True, preactivation=True)),
        _cifar("wrn_16_8", _small(16, wide=8, preactivation=True)),
    ]
)
_PLAIN_NAMES = {row.se_name: name for name, row in CATALOGUE.items()}


def list_models(pattern: str = "*") -> list[str]:
    """Names of networks that match a glob, plain ones and those with SE, in the catalogue's order."""
    names = [name for plain, row in CATALOGUE.items() for name in (plain, row.se_name)]
    return [name for name in names if fnmatchcase(name, pattern)]


def plain_name(name: str) -> str:
    """The name of a network's plain twin, which is the name itself where the network is plain.

    Raises:
        ValueError: no such network; the message names the nearest one.
    """
    if name in CATALOGUE:
        return name
    if name not in _PLAIN_NAMES:
        raise ValueError(f"{unknown_name('network', name, list_models())} senet.list_models() lists all.")
    return _PLAIN_NAMES[name]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    weights: str | PathLike[str] | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network of the catalogue; the default architecture is the authors' release.

    Args:
        name: "resnet50" is the plain network, "se_resnet50" the same with SE; `list_models` has all names.
        num_classes: 0 leaves the classifier out; None takes the catalogue's, 1,000 or 10.
        in_channels: of the images.
        weights: a file of weights with this very network's keys, see `senet.weights.read_checkpoint`.
            Of CIFAR's networks, shortcuts are those of the file: projections if it has weights of them, else padding.
        features_only: give a network whose output is a list of maps, as timm does (its `FeatureListNet`).
        out_indices: with `features_only`, which maps: 0 is the stem's, then one for each stage, and -1 the last; a
            number takes the last so many; all unless given.
        options: of a network with SE, those of `senet.insert`: placement, reduction, squeeze, gate, bias, stages, at,
            start ("paper" here). Of the architecture: stem, pool, stride_in, shortcut, projection, drop_rate,
            drop_path_rate, see `senet.models.ResNetSpec`.

    Returns:
        A `senet.models.ResNet`, in training mode.

    Raises:
        TypeError: an unknown option; the message names the nearest one, or what timm's name for it is here.
        ValueError: an unknown name, a value that an option does not take, an SE option of a plain network, or weights
            that do not fit.
    """
    plain = plain_name(name)
    with_se = name != plain
    _check_options(name, CATALOGUE[plain].se_name, options, with_se)
    if out_indices is not None and not features_only:
        raise ValueError("out_indices picks the maps of features_only=True, which was not given")
    checkpoint = None if weights is None else read_checkpoint(weights)
    # CIFAR's networks are kept with either kind of shortcut; ImageNet's without projections are incomplete.
    implied = implied_options(checkpoint) if checkpoint is not None and CATALOGUE[plain].size == 32 else {}
    architecture = implied | {key: value for key, value in options.items() if key in OPTIONS}
    model = build_plain(plain, num_classes=num_classes, in_channels=in_channels, **architecture)
    if with_se:
        se_options = {key: value for key, value in options.items() if key in INSERT_OPTIONS}
        insert(model, **{"start": "paper", **se_options})
    if checkpoint is not None:
        fit(checkpoint, model, str(weights))
        model.load_state_dict(checkpoint, strict=False)  # `fit` leaves only absent batch counters
    return _features(model, out_indices) if features_only else model


def build_plain(name: str, *, num_classes: int | None = None, in_channels: int = 3, **architecture: Any) -> ResNet:
    """The plain network of a row of the catalogue, with what it takes to build it again.

    Returns:
        A `ResNet` with `architecture`, the name and the options that it was built with, and `pretrained_cfg`.

    Raises:
        TypeError: an option that `create_model` does not have for an architecture.
        ValueError: no plain network of that name, or a value that an option does not take.
    """
    if name not in CATALOGUE:
        raise ValueError(unknown_name("plain network", name, CATALOGUE))
    row = CATALOGUE[name]
    for option in architecture:
        if option not in OPTIONS:
            raise TypeError(unknown_name("option", option, OPTIONS))
    spec = replace(row.spec, **architecture)
    model = ResNet(spec, num_classes=row.num_classes if num_classes is None else num_classes, in_channels=in_channels)
    model.architecture = {"name": name, "options": architecture}
    # ImageNet's figures, and their means where the images are not in colour.
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if in_channels == 3 else ((0.449,) * in_channels, (0.226,) * in_channels)
    model.pretrained_cfg = {
        "architecture": name,
        "num_classes": model.num_classes,
        "input_size": (in_channels, row.size, row.size),
        "crop_pct": 0.875 if row.size == 224 else 1.0,
        "crop_mode": "center",
        "interpolation": "bilinear",
        "mean": mean,
        "std": std,
        "first_conv": "conv1.0" if spec.stem == "deep" else "conv1",
        "classifier": "fc",
        "label_names": None,
    }
    return model


def _check_options(name: str, se_name: str, options: dict[str, Any], with_se: bool) -> None:
    known = (*INSERT_OPTIONS, *OPTIONS, "num_classes", "in_channels", "weights", "features_only", "out_indices")
    for option in options:
        if option in _ELSEWHERE:
            raise TypeError(f"create_model has no option {option!r}: it is {_ELSEWHERE[option]}= here")
        if option not in known:
            raise TypeError(unknown_name("option", option, known))
        if option in INSERT_OPTIONS and not with_se:
            raise ValueError(f"{option}= is an option of SE, and {name!r} is plain; {se_name!r} is the network with SE")


def _features(model: ResNet, out_indices: int | Sequence[int] | None) -> nn.Module:
    from timm.models import FeatureListNet

    last = len(model.feature_info) - 1
    wanted = range(last + 1) if out_indices is None else out_indices
    wanted = range(-wanted, 0) if isinstance(wanted, int) else wanted  # the last so many, as in timm
    if not wanted or not all(-last - 1 <= index <= last for index in wanted):
        raise ValueError(f"out_indices must be among 0 to {last}, or negative from the last, got {out_indices}")
    indices = tuple(index % (last + 1) for index in wanted)
    return FeatureListNet(model, out_indices=indices)  # type: ignore[no-any-return]
