"""How a map lies in memory."""

import torch
from torch import Tensor

__all__ = ["CHANNELS_LAST", "is_channels_last"]

# By the number of a map's axes.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def is_channels_last(x: Tensor) -> bool:
    """Whether a map of two or three spatial axes lies in memory with its channels last, without gaps."""
    return x.ndim in CHANNELS_LAST and x.is_contiguous(memory_format=CHANNELS_LAST[x.ndim])
