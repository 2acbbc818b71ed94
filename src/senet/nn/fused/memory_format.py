"""Memory formats of maps: a pass reads and writes all of its maps in one order."""

import torch
from torch import Tensor

__all__ = ["CHANNELS_LAST", "convert", "dense", "is_channels_last"]

# By the number of a map's axes.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def is_channels_last(x: Tensor) -> bool:
    """Return whether a map with two or three spatial axes is dense and channels-last."""
    return x.ndim in CHANNELS_LAST and x.is_contiguous(memory_format=CHANNELS_LAST[x.ndim])


def dense(y: Tensor) -> Tensor:
    """Return a map without gaps, contiguous or channels-last; copies only where it is neither."""
    if is_channels_last(y):
        return y
    last = y.ndim in CHANNELS_LAST and y.stride(1) == 1 and y.shape[1] > 1
    return y.contiguous(memory_format=CHANNELS_LAST[y.ndim]) if last else y.contiguous()


def convert(x: Tensor, y: Tensor) -> Tensor:
    """Return x in the memory format of a dense map y; copies only where it differs.

    Strides of axes of length 1 do not count.

    Args:
        x, y: (N, C, *spatial).
    """
    if x.stride() == y.stride():
        return x
    if y.is_contiguous():
        return x.contiguous()
    return x.contiguous(memory_format=CHANNELS_LAST[y.ndim])
