"""A batch norm, an activation and SE of a network that are computed together, by the names of their modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from senet.nn.block import SqueezeExcitation
from senet.nn.fused import Excitation, MapActivation, excitation_of_layers

__all__ = [
    "FUSIONS",
    "Forwards",
    "Fusion",
    "Role",
    "excitation_of",
    "kind_of",
    "options_of",
    "read_excitation",
    "role_of",
    "settings_of",
    "submodule",
]

Role = Literal["block", "norm", "activation", "se"]

# Instance attribute of a block: its fusions.
FUSIONS = "_senet_fusions"

_SETTINGS = frozenset({bool, int, float, str, NoneType, FunctionType, BuiltinFunctionType})
# Attributes that do not change the function; hooks and compilers are checked elsewhere. fully_shard sets the last ones.
_FREE = {"training", "inplace", "_is_full_backward_hook", "_compiled_call_impl"}
_FREE |= {"_is_fsdp_managed_module", "_fsdp_use_orig_params"}
_OPTIONS = frozenset({bool, str})  # numbers may be counters, and None may become a map


class Forwards:
    """The `forward` of classes, to detect whether other code replaces one; loading a pickle reads them again.

    Args:
        kinds: the classes.
    """

    def __init__(self, *kinds: type[nn.Module]) -> None:
        self._kinds = tuple(dict.fromkeys(kinds))
        self._found = tuple(kind.forward for kind in self._kinds)

    @property
    def are_current(self) -> bool:
        """Whether the classes still have them."""
        return all(kind.forward is found for kind, found in zip(self._kinds, self._found, strict=True))

    def __deepcopy__(self, memo: Any) -> Forwards:
        """Return itself: a copy computes what the original does."""
        return self

    def __reduce__(self) -> Any:
        """Leave out functions, which may have no name to be pickled by."""
        return Forwards, self._kinds


@dataclass(frozen=True)
class Fusion:
    """What is computed together in the forward of a module, the block. It holds no modules, so copies need no care.

    Attributes:
        norm: name of the batch norm in the block.
        se: name of the SE module in the block.
        kinds: the classes of the batch norm, the SE module and, if it is a module of its own, the activation.
        activation: between the two; None without one.
        activated_by: name of the module in the block that activates; None if nothing does.
        steps: the excitation: names of modules in the SE module, and modules that stand for functions of its code; none
            for a `SqueezeExcitation`, which has a method for it.
        axes: the number of spatial axes, of length 1, of what the first step takes; None for (N, C).
        rank: the number of axes of the map.
        observers: names of further modules in the block whose hooks would observe a map that is not computed.
        idle: names of those that must do nothing: dropout in a batch norm with an activation.
        sum_relu: names of a ReLU that takes the sum of SE's output and another map, and of modules before it that do
            nothing; none if something else follows.
        attached: whether the SE is a child that `senet.insert` attached to the batch norm or the activation.
        settings: of the SE module and the activation, see `settings_of`; none of a `SqueezeExcitation`, whose method
            reads its own.
        options: of the block, see `options_of`.
        forwards: of the classes of the block and of the parts.
    """

    norm: str
    se: str
    kinds: tuple[type[nn.Module], ...]
    activation: MapActivation | None
    activated_by: str | None
    steps: tuple[str | nn.Module, ...]
    axes: int | None
    rank: int
    observers: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    sum_relu: tuple[str, ...] = ()
    attached: bool = False
    settings: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    forwards: Forwards = field(default_factory=Forwards)

    @property
    def passes_activation(self) -> bool:
        """Whether the map passes through an activation on its way from the batch norm to SE."""
        return self.activated_by is not None and not self.activated_by.startswith(f"{self.norm}.")

    def is_inside(self, name: str | None) -> bool:
        """Return whether the SE is a part of the module with a name."""
        return name is not None and self.se.startswith(f"{name}.")


def role_of(module: nn.Module | None) -> Role | None:
    """Return the role of a module in its class, see `senet.fusion.fused_class`; None for one that is not fused."""
    return getattr(type(module), "_senet_role", None)


def kind_of(module: nn.Module) -> type[nn.Module]:
    """Return the class of a module without its role and without SE that is attached, also where it is parametrized."""
    cls = next((kind.__bases__[0] for kind in type(module).__mro__ if "_senet_role" in vars(kind)), type(module))
    return cls.__bases__[0] if "_senet_spec" in vars(cls) else cls


def settings_of(module: nn.Module | None) -> Any:
    """Return the classes of a module and of those in it, and their numbers, strings and functions.

    While these are the same, a module computes what it did when `fuse` ran, as far as attributes show.
    """
    if module is None:
        return None
    attributes = {k: v for k, v in module.__dict__.items() if type(v) in _SETTINGS and k not in _FREE}
    return attributes, [(name, type(child), settings_of(child)) for name, child in module._modules.items()]


def options_of(block: nn.Module) -> tuple[tuple[str, Any], ...]:
    """Return the attributes of a block on which the path of its code may depend."""
    own = block.__dict__.items()
    return tuple((k, v) for k, v in own if type(v) in _OPTIONS and k[0] != "_" and k not in _FREE)


def submodule(module: nn.Module, name: str) -> nn.Module | None:
    """Return a module inside another one; None if it was removed."""
    found: nn.Module | None = module
    for part in name.split(".") if name else ():
        found = None if found is None else found._modules.get(part)
    return found


def excitation_of(fusion: Fusion, se: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the function from the squeeze (N, C) to the gates (N, C), which calls the modules of an SE module."""
    if isinstance(se, SqueezeExcitation):
        return se.excite
    steps = _modules(fusion, se)

    def excite(z: Tensor) -> Tensor:
        x = z if fusion.axes is None else z.reshape(*z.shape, *[1] * fusion.axes)
        gates: Tensor = reduce(lambda value, step: step(value), steps, x)
        return gates.flatten(1)

    return excite


def read_excitation(fusion: Fusion, se: nn.Module, y: Tensor) -> Excitation | None:
    """Return the numbers of the excitation of another library's SE module; None where its modules have to be called.

    Args:
        fusion: of the SE module.
        se: the SE module.
        y: the map; where its dtype is not that of the weights, the modules raise their own error.
    """
    if isinstance(se, SqueezeExcitation) or len(fusion.steps) != 4:
        return None
    block = excitation_of_layers(*_modules(fusion, se))
    if block is None or torch.is_autocast_enabled(y.device.type):
        return block
    return block if {x.dtype for x in block[:4] if x is not None} == {y.dtype} else None


def _modules(fusion: Fusion, se: nn.Module) -> list[nn.Module]:
    return [se.get_submodule(step) if isinstance(step, str) else step for step in fusion.steps]
