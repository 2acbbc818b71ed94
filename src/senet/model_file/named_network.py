"""Files of senet's named networks: their description, and the network that it describes."""

import json
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from senet.graph.se_modules import find_se
from senet.insertion import place
from senet.model_file.file_format import entry_of
from senet.models import apply_preprocessing, build_plain, freeze_backbone, is_detector, is_of_library
from senet.nn.block import SqueezeExcitation
from senet.nn.inserted_se import find_inserted_se
from senet.utils.choices import TaskName, check_choice
from senet.utils.errors import ModelFileError, shown, unknown_name
from senet.utils.input_files import reading
from senet.utils.limits import LARGEST_SIDE
from senet.utils.sizes import parse_size, size_pair
from senet.version import __version__
from senet.weights import check_fit

__all__ = ["describe_named_network", "rebuild_network"]

# Channels and classes that are accepted without a tensor of that size: grouped convolutions have smaller tensors.
_SMALL = 4096
# The modes of torchvision and timm.
_Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "nearest-exact", "random"]


def rebuild_network(description: dict[str, Any], tensors: dict[str, Tensor], path: str) -> nn.Module:
    """Build the network of a file, with its tensors.

    Raises:
        ModelFileError: the description is invalid, or the tensors do not fit it.
    """
    with reading(path, error=ModelFileError, message="{name} does not describe a valid network: {reason}"):
        _check_numbers(description, tensors)
        model: Any = _rebuild(description, "meta")
        check_fit(tensors, model.state_dict(), path)
        if is_of_library(description["network"]["name"].rpartition(":")[2]):
            # Networks of other libraries may have tensors outside their state dict.
            model = _rebuild(description, "cpu")
    with reading(path, error=ModelFileError, message="{name} has parameters that are not floating-point numbers"):
        model.load_state_dict(tensors, assign=True)
    return model  # type: ignore[no-any-return]


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


def describe_named_network(model: nn.Module) -> str:
    """Return the description of a network of `create_model`, as JSON, after a check that it can be rebuilt.

    Raises:
        ModelFileError: it cannot be rebuilt, see `save`.
    """
    network: Any = model
    description: dict[str, Any] = {
        "format": 1,
        "version": __version__,
        "network": network.architecture | {"num_classes": network.num_classes, "in_channels": network.in_channels},
        "se": [entry_of(insertion) for insertion in find_inserted_se(model)],
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
        other = any(insertion.se.attention != "se" for insertion in find_inserted_se(model))
        if other or is_detector(network.architecture["name"]):
            description |= {"format": 4}
        check_fit(model.state_dict(), rebuilt.state_dict(), "the network")
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
        if is_detector(network["name"]):
            apply_preprocessing(model)
            freeze_backbone(model)
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
    if "task" in cfg:
        check_choice("task", cfg["task"], TaskName)
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
