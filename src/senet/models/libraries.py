"""Networks of timm and torchvision by their names there: "timm/resnet26d", "torchvision/vgg16_bn"."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from senet.models.base import check_rate
from senet.models.detector_names import is_detector
from senet.utils.errors import first_line, shown, unknown_name

__all__ = [
    "LIBRARIES",
    "LibrarySpec",
    "build_of_library",
    "is_of_library",
    "library_cfg",
    "library_names",
    "names_file",
    "unknown_network",
]

LIBRARIES = ("timm", "torchvision")

# Torchvision's Inceptions have auxiliary classifiers, which return more outputs than logits in training. Their default
# initialization is passed explicitly, to avoid a warning.
_PLAIN_INCEPTION = {"aux_logits": False, "init_weights": True}
_TORCHVISION = {"googlenet": _PLAIN_INCEPTION, "inception_v3": _PLAIN_INCEPTION}


_SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".caffemodel", ".onnx", ".xml", ".pt2")

# The keys used of timm's `pretrained_cfg`.
_CFG = (
    *("num_classes", "input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std"),
    *("first_conv", "classifier"),
)


@dataclass(frozen=True)
class LibrarySpec:
    """A plain network of another library.

    Attributes:
        name: "timm/NAME" or "torchvision/NAME"; NAME may have one of timm's tags, which determine the preprocessing.
        drop_rate: dropout before the classifier, for timm's networks only; None is the library's default.
        drop_path_rate: stochastic depth, for timm's networks only; None is the library's default.

    Raises:
        ValueError: a rate outside of 0 to 1.
    """

    name: str
    drop_rate: float | None = None
    drop_path_rate: float | None = None

    def __post_init__(self) -> None:
        for name, rate in self.rates.items():
            check_rate(name, rate)

    @property
    def rates(self) -> dict[str, float]:
        """The rates that are given."""
        rates = {"drop_rate": self.drop_rate, "drop_path_rate": self.drop_path_rate}
        return {name: rate for name, rate in rates.items() if rate is not None}


def is_of_library(name: str) -> bool:
    """Return whether a name has another library's prefix, plain or with SE; the network may not exist."""
    return name.removeprefix("se_").partition("/")[0] in LIBRARIES and "/" in name


def names_file(name: str) -> bool:
    """Return whether a name is a file or remote weights such as "hf-hub:OWNER/NAME", and not a network."""
    if is_of_library(name) or is_detector(name):
        return False
    return Path(name).is_file() or "/" in name or ":" in name or name.endswith(_SUFFIXES)


def library_names() -> list[str]:
    """Return the names of all networks of other libraries, without tags of weights: "timm/NAME", "torchvision/NAME"."""
    import timm
    from torchvision import models

    # Torchvision's classifiers alone.
    known = {"timm": timm.list_models(), "torchvision": models.list_models(module=models)}
    return [f"{library}/{name}" for library in LIBRARIES for name in known[library]]


def unknown_network(what: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown network: networks of other libraries with this name, else the closest match.

    Args:
        what: "network" or "plain network".
        name: the given name, without a library.
        known: all valid names without a library.
    """
    there = [other for other in library_names() if other.partition("/")[2] == name]
    if there:
        return f"unknown {what} {shown(name, 200)}; did you mean {' or '.join(map(repr, there))}?"
    return unknown_name(what, name, known)


def library_cfg(name: str) -> dict[str, Any]:
    """Return a library's description of a plain network's images and layers, in timm's format.

    Args:
        name: "timm/NAME" or "torchvision/NAME".

    Returns:
        `num_classes`, `input_size`, `crop_pct`, `crop_mode`, `interpolation`, `mean`, `std`, `first_conv` and
        `classifier`; the last two are None for torchvision.

    Raises:
        ValueError: an unknown network; the message names the closest one.
    """
    library, _, network = name.partition("/")
    return _timm_cfg(network) if library == "timm" else _torchvision_cfg(network)


def build_of_library(spec: LibrarySpec, *, num_classes: int, in_channels: int) -> nn.Module:
    """Build a network of another library, without pretrained weights.

    Args:
        spec: the network.
        num_classes: number of classes; 0 omits the classifier, in timm's networks only.
        in_channels: channels of the images.

    Returns:
        The library's own network, with `num_classes` and `in_channels`.

    Raises:
        TypeError: timm's network has no such rate.
        ValueError: an unknown network; or a network of torchvision with other than 3 channels, or without classes.
    """
    library_cfg(spec.name)  # raises for an unknown name
    if in_channels < 1:
        raise ValueError(f"in_channels must be 1 or more, got {in_channels}; 3 for RGB images")
    if num_classes < 0:
        raise ValueError(f"num_classes must be 0 or more, got {num_classes}")
    library, _, network = spec.name.partition("/")
    build = _timm if library == "timm" else _torchvision
    try:
        model = build(network, spec, num_classes, in_channels)
    except NotImplementedError:  # some read tensor values in their constructor, which fails on the meta device
        device = torch.get_default_device()
        with torch.device("cpu"):
            model = build(network, spec, num_classes, in_channels).to(device)
    model.num_classes, model.in_channels = num_classes, in_channels
    return model  # type: ignore[no-any-return]


def _timm(network: str, spec: LibrarySpec, num_classes: int, in_channels: int) -> Any:
    import timm

    build = partial(timm.create_model, network, pretrained=False, num_classes=num_classes, in_chans=in_channels)
    try:
        return build(**spec.rates)
    except TypeError as error:
        refused = next((name for name in spec.rates if f"unexpected keyword argument '{name}'" in str(error)), None)
        if refused is None:
            raise
        raise TypeError(f"timm/{network} has no option {refused!r}: {first_line(error)}") from error


def _torchvision(network: str, spec: LibrarySpec, num_classes: int, in_channels: int) -> Any:
    from torchvision import models

    if in_channels != 3:
        raise ValueError(
            f"in_channels={in_channels}: torchvision's networks take 3 channels only; timm/{network}, if it "
            f"exists, takes any number"
        )
    if not num_classes:
        raise ValueError(f"num_classes=0: torchvision's {network} always has a classifier; give 1 class or more")
    return models.get_model(network, weights=None, num_classes=num_classes, **_TORCHVISION.get(network, {}))


def _timm_cfg(network: str) -> dict[str, Any]:
    import timm
    from timm.models import PretrainedCfg, get_pretrained_cfg

    if not timm.is_model(network):
        raise ValueError(unknown_name("network", f"timm/{network}", [f"timm/{one}" for one in timm.list_models()]))
    try:
        cfg = get_pretrained_cfg(network) or PretrainedCfg()
    except RuntimeError as error:
        known = network.partition(".")[0]
        raise ValueError(f"unknown network 'timm/{network}': {error} Without a tag it is timm/{known}.") from error
    return {key: getattr(cfg, key) for key in _CFG}


def _torchvision_cfg(network: str) -> dict[str, Any]:
    from torchvision import models

    known = models.list_models(module=models)  # the classifiers alone
    if network not in known:
        near = [f"torchvision/{one}" for one in known]
        raise ValueError(unknown_name("network", f"torchvision/{network}", near))
    preset = models.get_model_weights(network).DEFAULT.transforms()
    height, width = preset.crop_size[0], preset.crop_size[-1]
    return {
        "num_classes": 1000,
        "input_size": (3, height, width),
        "crop_pct": height / preset.resize_size[0],
        "crop_mode": "center",
        "interpolation": preset.interpolation.value,
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
        "first_conv": None,
        "classifier": None,
    }
