"""Recognize elementwise functions by their values: a gate of several operations becomes one module of torch.nn."""

import copy

import torch
from torch import Tensor, nn

from senet.graph.function_modules import FunctionModule

__all__ = ["plain_functions"]

_CANDIDATES = (
    *(nn.Sigmoid(), nn.Hardsigmoid(), nn.ReLU(), nn.SiLU(), nn.Hardswish(), nn.ReLU6(), nn.Tanh(), nn.GELU()),
    *(nn.GELU(approximate="tanh"), nn.Mish(), nn.ELU(), nn.LeakyReLU(), nn.Identity()),
)
# Points on which functions are compared, on both sides of every kink.
_POINTS = torch.linspace(-9, 9, 2401, dtype=torch.float64, device="cpu")
_TOLERANCE = 1e-13


@torch.no_grad()
def plain_functions(module: nn.Module) -> list[nn.Module]:
    """Return the modules of torch.nn that may compute what an elementwise module computes.

    Args:
        module: of any library, or a `FunctionModule`, which stands for functions that a forward calls.

    Returns:
        One new module; or all candidates for functions whose values are unknown.
    """
    if type(module).__module__.startswith("torch.nn."):
        found = copy.deepcopy(module)
        if getattr(found, "inplace", False):
            found.inplace = False  # type: ignore[assignment]
        return [found]
    expected = _values(module)
    for candidate in _CANDIDATES if expected is not None else ():
        if torch.allclose(candidate(_POINTS), expected, rtol=0, atol=_TOLERANCE):  # type: ignore[arg-type]
            return [copy.deepcopy(candidate)]
    return copy.deepcopy(list(_CANDIDATES)) if isinstance(module, FunctionModule) else [copy.deepcopy(module)]


def _values(module: nn.Module) -> Tensor | None:
    """Return the values of a function at `_POINTS`; None if it is not a function of a vector."""
    try:
        values = module(_POINTS.clone())
    except Exception:  # whatever its own code raises where it takes other shapes
        return None
    fits = isinstance(values, Tensor) and values.shape == _POINTS.shape and values.dtype == _POINTS.dtype
    return values if fits else None
