"""Add parameters that came later to an optimizer, with the options of those that it has."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["add_parameters", "check_optimizer"]


def check_optimizer(optimizer: Any, model: nn.Module) -> None:
    """Refuse what `add_parameters` cannot add to.

    Raises:
        TypeError: it is no `torch.optim.Optimizer`.
        ValueError: it takes one group alone, or has none of the network's parameters.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("optimizer LBFGS has one parameter group alone: create it after senet.insert")
    if not any(id(parameter) in _groups(optimizer) for parameter in model.parameters()):
        raise ValueError(
            f"optimizer {type(optimizer).__name__} has none of this network's parameters: create it from "
            f"model.parameters() of this network, or after senet.insert"
        )


def add_parameters(optimizer: torch.optim.Optimizer, model: nn.Module, new: Iterable[tuple[str, nn.Module]]) -> None:
    """Add the parameters of new modules to an optimizer.

    They get the options (learning rate, weight decay, ...) of the group that has the parameters around them: weights
    those of weights, biases those of biases and batch norms, where these have a group of their own. An optimizer of one
    group gets one more.

    Args:
        optimizer: changed in place.
        model: the network that holds the new modules.
        new: the new modules with the name of the module of the network that each is part of.
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
    """Whether options are equal; a learning rate may be a tensor, which is changed in place."""
    return some.keys() == other.keys() and all(
        value is other[key] or (not isinstance(value, torch.Tensor) and bool(value == other[key]))
        for key, value in some.items()
    )


def _groups(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """The group of each parameter, by its identity."""
    return {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}


def _like(parameter: nn.Parameter, around: list[nn.Module], groups: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The group of the nearest parameter that is a weight, or a bias, as this one is."""
    held = [other for module in around for other in module.parameters() if id(other) in groups]
    alike = (other for other in held if (other.ndim > 1) == (parameter.ndim > 1))
    return groups[id(next(alike, held[0]))]
