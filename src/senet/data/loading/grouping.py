"""Order the images of an epoch so that a batch has images of one kind."""

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["grouped"]


def grouped(order: Int[Tensor, "M"], kinds: Int[Tensor, "M"], batch: int) -> Int[Tensor, "M"]:
    """Return an order in which consecutive batches have images of one kind, such as images that are wider than high.

    A batch takes its place when its last image comes, as in the reference training of torchvision's detectors. Images
    that are left over at the end are in their order, of any kind: each image is in the order once.

    Args:
        order: (M,), the images in a random order.
        kinds: (M,), kind of each image.
        batch: images per batch.

    Returns:
        (M,).
    """
    waiting: dict[int, list[int]] = {}
    batches: list[int] = []
    for image, kind in zip(order.tolist(), kinds[order].tolist(), strict=True):
        images = waiting.setdefault(kind, [])
        images.append(image)
        if len(images) == batch:
            batches += waiting.pop(kind)
    place = {image: number for number, image in enumerate(order.tolist())}
    rest = sorted((image for images in waiting.values() for image in images), key=place.__getitem__)
    return torch.tensor(batches + rest, dtype=order.dtype)
