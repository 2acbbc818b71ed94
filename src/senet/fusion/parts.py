"""Read the parts of a chain batch norm, activation, SE: what each computes, or why it is not fused."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from senet.fusion.fusion import Fusion, excitation_of
from senet.graph.chains import Unusable
from senet.graph.elementwise import plain_functions
from senet.graph.function_modules import FunctionModule
from senet.graph.se_modules import SEUnit
from senet.nn.batch_norm import BATCH_NORMS
from senet.nn.block import SqueezeExcitation
from senet.nn.fused import MapActivation
from senet.nn.recalibration import Recalibrate, base_class
from senet.utils.errors import first_line

__all__ = ["activation_of", "check_excitation", "inner_modules", "is_elementwise", "is_norm", "read_steps"]

_ACTIVATIONS: dict[type[nn.Module], MapActivation] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.Hardswish: "hard_swish",
}
# Batch norms that activate: the names of the children that do so, and that must do nothing.
_WITH_ACTIVATION = {"timm.layers.norm_act.BatchNormAct2d": ("act", "drop")}
# The largest relative error in float64 of an excitation that is called by its parts.
_TOLERANCE = 1e-12


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a batch norm of some kind."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def is_elementwise(module: nn.Module) -> bool:
    """Return whether a module may be an activation: it has no weights or filters, and no children but attached SE."""
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    if is_norm(module) or any(tensor.ndim > 1 for tensor in tensors):
        return False
    return all(isinstance(child, Recalibrate) for child in module.children())


def inner_modules(norm: Any) -> tuple[str | None, list[str]]:
    """Return the name of the child of a batch norm that activates, None if none does; and of those that do nothing.

    Raises:
        Unusable: it is not known to be a batch norm, possibly with an activation, and nothing else.
    """
    kind = base_class(norm)
    _check_forward(kind)
    if kind in BATCH_NORMS.values():
        return None, []
    names = _WITH_ACTIVATION.get(f"{kind.__module__}.{kind.__qualname__}")
    if names is None:
        raise Unusable(f"it follows a {kind.__name__}, which may do more than a batch norm")
    activation, *idle = names
    if any(type(getattr(norm, name)) is not nn.Identity for name in idle):
        raise Unusable(f"its {kind.__name__} has dropout")
    return (None, [activation, *idle]) if type(getattr(norm, activation)) is nn.Identity else (activation, idle)


def activation_of(module: nn.Module) -> MapActivation:
    """Return what an activation computes.

    Raises:
        Unusable: none of the functions that are fused.
    """
    kind = base_class(module)
    known = _ACTIVATIONS.get(kind)
    if known is not None:
        _check_forward(kind)
    if (
        known is None
        and kind is type(module)
        and not kind.__module__.startswith("torch.nn.")
        and next(module.parameters(), None) is None
    ):
        known = _ACTIVATIONS.get(type(plain_functions(module)[0]))
    if known is None:
        raise Unusable(f"it follows a {kind.__name__}, which is not fused")
    return known


def _check_forward(kind: type[nn.Module]) -> None:
    """Check that a class has the `forward` of its definition.

    Raises:
        Unusable: other code replaced it.
    """
    owner: Any = next(cls for cls in kind.__mro__ if "forward" in vars(cls))
    found = owner.forward
    defined = (found.__module__, found.__qualname__) == (owner.__module__, f"{owner.__qualname__}.forward")
    if not defined or hasattr(found, "__wrapped__"):
        raise Unusable(f"the forward of the class {kind.__name__} was replaced")


def read_steps(unit: SEUnit) -> tuple[tuple[str | nn.Module, ...], int | None]:
    """Return the excitation of an SE module as `Fusion.steps` and `Fusion.axes`.

    Raises:
        Unusable: SE of another form, or with other parts.
    """
    kind = type(unit.module).__name__
    if unit.form == "gate":
        raise Unusable(f"{kind} returns the gate, and code around it multiplies")
    if unit.form == "inline":
        raise Unusable("it is code in the forward of a larger module")
    if unit.axis != 1:
        raise Unusable("its map is channels-last, (N, *spatial, C)")
    if unit.squeeze != "avg":
        raise Unusable(f'its squeeze is "{unit.squeeze}"')
    if isinstance(unit.module, SqueezeExcitation):
        return (), None
    names = {module: name for name, module in unit.module.named_modules()}
    steps: list[str | nn.Module] = []
    for part in (unit.reduce, unit.norm, unit.activation, unit.expand, unit.gate):
        if isinstance(part, FunctionModule):
            found = plain_functions(part)
            if len(found) != 1:
                raise Unusable(f"{kind} has a function that is not known")
            steps.append(found[0])
        elif part is not None:
            if part not in names:
                raise Unusable(f"{kind} has parts outside of it")
            steps.append(names[part])
    first = unit.expand if unit.reduce is None else unit.reduce
    return tuple(steps), len(first.kernel_size) if isinstance(first, nn.modules.conv._ConvNd) else None


@torch.no_grad()
def check_excitation(unit: SEUnit, fusion: Fusion) -> None:
    """Check that SE is the product of a map and what its parts make of the mean, for maps of any size, in training too.

    Raises:
        Unusable: it is not.
    """
    se, generator = unit.module, torch.Generator().manual_seed(0)
    for training in (False, True):
        for length in (3, 4):
            shape = (2, unit.channels, *(length + axis for axis in range(fusion.rank - 2)))
            u = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu") + 0.3
            one, other = (copy.deepcopy(se).cpu().double().train(training) for _ in range(2))
            # Its code may create tensors, on the default device.
            with torch.random.fork_rng([]), torch.device("cpu"):
                try:
                    expected = one(u.clone())
                    gates = excitation_of(fusion, other)(u.flatten(2).mean(2))
                except Exception as error:  # whatever its own code raises where it takes maps of one size
                    raise Unusable(f"{type(se).__name__} does not run on small maps: {first_line(error)}") from error
            if not _close(u * gates.view(*gates.shape, *[1] * (u.ndim - 2)), expected):
                raise Unusable(f"{type(se).__name__} does more than scale a map by gates")


def _close(actual: Tensor, expected: object) -> bool:
    if not isinstance(expected, Tensor) or actual.shape != expected.shape:
        return False
    return float((actual - expected).abs().max()) <= _TOLERANCE * float(expected.abs().max())
