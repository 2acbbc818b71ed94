"""Parameter groups of an optimizer: SE with a learning rate of its own, norms and biases without weight decay."""

import math
from collections.abc import Collection
from fnmatch import fnmatch
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from senet.insertion.network_checks import check_module, refuse_lazy
from senet.nn.inserted_se import se_parameters
from senet.utils.option_types import check_number, check_switch

__all__ = ["param_groups"]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def param_groups(
    model: nn.Module,
    *,
    lr: float | None = None,
    se_lr: float | None = None,
    weight_decay: float | None = None,
    decay_all: bool = False,
) -> list[dict[str, Any]]:
    """Return the parameter groups of a network for an optimizer, SE apart from the rest.

    A group has weights or parameters without weight decay, of SE or of the rest of the network; empty groups are left
    out. As in timm's `param_groups_weight_decay`, weight decay is 0 for biases, for parameters with at most one axis,
    and for those that the network's `no_weight_decay()` names; here also for all parameters of norms.

    Args:
        model: the network, wrapped or not. Parameters that require no gradient are left out; a parameter with several
            names is in one group.
        lr: learning rate. Default: the optimizer's.
        se_lr: learning rate of the SE that `insert` added. Default: `lr`.
        weight_decay: of the groups with weight decay. Default: the optimizer's.
        decay_all: apply weight decay to norms and biases as well.

    Returns:
        At most four groups, in the order of the network's first parameter of each, with the keys `params`, `lr` and
        `weight_decay` as far as they are given.

    Raises:
        TypeError: `model` is not a network, a learning rate or weight decay not a number, or `decay_all` not True or
            False.
        ValueError: a negative or infinite learning rate or weight decay; `se_lr` for a network without SE that requires
            gradients; or a parameter that a lazy module has not created.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> groups = senet.param_groups(model, lr=0.1, se_lr=0.5, weight_decay=1e-4)
        >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
        [(20, 0.1, 0.0001), (39, 0.1, 0.0), (18, 0.5, 0.0001), (18, 0.5, 0.0)]
        >>> optimizer = torch.optim.SGD(groups, momentum=0.9)
    """
    check_module(model)
    refuse_lazy(model)
    check_switch("decay_all", decay_all)
    for option, value in {"lr": lr, "se_lr": se_lr, "weight_decay": weight_decay}.items():
        if value is None:
            continue
        check_number(option, value)
        if not 0 <= value < math.inf:
            raise ValueError(f"invalid {option}={value}: expected a finite number of 0 or more")
    se = {id(parameter) for parameter in se_parameters(model)}
    exempt = set() if decay_all else _without_decay(model)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decayed = decay_all or not (parameter.ndim <= 1 or name.endswith(".bias") or id(parameter) in exempt)
            groups.setdefault((decayed, id(parameter) in se), []).append(parameter)
    if se_lr is not None and not any(is_se for _, is_se in groups):
        raise ValueError(
            f"se_lr={se_lr} has no effect: the network has no SE that requires gradients; call senet.insert first, or "
            f"omit se_lr"
        )
    return [
        {
            "params": parameters,
            **_given("lr", se_lr if is_se and se_lr is not None else lr),
            **_given("weight_decay", weight_decay if decayed else 0.0),
        }
        for (decayed, is_se), parameters in groups.items()
    ]


def _given(key: str, value: float | None) -> dict[str, float]:
    return {} if value is None else {key: value}


def _without_decay(model: nn.Module) -> set[int]:
    """Return the ids of parameters of norms, and of those that networks name, as those of timm do."""
    found = set()
    for module in model.modules():
        if isinstance(module, _NORMS):
            found |= {id(parameter) for parameter in module.parameters(recurse=False)}
    named = getattr(model, "no_weight_decay", None)
    names: Collection[str] = named() if callable(named) else ()
    matching = (p for name, p in model.named_parameters() if any(fnmatch(name, pattern) for pattern in names))
    return found | {id(parameter) for parameter in matching}
