"""Which images of a batch are whose, where several processes train together."""

import torch
from torch import Tensor

__all__ = ["share"]


def share(images: int, part: tuple[int, int]) -> Tensor:
    """Which images of a batch are a process's: each image is in the share of one process, in the batch's order.

    The images go round: in any stretch of a batch each process has as many, so that parts of its share are shares of
    the batch's parts. From the middle on they go round backwards, so that an image and that which mixup mixes it with,
    as far from the other end, are in one share; not where the batch is no multiple of twice the number of processes.

    Args:
        images: of the batch, N.
        part: (rank, number) of the processes.

    Returns:
        (n,), places in the batch; n is N / number, rounded up or down.
    """
    rank, world = part
    places = torch.arange(images)
    if images % (2 * world) == 0:
        places = torch.minimum(places, images - 1 - places)
    return (places % world == rank).nonzero()[:, 0]
