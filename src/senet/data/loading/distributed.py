"""Distribute the images of a batch over the processes of a distributed run."""

import torch
from torch import Tensor

__all__ = ["shard_batch"]


def shard_batch(images: int, rank: int, world_size: int) -> Tensor:
    """Return the positions in a batch of the images that one process gets. Each image goes to one process.

    Images are dealt out in turn, so that any contiguous part of a batch is distributed evenly as well (gradient
    accumulation). The second half is dealt out in reverse order: mixup mixes image i with image N - 1 - i, and both
    are then in the same process. This needs N to be a multiple of 2 * world_size; other batches are dealt out in
    order throughout.

    Args:
        images: number of images in the batch, N.
        rank: rank of the process, from 0.
        world_size: number of processes.

    Returns:
        (n,), ascending positions in the batch; n is N / world_size, rounded up or down.
    """
    positions = torch.arange(images)
    if images % (2 * world_size) == 0:
        positions = torch.minimum(positions, images - 1 - positions)
    return (positions % world_size == rank).nonzero()[:, 0]
