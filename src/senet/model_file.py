"""Model files: one safetensors file with the weights, architecture, SE, classes and preprocessing of a network."""

import json
import math
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn

from senet.graph.se_modules import find_se
from senet.insertion.insert import place
from senet.models import build_plain, is_of_library
from senet.nn.block import SqueezeExcitation
from senet.nn.inserted_se import InsertedSE, find_inserted_se
from senet.utils.choices import check_choice
from senet.utils.errors import ModelFileError, shown, unknown_name
from senet.utils.files import write_safetensors
from senet.utils.input_files import parse_json, reading
from senet.utils.limits import LARGEST_SIDE
from senet.utils.sizes import parse_size, size_pair
from senet.version import __version__
from senet.weights import check_fit, hub_file

__all__ = ["FORMAT", "describe", "is_model_file", "load", "save"]

# Incremented when an older senet could misread a file. A file records the lowest format that describes it: 3 for SE
# with windows, 2 for a network of another library without some of its own SE modules, 1 for all others.
FORMAT = 3
HUB = "hf-hub:"
_KEY = "senet"
# Channels and classes that are accepted without a tensor of that size: grouped convolutions have smaller tensors.
_SMALL = 4096
# The modes of torchvision and timm.
_Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "nearest-exact", "random"]


def save(model: nn.Module, path: str | PathLike[str]) -> None:
    """Write a network to one file from which `load` rebuilds it. The file is written completely or not at all.

    Args:
        model: a network of `create_model`, with SE inserted, removed or changed. An SE module that is part of another
            library's network may be replaced by `torch.nn.Identity`.
        path: of the file, usually `.safetensors`.

    Raises:
        ModelFileError: the network was not built by `create_model`, or was changed so that it cannot be rebuilt, or
            its `pretrained_cfg` has values that JSON does not support.
        OSError: the file cannot be written.
    """
    text = describe(model)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    write_safetensors(tensors, path, {_KEY: text})


def load(path: str | PathLike[str]) -> nn.Module:
    """Load a network from a file of `save`, in evaluation mode. Loading never runs code from the file.

    Args:
        path: of the file; or "hf-hub:OWNER/NAME", a repository of `senet.push_to_hub`.

    Returns:
        The network, with the saved `pretrained_cfg` (classes as `label_names`, mean, std, sizes).

    Raises:
        ModelFileError: the file is missing, truncated, of another kind, or written by a newer senet; or the download
            from the hub fails.
    """
    path = _local(path)
    if not Path(path).is_file():
        raise ModelFileError(f"no file at {path}")
    with (
        reading(path, error=ModelFileError, message="{name} is not a model file of senet, or is truncated: {reason}"),
        safe_open(path, framework="pt") as file,
    ):
        text = (file.metadata() or {}).get(_KEY)
        # Copies: tensors in the mapped file are not aligned, and some kernels then round differently.
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()} if text else {}  # noqa: SIM118
    if text is None:
        raise ModelFileError(
            f"{path} holds weights only; name their network, as in senet.create_model(NAME, weights=...)"
        )
    description = _parsed(text, path)
    with reading(path, error=ModelFileError, message="{name} does not describe a valid network: {reason}"):
        _check_numbers(description, tensors)
        model: Any = _rebuild(description, "meta")
        check_fit(tensors, model, str(path))
        if is_of_library(description["network"]["name"]):
            # Networks of other libraries may have tensors outside their state dict.
            model = _rebuild(description, "cpu")
    with reading(path, error=ModelFileError, message="{name} has parameters that are not floating-point numbers"):
        model.load_state_dict(tensors, assign=True)
    return model.eval()  # type: ignore[no-any-return]


def _parsed(text: str, path: str | PathLike[str]) -> dict[str, Any]:
    """Parse the description in a file.

    Raises:
        ModelFileError: it is not a JSON object with a format, or a newer senet wrote it.
    """
    with reading(path, error=ModelFileError, message="{name} has an invalid description: {reason}"):
        description: dict[str, Any] = parse_json(text)
        number = description["format"]
        if type(number) is not int or number < 1:
            raise ValueError(f"format must be a whole number of 1 or more, got {shown(number)}")
    if number > FORMAT:
        raise ModelFileError(
            f"{path} was written by senet {str(description.get('version'))[:40]} in format {number}; this version "
            f"reads formats up to {FORMAT}: upgrade senet"
        )
    return description


def _check_numbers(description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Refuse a network that would need more memory than its tensors in the file, before it is built.

    Raises:
        ValueError: in_channels or num_classes is not a number, or is a large number that no tensor has as a size.
    """
    sizes = {size for tensor in tensors.values() for size in tensor.shape}
    for key in ("in_channels", "num_classes"):
        number = description["network"][key]
        if type(number) is not int or number < 0:
            raise ValueError(f"{key} must be a whole number, got {shown(number)}")
        if number > _SMALL and number not in sizes:
            raise ValueError(f"{key} is {number:,}, but no tensor of the file has that size")


def _local(path: str | PathLike[str]) -> str | PathLike[str]:
    """Return the local path of a file; files of the hub are downloaded."""
    name = str(path)
    return hub_file(name.removeprefix(HUB)) if name.startswith(HUB) else path


def is_model_file(path: str | PathLike[str]) -> bool:
    """Return whether a file, local or on the hub, was written by `save`."""
    try:
        with safe_open(_local(path), framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except Exception:  # another format, damaged or missing: the reader of weights reports the error
        return False


def describe(model: nn.Module) -> str:
    """Return the description of a network in its file, as JSON, after a check that `load` can rebuild the network.

    Raises:
        ModelFileError: it cannot be rebuilt, see `save`.
    """
    network: Any = model
    if not isinstance(getattr(model, "architecture", None), dict):
        raise ModelFileError(
            f"a {type(model).__name__} is not one of senet's named networks, so a file cannot rebuild it; build it "
            f"with senet.create_model, or save its state_dict with torch.save"
        )
    description: dict[str, Any] = {
        "format": 1,
        "version": __version__,
        "network": network.architecture | {"num_classes": network.num_classes, "in_channels": network.in_channels},
        "se": [_entry(insertion) for insertion in find_inserted_se(model)],
        "pretrained_cfg": network.pretrained_cfg,
    }
    try:
        rebuilt = _rebuild(description, "meta")
        left_out = _left_out(model, rebuilt)
        if left_out:
            description |= {"format": 2, "left_out": left_out}
            _leave_out(rebuilt, left_out)
        if any(insertion.se.window is not None for insertion in find_inserted_se(model)):
            description |= {"format": 3}
        check_fit(model.state_dict(), rebuilt, "the network")
    except ValueError as error:
        raise ModelFileError(f"the network was changed in a way that a file cannot describe: {error}") from error
    try:
        return json.dumps(description)
    except TypeError as error:
        raise ModelFileError(f"pretrained_cfg must hold text, numbers, and lists of these: {error}") from error


def _left_out(model: nn.Module, named: nn.Module) -> list[str]:
    """Return the names of SE modules of the named network that are an identity in this one."""
    modules = dict(model.named_modules())
    own = [unit.name for unit in find_se(named) if unit.site is None]
    return [name for name in own if type(modules.get(name)) is nn.Identity]


def _leave_out(model: nn.Module, names: list[str]) -> None:
    """Replace SE modules by the identity.

    Raises:
        ValueError: a name is not one of the network's own SE modules; the file may be malicious.
    """
    own = [unit.name for unit in find_se(model) if unit.site is None]
    for name in names:
        if name not in own:
            raise ValueError(unknown_name("SE module to leave out", name, own))
        model.set_submodule(name, nn.Identity())


def _entry(insertion: InsertedSE) -> dict[str, Any]:
    return {
        "name": insertion.name,
        "how": insertion.how,
        "child": insertion.child,
        "options": insertion.se.options,
    }


def _rebuild(description: dict[str, Any], device: str) -> nn.Module:
    """Build the network of a description; on the meta device, the caller loads its tensors."""
    network = description["network"]
    with torch.device(device):
        model: Any = build_plain(
            network["name"],
            num_classes=network["num_classes"],
            in_channels=network["in_channels"],
            **network["options"],
        )
        _leave_out(model, description.get("left_out", []))
        for entry in description["se"]:
            place(model, entry["name"], entry["how"], entry["child"], SqueezeExcitation(**entry["options"]))
    model.pretrained_cfg = {
        key: tuple(value) if isinstance(value, list) and key != "label_names" else value
        for key, value in description["pretrained_cfg"].items()
    }
    _check_cfg(model.pretrained_cfg, model.num_classes)
    return model  # type: ignore[no-any-return]


def _check_cfg(cfg: dict[str, Any], num_classes: int) -> None:
    """Check the values used later, for images: a file may be malicious, and exhaust memory."""
    size, crop_pct, names = cfg["input_size"], cfg["crop_pct"], cfg["label_names"]
    if not _numbers(size, 3) or not all(isinstance(n, int) and 1 <= n <= LARGEST_SIDE for n in size):
        raise ValueError(f"input_size must be channels, height and width of 1 to {LARGEST_SIDE}, got {shown(size)}")
    if "resize" in cfg and not all(
        1 <= side <= LARGEST_SIDE for side in size_pair(parse_size(cfg["resize"], "resize"))
    ):
        raise ValueError(f"resize must be of 1 to {LARGEST_SIDE} pixels, got {shown(cfg['resize'])}")
    if not _numbers([crop_pct], 1) or not 0.05 <= crop_pct <= 20:
        raise ValueError(f"crop_pct must be between 0.05 and 20, got {shown(crop_pct)}")
    for key in ("mean", "std"):
        if not isinstance(cfg[key], list | tuple) or not _numbers(cfg[key], len(cfg[key]) or 1):
            raise ValueError(f"{key} must be a list of finite numbers, one for each channel, got {shown(cfg[key])}")
    if not all(value > 0 for value in cfg["std"]):
        raise ValueError(f"std must be above 0, got {shown(cfg['std'])}")
    check_choice("interpolation", cfg["interpolation"], _Interpolation)
    named = isinstance(names, list | tuple) and len(names) == num_classes and all(isinstance(n, str) for n in names)
    if names is not None and not named:
        raise ValueError(
            f"label_names must have a name for each of {num_classes} classes, or be None, got {shown(names)}"
        )


def _numbers(values: Any, count: int) -> bool:
    """Return whether a value is a list of this many finite numbers."""
    return (
        isinstance(values, list | tuple)
        and len(values) == count
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )
