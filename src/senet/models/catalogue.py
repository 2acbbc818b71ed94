"""`create_model`: a network by its name, plain or with SE, from the table of `senet.models.table`."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import torch
from torch import nn

from senet.insertion.insert import insert
from senet.models.features import features_of
from senet.models.libraries import LibrarySpec, library_cfg
from senet.models.table import Network, network, plain_name
from senet.utils.choices import Missing
from senet.utils.errors import unknown_name
from senet.utils.limits import MOST_CHANNELS, MOST_CLASSES, check_at_most
from senet.utils.renamed import RENAMED_OPTIONS, renamed
from senet.utils.sizes import size_pair
from senet.weights import gate_options, load_checkpoint, open_checkpoint

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "build_plain", "create_model"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INSERT_OPTIONS = ("placement", "reduction", "squeeze", "gate", "bias", "stages", "at", "init")
# What timm and torchvision call it, and what it is called here.
_ELSEWHERE = {
    "in_chans": "in_channels",
    "pretrained": "weights",
    "drop": "drop_rate",
    "drop_path": "drop_path_rate",
    "se_ratio": "reduction",
    "rd_ratio": "reduction",
}


@renamed(**RENAMED_OPTIONS)
def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    weights: str | PathLike[str] | nn.Module | None = None,
    missing: Missing | None = None,
    head: bool = True,
    entry: str | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network by its name; the default architecture is the authors' release.

    Args:
        name: "resnet50" is the plain network, "se_resnet50" the same with SE; `list_models` has all names. Those of
            other libraries are "timm/NAME" and "torchvision/NAME", with SE "se_timm/NAME" and "se_torchvision/NAME".
        num_classes: 0 leaves the classifier out (not in torchvision's networks); None takes the network's own.
        in_channels: of the images; torchvision's networks take 3 alone.
        weights: of senet or another library, see `senet.load_weights`: a file, "timm:NAME", "torchvision:NAME" or
            "hf-hub:OWNER/NAME"; or a network. What they say of the architecture, of SE and of the number of classes is
            taken where no option says otherwise, and refused where one does. The network's `weights_report` has the
            report.
        missing: "gates": of a network with SE, the weights are of the plain one, and SE starts as identity unless
            `init` says otherwise.
        head: False leaves the classifier as initialised, for another number of classes than the weights'.
        entry: which state dict of a file with several, such as "model" or "ema", see `senet.load_weights`.
        features_only: give a network whose output is a list of maps, as timm does; see `senet.models.features_of`.
        out_indices: with `features_only`, which maps: 0 is the first, the stem's of a ResNet, and -1 the last; a
            number takes the last so many; all unless given.
        options: of a network with SE, those of `senet.insert`: placement, reduction, squeeze, gate, bias, stages, at,
            init ("paper" here). Of the architecture, where the network has them: stem, pool, stride_in, shortcut,
            projection, drop_rate, drop_path_rate, see `senet.models.ResNetSpec`.

    Returns:
        The network, in training mode.

    Raises:
        TypeError: an unknown option; the message names the nearest one, or what timm's name for it is here.
        ValueError: an unknown name, a value that an option does not take, an SE option of a plain network, or weights
            that do not fit.
    """
    plain = plain_name(name)
    with_se = name != plain
    row = network(plain)
    _check_options(name, row, options, with_se)
    if out_indices is not None and not features_only:
        raise ValueError("out_indices picks the maps of features_only=True, which was not given")
    architecture = {key: value for key, value in options.items() if key in row.options}
    checkpoint = None
    if weights is not None:
        checkpoint = open_checkpoint(weights, entry=entry, names=lambda: _names(plain))
        architecture = checkpoint.architecture(row.spec, architecture)
        num_classes = checkpoint.num_classes if num_classes is None and head else num_classes
    elif missing is not None or not head or entry is not None:
        raise ValueError("missing=, head=False and entry= are about weights=, which was not given")
    model = build_plain(plain, num_classes=num_classes, in_channels=in_channels, **architecture)
    if with_se:
        se_options = {key: value for key, value in options.items() if key in INSERT_OPTIONS}
        if checkpoint is not None:
            se_options = gate_options(checkpoint, model, se_options, missing)
        insert(model, **{"init": "paper", **se_options})
    if checkpoint is not None:
        loaded: Any = model
        hidden = "reduction" not in options
        # `init` was given by name: the paper's, to compare the two.
        loaded.weights_report = load_checkpoint(
            model, checkpoint, missing=missing, head=head, hidden=hidden, any_init="init" in options
        )
    return features_of(model, out_indices) if features_only else model


def _names(plain: str) -> list[str]:
    """Return names of a plain network's tensors, with the options of its name alone."""
    with torch.device("meta"):
        return list(build_plain(plain).state_dict())


def build_plain(name: str, *, num_classes: int | None = None, in_channels: int = 3, **architecture: Any) -> nn.Module:
    """Return a plain network by its name, with what it takes to build it again.

    Returns:
        The network with `architecture`, the name and the options that it was built with, `num_classes`, `in_channels`
        and `pretrained_cfg`.

    Raises:
        TypeError: an option that `create_model` does not have for this network's architecture.
        ValueError: no plain network of that name, or a value that an option does not take.
    """
    check_at_most("in_channels", in_channels, MOST_CHANNELS)
    check_at_most("num_classes", num_classes, MOST_CLASSES)
    row = network(name)
    for option in architecture:
        if option not in row.options:
            known = row.options or ("num_classes", "in_channels")
            raise TypeError(unknown_name("option", option, known))
    spec = replace(row.spec, **architecture)
    model: Any = row.build(
        spec, num_classes=row.num_classes if num_classes is None else num_classes, in_channels=in_channels
    )
    model.architecture = {"name": name, "options": architecture}
    model.pretrained_cfg = _cfg(name, row, model)
    return model  # type: ignore[no-any-return]


def _cfg(name: str, row: Network, model: Any) -> dict[str, Any]:
    """`pretrained_cfg` in timm's form: of another library's network, what that says of its images."""
    if isinstance(row.spec, LibrarySpec):
        cfg = library_cfg(row.spec.name)
    else:
        cfg = {
            "input_size": (3, *size_pair(row.size)),
            "crop_pct": 1.0 if row.size == 32 else 0.875,
            "crop_mode": "center",
            "interpolation": "bilinear",
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "first_conv": next(n for n, module in model.named_modules() if isinstance(module, nn.Conv2d)),
            "classifier": "fc",
        }
    channels = model.in_channels
    if channels != 3:  # the means over colours
        cfg |= {key: (round(sum(cfg[key]) / len(cfg[key]), 6),) * channels for key in ("mean", "std")}
    return cfg | {
        "architecture": name,
        "num_classes": model.num_classes,
        "input_size": (channels, *cfg["input_size"][1:]),
        "label_names": None,
    }


def _check_options(name: str, row: Network, options: dict[str, Any], with_se: bool) -> None:
    known = (*INSERT_OPTIONS, *row.options, "num_classes", "in_channels", "weights", "missing", "head")
    known = (*known, "entry", "features_only", "out_indices")
    for option in options:
        if option in _ELSEWHERE:
            raise TypeError(f"create_model has no option {option!r}: it is {_ELSEWHERE[option]}= here")
        if option not in known:
            raise TypeError(unknown_name("option", option, known))
        if option in INSERT_OPTIONS and not with_se:
            with_it = f"{row.se_name!r} is the network with SE"
            raise ValueError(f"{option}= is an option of SE, and {name!r} is plain; {with_it}")
