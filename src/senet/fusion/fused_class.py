"""The classes of modules that are computed together: subclasses of their classes, with another `forward`.

A module has one of four roles. The block is the innermost module whose forward calls the batch norm and SE: only while
it runs do the others compute anything but their own function. So each of them, taken from the network, copied, or
called by other code (a graph of torch.fx, a feature extractor), is what it was before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import torch
from torch import nn

from senet.fusion import fused_call
from senet.fusion.fusion import Role, role_of
from senet.nn.recalibrated_class import resubclass

__all__ = ["fused_class", "is_fused", "unfused_class"]

_classes: dict[tuple[type, Role, Any], type[nn.Module]] = {}
_RUN: dict[Role, Callable[..., Any]] = {
    "block": fused_call.run_block,
    "norm": fused_call.run_norm,
    "activation": fused_call.run_activation,
    "se": fused_call.run_se,
}


def is_fused(model: nn.Module) -> bool:
    """Return whether `senet.fuse` changed a network."""
    return any(role_of(module) is not None for module in model.modules())


def unfused_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that a module had before."""
    cls = type(module)
    if role_of(module) is None:
        return cls
    if "_senet_role" in vars(cls):
        return cls.__bases__[0]
    # Another tool subclassed it again, as parametrizations and fully_shard do.
    plain = resubclass(cls, {base: base.__bases__[0] for base in cls.__bases__ if "_senet_role" in vars(base)})
    plain.__name__ = cls.__name__.replace("Fused", "", 1)
    return plain


def fused_class(base: type[nn.Module], role: Role) -> type[nn.Module]:
    """Return the subclass of a class for a role: the same one in every call, until the class has another `forward`."""
    key = base, role, base.forward
    if key not in _classes:
        _classes[key] = _make_class(base, role)
    return _classes[key]


def _make_class(base: Any, role: Role) -> type[nn.Module]:

    def reduce(self: nn.Module, protocol: Any) -> Any:
        made = base.__reduce_ex__(self, protocol)
        if type(self) is not cls or isinstance(made, str):
            return made
        make, args, *state = made
        return (_restore, (role, make, tuple(base if arg is cls else arg for arg in args)), *state)

    def refuse_script(self: nn.Module) -> NoReturn:
        raise TypeError(
            f"torch.jit.script cannot compile a fused {base.__name__}: call senet.unfuse(model) first, or use "
            f"torch.jit.trace, torch.export.export or torch.compile"
        )

    members = {
        # The base's package: torch.fx takes modules of torch.nn for leaves.
        "__module__": base.__module__,
        "__doc__": f"{base.__name__} in a network that senet.fuse changed.",
        "__reduce_ex__": reduce,
        "__prepare_scriptable__": refuse_script,
        "_senet_role": role,
        "forward": _forward(base, role),
    }
    cls: type[nn.Module] = type(f"Fused{base.__name__}", (base,), members)
    return cls


def _restore(role: Role, make: Callable[..., nn.Module], args: tuple[Any, ...]) -> nn.Module:
    """Rebuild a module from a copy or a pickle, first as its base class, which may define its own copying."""
    module = make(*args)
    module.__class__ = fused_class(type(module), role)
    return module


def _forward(base: Any, role: Role) -> Callable[..., Any]:
    """Return the `forward` of the subclass of a class for a role."""
    run = _RUN[role]

    @wraps(base.forward)  # torch.fx and torch.export read the names of arguments
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        original = base.forward  # which other code may have replaced
        if torch.compiler.is_compiling():  # a compiler fuses the operations of the original itself
            return original(self, *args, **kwargs)
        return run(self, original, args, kwargs)

    return forward
