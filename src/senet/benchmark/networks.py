"""Open the networks to measure: by name, from senet, timm and torchvision; from a file; or given as a module."""

from copy import deepcopy
from typing import Any

from torch import nn

from senet.graph import find_se
from senet.insertion.insert import remove
from senet.model_file import load
from senet.models import create_model, is_detector, names_file
from senet.models import network as row_of
from senet.nn.inserted_se import find_inserted_se
from senet.utils.arguments import argument

__all__ = ["image_channels", "open_network", "plain_twin", "without_se"]

_OF_DETECTORS = (
    "{} is a detector, and bench compares steps on images of one size with a label each; compare its backbone, such as "
    "senet bench se_resnet50, or the child `backbone` in Python"
)


def open_network(network: nn.Module | str, *, num_classes: int | None = None) -> tuple[str, nn.Module]:
    """Return a network and its name; a module is copied, since training changes it.

    Args:
        network: a module; a name that `senet.create_model` knows, which gives a network without pretrained weights;
            or a model file of senet.
        num_classes: number of classes of a network built by name; by default its own.

    Raises:
        ValueError: the name is unknown; the message suggests the closest one. Or the network is a detector.
        ModelFileError: the file cannot be loaded.
        TypeError: `network` is neither a module nor a string.
    """
    if isinstance(network, nn.Module):
        _refuse_detector(_name(network), network)
        return _name(network), deepcopy(network)
    if not isinstance(network, str):
        raise TypeError(f"a network is a module, a name or a model file, got {network!r}")
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if names_file(network):
        model = load(network)
        _refuse_detector(network, model)
        return network, model
    if is_detector(network):
        raise ValueError(_OF_DETECTORS.format(network))
    return network, create_model(network, **options)


def _refuse_detector(name: str, model: nn.Module) -> None:
    """Refuse a detector, whose steps need boxes, and whose time depends on what it finds.

    Raises:
        ValueError: the network is a detector.
    """
    if is_detector(str((getattr(model, "architecture", None) or {}).get("name", ""))):
        raise ValueError(_OF_DETECTORS.format(name))


def plain_twin(name: str, model: nn.Module) -> tuple[str, nn.Module]:
    """Return a copy of a network without SE, and its name.

    Args:
        name: name of the network.
        model: the network.

    Raises:
        ValueError: the network has no SE that senet inserted.
    """
    if not find_inserted_se(model):
        raise ValueError(
            f"{name} has no SE that senet put in, so it has no plain twin; name an opponent with {argument('against')}"
        )
    twin = remove(deepcopy(model))
    plain = _name(twin)
    return (f"{name} without SE" if plain in (name, type(twin).__name__) else plain), twin


def without_se(name: str, model: nn.Module) -> tuple[str, nn.Module]:
    """Return a copy of a network without SE, and its name; SE of its own is replaced by the identity.

    Args:
        name: name of the network.
        model: the network.

    Raises:
        ValueError: the network has no SE, or SE that is more than one module which scales a map.
    """
    if find_inserted_se(model):
        return plain_twin(name, model)
    twin = deepcopy(model)
    units = find_se(twin)
    other = next((unit.name or "the network itself" for unit in units if unit.form != "block" or not unit.name), None)
    if not units or other is not None:
        why = f"SE in {other}, which does more than to scale a map" if units else "no SE"
        raise ValueError(f"{name} has {why}, so it has no plain twin; name an opponent with {argument('against')}")
    for unit in units:
        twin.set_submodule(unit.name, nn.Identity())
    return f"{name} without SE", twin


def image_channels(model: nn.Module) -> int:
    """Return the input channels of a network: those of its first convolution, or 3 if it has none."""
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    first = next(convolutions, None)
    return 3 if first is None else first.in_channels


def _name(model: nn.Module) -> str:
    architecture: Any = getattr(model, "architecture", None)
    if not isinstance(architecture, dict):
        return type(model).__name__
    name: str = architecture["name"]
    return row_of(name).se_name if find_inserted_se(model) else name
