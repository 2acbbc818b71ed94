"""Files with the SE of a network that they do not build, and how they are loaded into that network."""

import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from senet.insertion.network_checks import check_module, refuse_lazy
from senet.insertion.placing import check_places, place, reference_tensor
from senet.insertion.wrappers import refuse_wrapped
from senet.model_file.file_format import entry_of
from senet.nn.block import SqueezeExcitation
from senet.nn.inserted_se import InsertedSE, find_inserted_se
from senet.utils.arguments import in_python_or
from senet.utils.errors import ModelFileError, shown
from senet.utils.input_files import reading
from senet.version import __version__
from senet.weights import check_fit

__all__ = ["describe_se", "load_into", "se_tensors"]

_KEYS = {"format", "version", "class", "se_only", "se", "around"}
_COUNTER = "num_batches_tracked"  # absent in frozen batch norms
_ENTRY_KEYS = {"name", "how", "child", "options"}


def describe_se(model: nn.Module, *, se_only: bool) -> str:
    """Return the description of the SE in a network, as JSON.

    Raises:
        ModelFileError: there is none.
    """
    found = find_inserted_se(model)
    if not found:
        what = "it has no SE" if se_only else "it is not one of senet's named networks, and has no SE"
        remedy = in_python_or("call senet.insert", "insert SE with senet insert")
        raise ModelFileError(
            f"a {type(model).__name__} cannot be saved here: {what}; {remedy} first, or save its state_dict with "
            f"torch.save"
        )
    kind = type(model)
    return json.dumps(
        {
            "format": 4 if any(one.se.attention != "se" for one in found) else 3,
            "version": __version__,
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "se_only": se_only,
            "se": [entry_of(insertion) for insertion in found],
            "around": _shapes_around(model.state_dict(), found) if se_only else {},
        }
    )


def _shapes_around(state: dict[str, Any], found: Iterable[InsertedSE]) -> dict[str, list[int]]:
    """Return the shapes of the plain tensors on which SE depends: of all layers up to the end of the units with SE.

    The classifier and other heads come later in a state dict, so they may differ.
    """
    found = list(found)
    se = tuple(f"{one.se_name}." for one in found)
    shapes = {
        key: list(value.shape)
        for key, value in state.items()
        if isinstance(value, Tensor) and not key.startswith(se) and not key.endswith(_COUNTER)
    }
    units = {one.name.rpartition(".")[0] or one.name for one in found}
    inside = tuple(f"{unit}." for unit in units)
    stages = tuple(f"{unit.rpartition('.')[0] or unit}." for unit in units)
    # A sequence of units may end in a linear classifier.
    ends = [
        place
        for place, (key, shape) in enumerate(shapes.items())
        if key.startswith(inside) or (key.startswith(stages) and len(shape) > 2)
    ]
    return dict(list(shapes.items())[: ends[-1] + 1]) if ends else {}


def se_tensors(found: Iterable[InsertedSE]) -> dict[str, Tensor]:
    """Return the tensors of SE, by their names in the network."""
    return {f"{one.se_name}.{key}": tensor for one in found for key, tensor in one.se.state_dict().items()}


def load_into(model: nn.Module, description: dict[str, Any], tensors: dict[str, Tensor], path: str) -> nn.Module:
    """Insert the SE of a file into a network, and load the file's tensors. On failure the network is unchanged.

    Args:
        model: the network, without inserted SE.
        description: of the file.
        tensors: of the file.
        path: of the file, for messages.

    Returns:
        The same model.

    Raises:
        ModelFileError: the description is invalid, or does not fit the network, or the tensors do not.
        ValueError: the network is wrapped.
    """
    check_module(model)
    refuse_wrapped(model)
    with reading(path, error=ModelFileError, message="{name} has an invalid description: {reason}"):
        se_only = _check(description)
    kind = type(model).__name__
    with reading(path, error=ModelFileError, message=f"{{name}} does not fit this {kind}: {{reason}}"):
        _check_network(model)
        found = [_insertion(model, entry) for entry in description["se"]]
        check_places(model, [(one.name, one.how, one.child, one.se.channels) for one in found])
        own, plain = se_tensors(found), model.state_dict()
        if se_only:
            _check_around(_shapes_around(plain, found), description["around"])
        _check_tensors(tensors, own if se_only else plain | own, path)
        for one in found:
            one.se.load_state_dict({key: tensors[f"{one.se_name}.{key}"] for key in one.se.state_dict()})
    for one in found:
        place(model, one.name, one.how, one.child, one.se)
    if not se_only:
        model.load_state_dict(tensors)
    return model


def _check(description: dict[str, Any]) -> bool:
    """Check the keys of a description, and return whether the file has SE only.

    Raises:
        ValueError: unknown or missing keys, or values of another type.
    """
    given = "network" not in description
    if given and description.keys() != _KEYS:
        raise ValueError(f"expected the keys {sorted(_KEYS)}, got {shown(sorted(description), 200)}")
    if given and (type(description["se_only"]) is not bool or not isinstance(description["around"], dict)):
        raise ValueError("se_only must be true or false, and around the shapes of tensors by name")
    for entry in description["se"]:
        if entry.keys() != _ENTRY_KEYS or not all(isinstance(entry[key], str) for key in ("name", "how", "child")):
            raise ValueError(f"SE at a site must have the keys {sorted(_ENTRY_KEYS)}, got {shown(entry, 200)}")
    return given and description["se_only"]


def _check_network(model: nn.Module) -> None:
    """Check that a network can get SE and weights.

    Raises:
        ValueError: it has inserted SE, or parameters without values.
    """
    there = find_inserted_se(model)
    if there:
        remedy = in_python_or(", or call senet.remove first", "")
        raise ValueError(f"it already has SE at {there[0].name!r}; give the plain network{remedy}")
    refuse_lazy(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ValueError(f"{name!r} is on the meta device, which has no memory for weights; build it elsewhere")


def _insertion(model: nn.Module, entry: dict[str, Any]) -> InsertedSE:
    """Build SE for a site, with the device and dtype of the tensors around it."""
    name, how = entry["name"], entry["how"]
    unit = name.rpartition(".")[0] if how == "skip" else name
    modules = dict(model.named_modules(remove_duplicate=False))
    if unit not in modules:
        raise ValueError(f"it has no module {shown(unit, 200)}")
    like = reference_tensor(model, unit)
    with torch.device(like.device):
        se = SqueezeExcitation(**entry["options"])
    return InsertedSE(name, how, entry["child"], se.to(like.dtype))


def _check_around(here: dict[str, list[int]], there: dict[str, Any]) -> None:
    """Check that the layers around SE are those of the network that was saved.

    Raises:
        ValueError: a tensor is missing, is new, or has another shape.
    """
    for name in (*there, *here):
        what = shown(name, 200)
        if name not in here:
            raise ValueError(f"it has no {what}, as the network had from which SE was saved")
        if name not in there:
            raise ValueError(f"it has {what}, and the network from which SE was saved had not")
        if here[name] != there[name]:
            raise ValueError(f"the shape of {what} is {here[name]}, and was {shown(there[name])} when SE was saved")


def _check_tensors(tensors: dict[str, Tensor], own: dict[str, Tensor], path: str) -> None:
    """Check that tensors match by name, shape and kind of number.

    Raises:
        ModelFileError: they do not; the message counts and names them.
    """
    check_fit(tensors, own, path)
    odd = sorted(tensors.keys() ^ own.keys())
    if odd:  # counters of batch norms, which `check_fit` permits to differ
        raise ValueError(f"{odd[0]!r} is in {'the file' if odd[0] in tensors else 'the network'} only")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() != own[name].is_floating_point():
            raise ValueError(f"{name!r} is {tensor.dtype} in the file, and {own[name].dtype} in the network")
