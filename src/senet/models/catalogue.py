"""Build networks by name, plain or with SE, from the table of `senet.models.table`."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import torch
from torch import nn

from senet.insertion.insert import insert
from senet.models.features import features_of
from senet.models.libraries import LibrarySpec, is_of_library, library_cfg
from senet.models.table import Network, network, plain_name
from senet.utils.arguments import argument
from senet.utils.choices import Missing
from senet.utils.errors import unknown_name
from senet.utils.keywords import check_keywords
from senet.utils.limits import MOST_CHANNELS, MOST_CLASSES, check_at_most
from senet.utils.renamed import RENAMED_OPTIONS
from senet.utils.sizes import size_pair
from senet.weights import gate_options, load_checkpoint, open_checkpoint

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "build_plain", "create_model"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INSERT_OPTIONS = ("placement", "reduction", "squeeze", "gate", "bias", "stages", "at", "init", "window")
# Names of options in timm and torchvision, and the names here.
_ELSEWHERE = {
    "in_chans": "in_channels",
    "drop": "drop_rate",
    "drop_path": "drop_path_rate",
    "se_ratio": "reduction",
    "rd_ratio": "reduction",
}


@check_keywords(**RENAMED_OPTIONS)
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
        name: "resnet50" is the plain network, "se_resnet50" has SE; `list_models` lists all names. Networks of other
            libraries are "timm/NAME" and "torchvision/NAME", with SE "se_timm/NAME" and "se_torchvision/NAME".
        num_classes: number of classes; 0 omits the classifier (not in torchvision's networks); None is the network's
            default.
        in_channels: channels of the images; torchvision's networks require 3.
        weights: weights of senet or another library, see `senet.load_weights`: a file, "timm:NAME", "torchvision:NAME"
            or "hf-hub:OWNER/NAME"; or a network. They determine the architecture, SE and the number of classes unless
            an option is given; an option that contradicts them is an error. The network's attribute `weights_report`
            holds the report.
        missing: "gates" if the weights are a plain network's and the network has SE; SE is then initialized as
            identity unless `init` is given.
        head: False keeps the classifier's initialization, for another number of classes than the weights have.
        entry: which state dict of a file with several, such as "model" or "ema", see `senet.load_weights`.
        features_only: return a network whose output is a list of maps, as in timm; see `senet.models.features_of`.
        out_indices: indices of the maps with `features_only`: 0 is the first, a ResNet's stem, and -1 the last. An
            integer n selects the last n maps; None selects all.
        options: for a network with SE, options of `senet.insert`: placement, reduction, squeeze, gate, bias, stages,
            at, init (default "paper"), window. Options of the architecture, where the network has them: stem, pool,
            stride_in, shortcut, projection, drop_rate, drop_path_rate, see `senet.models.ResNetSpec`; of timm/NAME the
            last two.

    Returns:
        The network, in training mode.

    Raises:
        TypeError: an unknown option; the message names the closest option, or the name here of an option of timm.
        ValueError: an unknown name, an invalid value of an option, an SE option of a plain network, or weights that do
            not fit.
    """
    plain = plain_name(name)
    with_se = name != plain
    row = network(plain)
    _check_options(name, row, options, with_se)
    if out_indices is not None and not features_only:
        raise ValueError("out_indices requires features_only=True")
    architecture = {key: value for key, value in options.items() if key in row.options}
    checkpoint = None
    if weights is not None:
        checkpoint = open_checkpoint(weights, entry=entry, names=lambda: _names(plain))
        architecture = checkpoint.architecture(row.spec, architecture)
        num_classes = checkpoint.num_classes if num_classes is None and head else num_classes
    elif missing is not None or not head or entry is not None:
        given = "missing" if missing is not None else "entry" if entry is not None else "head"
        raise ValueError(f"{argument(given)} requires {argument('weights')}")
    model = build_plain(plain, num_classes=num_classes, in_channels=in_channels, **architecture)
    if with_se:
        se_options = {key: value for key, value in options.items() if key in INSERT_OPTIONS}
        if checkpoint is not None:
            se_options = gate_options(checkpoint, model, se_options, missing)
        insert(model, **{"init": "paper", **se_options})
    if checkpoint is not None:
        loaded: Any = model
        hidden = "reduction" not in options
        # A given `init` may be "paper", for comparison.
        loaded.weights_report = load_checkpoint(
            model, checkpoint, missing=missing, head=head, hidden=hidden, any_init="init" in options
        )
    return features_of(model, out_indices) if features_only else model


def _names(plain: str) -> list[str]:
    """Return the names of a plain network's tensors, with its default options."""
    with torch.device("meta"):
        return list(build_plain(plain).state_dict())


def build_plain(name: str, *, num_classes: int | None = None, in_channels: int = 3, **architecture: Any) -> nn.Module:
    """Return a plain network by its name, with the options that build it again.

    Returns:
        The network, with the attributes `architecture` (its name and options), `num_classes`, `in_channels` and
        `pretrained_cfg`.

    Raises:
        TypeError: an option that `create_model` does not have for this network's architecture.
        ValueError: an unknown plain network, or an invalid value of an option.
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
    """Return `pretrained_cfg` in timm's format; for a network of another library, the library's values."""
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
        if option == "pretrained":
            raise TypeError(f"create_model has no option 'pretrained': {_instead_of_pretrained(name, row, with_se)}")
        if option in _ELSEWHERE:
            raise TypeError(f"create_model has no option {option!r}: it is {_ELSEWHERE[option]}= here")
        if option not in known:
            raise TypeError(unknown_name("option", option, known))
        if option in INSERT_OPTIONS and not with_se:
            with_it = f"{row.se_name!r} is the network with SE"
            raise ValueError(f"{option}= is an option of SE, but {name!r} is plain; {with_it}")


def _instead_of_pretrained(name: str, row: Network, with_se: bool) -> str:
    """Return the option of `create_model` that loads pretrained weights, for a message."""
    if not is_of_library(name):
        return f"{argument('weights')} takes a file, 'timm:NAME', 'torchvision:NAME' or 'hf-hub:OWNER/NAME'"
    source = argument("weights", row.spec.name.replace("/", ":", 1))
    return f"give {source} {argument('missing', 'gates')}" if with_se else f"give {source}"
