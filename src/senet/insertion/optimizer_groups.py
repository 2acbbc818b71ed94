"""Add new parameters to an existing optimizer, with the options of neighbouring parameters."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["add_parameters", "check_optimizer"]


def check_optimizer(optimizer: Any, model: nn.Module) -> None:
    """Check that `add_parameters` can extend an optimizer.

    Raises:
        TypeError: `optimizer` is not a `torch.optim.Optimizer`.
        ValueError: it supports only one group, or has none of the network's parameters.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("optimizer LBFGS supports only one parameter group: create it after senet.insert")
    if not any(id(parameter) in _groups(optimizer) for parameter in model.parameters()):
        raise ValueError(
            f"optimizer {type(optimizer).__name__} has none of this network's parameters: create it from "
            f"model.parameters() of this network, or after senet.insert"
        )


def add_parameters(optimizer: torch.optim.Optimizer, model: nn.Module, new: Iterable[tuple[str, nn.Module]]) -> None:
    """Add the parameters of new modules to an optimizer.

    New parameters get the options (learning rate, weight decay, ...) of their neighbours' group: weights those of
    weights, biases those of biases and batch norms, if these have their own group. An optimizer with one group gets a
    second one.

    Args:
        optimizer: changed in place.
        model: the network that holds the new modules.
        new: names of the modules of the network around each new module, and the new modules.
    """
    groups = _groups(optimizer)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    added: list[tuple[dict[str, Any], list[nn.Parameter]]] = []
    for around, module in new:
        for parameter in module.parameters():
            options = _options(_like(parameter, [model.get_submodule(around), model], groups))
            alike = next((parameters for other, parameters in added if _same(options, other)), None)
            if alike is None:
                added.append((options, [parameter]))
            else:
                alike.append(parameter)
    named = any("param_names" in group for group in optimizer.param_groups)
    for options, parameters in added:
        pairs = [(names[id(parameter)], parameter) for parameter in parameters]
        optimizer.add_param_group({**options, "params": pairs if named else parameters})


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def _same(some: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether options are equal; tensors, such as a learning rate that is changed in place, by identity."""
    return some.keys() == other.keys() and all(
        value is other[key] or (not isinstance(value, torch.Tensor) and bool(value == other[key]))
        for key, value in some.items()
    )


def _groups(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """Map the id of each parameter to its group."""
    return {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}


def _like(parameter: nn.Parameter, around: list[nn.Module], groups: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Return the group of the nearest parameter of the same kind, weight or bias."""
    held = [other for module in around for other in module.parameters() if id(other) in groups]
    alike = (other for other in held if (other.ndim > 1) == (parameter.ndim > 1))
    return groups[id(next(alike, held[0]))]
