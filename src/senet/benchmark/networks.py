"""The networks that are measured: senet's by name, timm's and torchvision's, those of files, and any that is built."""

from copy import deepcopy
from typing import Any

from torch import nn

from senet.insertion.insert import remove
from senet.model_file import load
from senet.models import create_model, names_file
from senet.models import network as row_of
from senet.nn.insertions import insertions

__all__ = ["image_channels", "open_network", "plain_twin"]


def open_network(network: nn.Module | str, *, num_classes: int | None = None) -> tuple[str, nn.Module]:
    """Return a network's name and the network; a module is copied, since training changes it.

    Args:
        network: a module; a name that `senet.create_model` knows, which gives a network without pretrained weights;
            or a model file of senet.
        num_classes: of what is built by a name; the network's own unless given.

    Raises:
        ValueError: there is no network of this name; the message names the nearest one.
        ModelFileError: the file cannot be loaded.
        TypeError: neither a module nor text.
    """
    if isinstance(network, nn.Module):
        return _name(network), deepcopy(network)
    if not isinstance(network, str):
        raise TypeError(f"a network is a module, a name or a model file, got {network!r}")
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if names_file(network):
        return network, load(network)
    return network, create_model(network, **options)


def plain_twin(name: str, model: nn.Module) -> tuple[str, nn.Module]:
    """Return the name of a network's plain twin, and the twin: a copy of the network without SE.

    Args:
        name: what the network is called.
        model: the network.

    Raises:
        ValueError: there is no SE of senet's in it, so that it would be its own twin.
    """
    if not insertions(model):
        raise ValueError(f"{name} has no SE that senet put in, so it has no plain twin; name an opponent with against")
    twin = remove(deepcopy(model))
    plain = _name(twin)
    return (f"{name} without SE" if plain in (name, type(twin).__name__) else plain), twin


def image_channels(model: nn.Module) -> int:
    """Channels of the images that a network takes: those of its first convolution, or 3 where it has none."""
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    first = next(convolutions, None)
    return 3 if first is None else first.in_channels


def _name(model: nn.Module) -> str:
    architecture: Any = getattr(model, "architecture", None)
    if not isinstance(architecture, dict):
        return type(model).__name__
    name: str = architecture["name"]
    return row_of(name).se_name if insertions(model) else name
