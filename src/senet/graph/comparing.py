"""Compare a module with its replacement in float64, on random maps."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["same_function", "small_shapes"]

# The largest relative error in float64. Rounding stays below it.
_TOLERANCE = 1e-10
# How many shapes are compared.
_SHAPES = 2


@torch.no_grad()
def same_function(module: nn.Module, replacement: nn.Module, shapes: Iterable[tuple[int, ...]]) -> bool:
    """Return whether two modules compute the same function of one tensor.

    Args:
        module: the original.
        replacement: the other module.
        shapes: of the tensors; the first two that the original takes are compared.

    Raises:
        Exception: that of the original's code, if it takes none of the shapes.
    """
    one, other = (copy.deepcopy(part).cpu().double().eval() for part in (module, replacement))
    generator = torch.Generator().manual_seed(0)
    compared, failure = 0, None
    for shape in shapes:
        # The second maps are large: activations that saturate differ there.
        x = (torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu") + 0.3) * (1, 200)[compared]
        try:
            expected = one(x.clone())
        except Exception as error:  # whatever its own code raises where it takes maps of one size
            failure = error
            continue
        if not _close(other(x.clone()), expected):
            return False
        compared += 1
        if compared == _SHAPES:
            return True
    if not compared and failure is not None:
        raise failure
    return True


def _close(actual: Tensor, expected: Tensor) -> bool:
    if not isinstance(expected, Tensor) or actual.shape != expected.shape or not expected.isfinite().all():
        return False
    scale = float(expected.abs().max()) or 1.0
    return float((actual - expected).abs().max()) <= _TOLERANCE * scale


def small_shapes(shape: tuple[int, ...], axis: int = 1, longest: int = 12) -> list[tuple[int, ...]]:
    """Return shapes of two maps for a comparison: that of a run with short axes, and the whole one, each in two sizes.

    Args:
        shape: of the map in the run.
        axis: of its channels, 1 or -1.
        longest: the longest spatial axis of the first two.
    """
    spatial = range(1, len(shape) - 1) if axis == -1 else range(2, len(shape))

    def resized(more: int, most: int | None) -> tuple[int, ...]:
        sizes = {a: (shape[a] if most is None else min(shape[a], most)) + more for a in spatial}
        return tuple(sizes.get(a, length if a else 2) for a, length in enumerate(shape))

    return [resized(more, most) for most in (longest, None) for more in (0, 3)]
