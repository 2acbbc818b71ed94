"""Make what senet and PyTorch attach to modules explicit: inserted SE becomes a child that is called as any other."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from senet.deployment.rewriting.modules import WithSE
from senet.deployment.rewriting.replacing import replace_module
from senet.insertion.fusing_methods import unwrap_fusing_methods
from senet.nn.batch_norm import SEBatchNorm
from senet.nn.fused.block_inspection import has_hooks
from senet.nn.recalibrated_class import base_class, spec_of
from senet.nn.recalibration import Recalibrate, detach

__all__ = ["Explicit", "make_explicit", "remove_empty"]

# Attributes of a module that hold its hooks, and the options of these.
_HOOKS = tuple(name for name in nn.Module().__dict__ if "hooks" in name and "state_dict" not in name)


@dataclass
class Explicit:
    """A network without attached SE and parametrizations.

    Attributes:
        model: the network.
        names: the modules, by their names in the original network.
        holders: modules that were added around a module and its SE.
        computed: the modules whose parametrizations were removed.
    """

    model: nn.Module
    names: dict[nn.Module, str]
    holders: list[nn.Module]
    computed: list[nn.Module]


def make_explicit(model: nn.Module) -> Explicit:
    """Replace inserted SE by plain modules, and parametrizations by their values, in place.

    An `SEBatchNorm` becomes a sequence of a batch norm and SE, and a module with SE attached becomes a `WithSE`.

    Args:
        model: the network, in evaluation mode.
    """
    found = Explicit(model, {module: name for name, module in model.named_modules()}, [], [])
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            _compute_parametrized(module)
            found.computed.append(module)
    for module in list(model.modules()):
        name = found.names.get(module, "")
        if isinstance(module, SEBatchNorm):
            bn = module.to_batch_norm()
            found.names[bn] = name
            _hold(found, module, nn.Sequential(OrderedDict(bn=bn, se=module.se)))
        elif isinstance(module, Recalibrate) and module.how == "skip":
            _hold(found, module, nn.Sequential(module.se))
        elif spec_of(module) is not None:
            _hold(found, module, _with_se(module))
    unwrap_fusing_methods(found.model)
    return found


@torch.no_grad()
def _compute_parametrized(module: Any) -> None:
    """Replace parametrizations by the values of their tensors.

    `remove_parametrizations` would delete the properties of the class, which the original shares with its copy.
    """
    lists = dict(module.parametrizations.items())
    values = {name: getattr(module, name).detach().clone() for name in lists}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module._modules["parametrizations"]
    for name, value in values.items():
        if lists[name]._parameters:
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))
        else:
            module.register_buffer(name, value)


def remove_empty(found: Explicit) -> None:
    """Replace the modules that `make_explicit` added by the only module that they still call, if there is one."""
    for holder in found.holders:
        if has_hooks(holder):
            continue
        parts: list[nn.Module] = [*holder] if isinstance(holder, nn.Sequential) else []
        if isinstance(holder, WithSE):
            parts = [*holder.before, holder.module, *holder.after]
        kept = [part for part in parts if type(part) is not nn.Identity]
        if len(kept) <= 1:
            found.model = replace_module(found.model, holder, kept[0] if kept else nn.Identity())


def _hold(found: Explicit, old: nn.Module, holder: nn.Module) -> None:
    for name in _HOOKS:  # they see the map with SE
        holder.__dict__[name], old.__dict__[name] = old.__dict__[name], holder.__dict__[name]
    found.holders.append(holder)
    found.model = replace_module(found.model, old, holder.train(old.training))
    if isinstance(holder, WithSE):
        holder.module = old


def _with_se(module: nn.Module) -> nn.Module:
    """Return a module and its SE as children of a new module; the class of the first is its own again."""
    spec = spec_of(module)
    assert spec is not None
    before, after = ([detach(module, child).se for child in names] for names in (spec.inputs, spec.outputs))
    assert type(module) is base_class(module)
    return WithSE(module, before, after)  # type: ignore[arg-type]
