"""Build classifiers by name, plain or with SE, from the table of `senet.models.table`."""

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
from senet.utils.errors import ModelFileError, unknown_name
from senet.utils.limits import MOST_CHANNELS, MOST_CLASSES, check_at_most
from senet.utils.sizes import size_pair
from senet.weights import gate_options, load_checkpoint, open_checkpoint

__all__ = [
    "ELSEWHERE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INSERT_OPTIONS",
    "build_plain_classifier",
    "check_without_weights",
    "create_classifier",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INSERT_OPTIONS = ("placement", "reduction", "attention", "squeeze", "gate", "bias", "stages", "at", "init", "window")
# Names of options in timm and torchvision, and the names here.
ELSEWHERE = {
    "in_chans": "in_channels",
    "drop": "drop_rate",
    "drop_path": "drop_path_rate",
    "se_ratio": "reduction",
    "rd_ratio": "reduction",
}


def create_classifier(
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
    """Build a network of the catalogue or of another library, see `create_model`."""
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
        if any(tensor.startswith("backbone.body.") for tensor in checkpoint.contents.tensors):
            raise ModelFileError(
                f"{checkpoint.source} has the weights of a detector, and {name} is a classifier, or the backbone of a "
                f"detector: give the weights of a classifier"
            )
        architecture = checkpoint.architecture(row.spec, architecture)
        num_classes = checkpoint.num_classes if num_classes is None and head else num_classes
    else:
        check_without_weights("weights", missing=missing, head=head, entry=entry)
    model = build_plain_classifier(plain, num_classes=num_classes, in_channels=in_channels, **architecture)
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
        return list(build_plain_classifier(plain).state_dict())


def check_without_weights(option: str, *, missing: Missing | None, head: bool, entry: str | None) -> None:
    """Check that no option of weights is given without weights.

    Args:
        option: name of the option that takes weights.
        missing, head, entry: see `create_model`.

    Raises:
        ValueError: one of them is given.
    """
    if missing is not None or not head or entry is not None:
        given = "missing" if missing is not None else "entry" if entry is not None else "head"
        raise ValueError(f"{argument(given)} requires {argument(option)}")


def build_plain_classifier(
    name: str, *, num_classes: int | None = None, in_channels: int = 3, **architecture: Any
) -> nn.Module:
    """Return a plain classifier by its name, see `build_plain`."""
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
        if option in ELSEWHERE:
            raise TypeError(f"create_model has no option {option!r}: it is {ELSEWHERE[option]}= here")
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
