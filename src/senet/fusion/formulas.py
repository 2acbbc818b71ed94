"""The passes over feature maps that batch norm with SE is made of, as formulas.

A map y has the shape (N, C, *spatial), whatever its rank. What stands beside it has one value for each sample and
channel, (N, C), or is the same for all samples, (1, C); the pivot p is (1, C). Everything is computed in float32, or
in float64 for maps of float64, and only maps are rounded to the dtype of y.
"""

import torch
from torch import Tensor

__all__ = ["apply", "apply_relu", "beside", "gradient", "reduce", "reduce_relu", "statistics", "wide"]


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of everything but maps."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def beside(value: Tensor, y: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, ...), to stand beside a map."""
    return value.reshape(*value.shape, *[1] * (y.ndim - 2))


def _centred(y: Tensor, p: Tensor) -> Tensor:
    return y.to(p.dtype) - beside(p, y)


def statistics(y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Means over space of y - p and of its square: (N, C), (N, C)."""
    space = list(range(2, y.ndim))
    d = _centred(y, p)
    return d.mean(space), (d * d).mean(space)


def apply(y: Tensor, p: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(y - p) a + b: a map."""
    return (_centred(y, p) * beside(a, y) + beside(b, y)).to(y.dtype)


def apply_relu(y: Tensor, p: Tensor, a: Tensor, b: Tensor, skip: Tensor) -> Tensor:
    """relu((y - p) a + b + skip): a map; what is summed is rounded as a map first, as it would be by itself."""
    return (apply(y, p, a, b) + skip).relu()


def reduce(g: Tensor, y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over space of g (y - p) and of g: (N, C), (N, C)."""
    space = list(range(2, y.ndim))
    d, g = _centred(y, p), g.to(p.dtype)
    return (g * d).sum(space), g.sum(space)


def reduce_relu(g: Tensor, x: Tensor, y: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient before a ReLU whose output is x, a map, and `reduce` of it."""
    h = torch.where(x > 0, g, 0)
    return (h, *reduce(h, y, p))


def gradient(g: Tensor, y: Tensor, p: Tensor, a: Tensor, k: Tensor, d: Tensor) -> Tensor:
    """The map a g + k (y - p) + d."""
    x = beside(a, y) * g.to(p.dtype) + _centred(y, p) * beside(k, y) + beside(d, y)
    return x.to(y.dtype)
