"""How maps lie in memory: a pass reads and writes all of its maps in one order."""

from torch import Tensor

from senet.nn.fused.memory_format import CHANNELS_LAST, is_channels_last
from senet.nn.fused.passes import is_followed

__all__ = ["convert", "dense", "like"]


def dense(y: Tensor) -> Tensor:
    """A map without gaps: contiguous or channels last, a copy only where it is neither."""
    if is_channels_last(y):
        return y
    last = y.ndim in CHANNELS_LAST and y.stride(1) == 1 and y.shape[1] > 1
    return y.contiguous(memory_format=CHANNELS_LAST[y.ndim]) if last else y.contiguous()


def like(x: Tensor, y: Tensor) -> Tensor:
    """`convert`, except where formulas are to run, which take any memory format: by whoever follows each operation."""
    return x if is_followed(x) else convert(x, y)


def convert(x: Tensor, y: Tensor) -> Tensor:
    """A map in the memory format of a dense one, a copy only where it is not; strides of axes of length 1 do not count.

    Args:
        x, y: (N, C, *spatial).
    """
    if x.stride() == y.stride():
        return x
    if y.is_contiguous():
        return x.contiguous()
    return x.contiguous(memory_format=CHANNELS_LAST[y.ndim])
