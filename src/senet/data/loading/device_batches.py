"""Batches on a GPU: from 8-bit pixels in GPU memory, or copied during the previous step.

In short::

    once:        pixels (M, H, W, C) and labels (M,) -> the device
    each epoch:  order, offsets and flips, drawn on the CPU -> crops (M, 4) on the device
    each step:   crops[start:end] -> gather, pad, crop, mirror -> pixels (N, C, H, W) and labels (N,)

No step waits for the device: nothing is read on the host, and nothing is copied synchronously. Random numbers are drawn
on the CPU; the pixels are bitwise identical to those of host batches.

`DeviceData.batch` can be captured in a CUDA graph. Its only input is a tensor of fixed shape::

    scale = loader.preprocessing.scale(device)               # keep it and the loader as long as the graph
    crops = loader.on_device.empty_crops(batch)              # static
    with torch.cuda.graph(graph):
        pixels, labels = loader.on_device.batch(crops)
        images = loader.preprocessing.normalize(pixels, scale)
        ...
    for now in loader.crops(epoch, start):
        crops.copy_(now)
        graph.replay()
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int, Integer, UInt8
from torch import Tensor

from senet.data.augmentation import Augmentation, padding_colour
from senet.data.preprocessing import Preprocessing

__all__ = ["DEVICE_SHARE", "DeviceData", "batch_device", "gather_batch", "keep_on_device", "prefetched"]

# Fraction of a GPU's free memory that one data set may take; activations need the rest.
DEVICE_SHARE = 0.25
# Bytes per copy when a data set is moved to its device.
_CHUNK = 2**26

_Batch = tuple[Tensor, Tensor]


def batch_device(device: torch.device) -> torch.device | None:
    """Return the device on which to make batches for a network on `device`: a CUDA device, or None for the host."""
    return device if device.type == "cuda" else None


@dataclass(frozen=True)
class DeviceData:
    """The pixels and labels of a data set on a device.

    Attributes:
        pixels: (M, H, W, C), 0 to 255; batches are in channels-last format.
        labels: (M, ...), class indices, or a row of labels.
        padding: pixels on each side before the crop.
        fill: (C,), padding colour, 0 to 255.
        mirrors: whether images may be mirrored.
    """

    pixels: UInt8[Tensor, "M H W C"]
    labels: Integer[Tensor, "M ..."]
    padding: int
    fill: UInt8[Tensor, "C"]
    mirrors: bool

    @property
    def nbytes(self) -> int:
        """Number of bytes on the device."""
        return self.pixels.nbytes + self.labels.nbytes

    def upload(
        self, indices: Int[Tensor, "L"], offsets: Int[Tensor, "L 2"], flips: Bool[Tensor, "L"]
    ) -> Int[Tensor, "L 4"]:
        """Copy the random numbers of an epoch to the device, without waiting for it.

        Args:
            indices: (L,), images in the order in which they are taken.
            offsets: (L, 2), row and column of each crop in the padded image, 0 to 2 * padding.
            flips: (L,), whether each is mirrored.

        Returns:
            (L, 4), a row for each image: index, row, column, 1 where it is mirrored.
        """
        crops = torch.cat((indices[:, None], offsets, flips[:, None].long()), dim=1)
        return _copied(crops, self.pixels.device)

    def empty_crops(self, images: int) -> Int[Tensor, "N 4"]:
        """Return a static input (N, 4) for `batch` in a CUDA graph; all crops are of the first image."""
        return torch.zeros(images, 4, dtype=torch.long, device=self.pixels.device)

    def batch(self, crops: Int[Tensor, "N 4"]) -> tuple[UInt8[Tensor, "N C H W"], Integer[Tensor, "N ..."]]:
        """Make a batch. The function can be captured in a CUDA graph.

        Args:
            crops: (N, 4), rows of the result of `upload`.

        Returns:
            The pixels (N, C, H, W), 0 to 255, in the channels-last format; the labels (N,).
        """
        indices, offsets = crops[:, 0], crops[:, 1:3]
        flips = crops[:, 3].bool() if self.mirrors else None
        return gather_batch(self.pixels, self.labels, indices, offsets, flips, self.padding, self.fill)


def gather_batch(
    pixels: UInt8[Tensor, "M H W C"],
    labels: Integer[Tensor, "M ..."],
    indices: Int[Tensor, "N"],
    offsets: Int[Tensor, "N 2"],
    flips: Bool[Tensor, "N"] | None,
    padding: int,
    fill: UInt8[Tensor, "C"],
) -> tuple[UInt8[Tensor, "N C H W"], Integer[Tensor, "N ..."]]:
    """Select images by index; pad, crop and mirror each: `crop_and_flip` as one gather, for a GPU.

    Args:
        pixels: (M, H, W, C), of all images.
        labels: (M,), of all images.
        indices: (N,), the images of the batch.
        offsets: (N, 2), row and column of each crop in the padded image, 0 to 2 * padding.
        flips: (N,), whether each is mirrored; None if none is.
        padding: pixels on each side.
        fill: (C,), colour of the padding.

    Returns:
        The pixels (N, C, H, W) in the channels-last format, and the labels (N,).
    """
    if not padding and flips is None:
        return pixels.index_select(0, indices).permute(0, 3, 1, 2), labels.index_select(0, indices)
    height, width = pixels.shape[1:3]
    rows = (torch.arange(height, device=pixels.device) - padding) + offsets[:, :1]
    columns = torch.arange(width, device=pixels.device)
    if flips is not None:
        columns = torch.where(flips[:, None], columns.flip(0), columns)
    columns = (columns - padding) + offsets[:, 1:]
    within = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    batch = pixels[indices[:, None, None], within[0][:, :, None], within[1][:, None, :]]
    if padding:
        inside = (rows == within[0])[:, :, None] & (columns == within[1])[:, None, :]
        batch = torch.where(inside[..., None], batch, fill)
    return batch.permute(0, 3, 1, 2), labels.index_select(0, indices)


def keep_on_device(
    pixels: UInt8[Tensor, "M C H W"],
    labels: Integer[Tensor, "M ..."],
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
    device: torch.device,
) -> DeviceData | None:
    """Copy decoded images to a device, if they fit and their augmentation can be computed there.

    Args:
        pixels: (M, C, H, W) on the host.
        labels: (M,).
        preprocessing: its mean is the padding colour.
        augmentation: None for evaluation.
        device: any device; on a GPU the images may take `DEVICE_SHARE` of the free memory.

    Returns:
        None if they do not fit, or if RandAugment needs them on the host.
    """
    if augmentation is not None and augmentation.randaugment:
        return None
    n, channels, height, width = pixels.shape
    # With the labels, and the crops of two epochs, 4 numbers each: the current and the next epoch.
    needed = pixels.nbytes + labels.nbytes + 2 * 32 * n
    if device.type == "cuda" and needed > DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    try:
        there = torch.empty(n, height, width, channels, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError:  # another process took the free memory
        return None
    step = max(1, _CHUNK // max(1, channels * height * width))
    for first in range(0, n, step):
        some = slice(first, first + step)
        there[some].copy_(pixels[some].permute(0, 2, 3, 1))
    fill = padding_colour(preprocessing.fill).to(device)
    padding = augmentation.padding if augmentation is not None and augmentation.crop == "pad" else 0
    mirrors = augmentation is not None and augmentation.flip
    return DeviceData(there, labels.to(device), padding, fill, mirrors)


def prefetched(batches: Iterable[_Batch], device: torch.device) -> Iterator[_Batch]:
    """Copy each batch to a device during the previous step.

    On a GPU the copies use pinned memory and a separate stream. A batch is read and its copy started before the
    previous batch is yielded, so that neither the host nor the device waits for a copy. An error in reading a batch
    is raised after the preceding batches.

    Args:
        batches: pixels (N, C, H, W) and labels (N,) on the host.
        device: target device.
    """
    copies = _SideStream(device) if device.type == "cuda" else _Direct(device)
    source = iter(batches)
    ahead: Any = None
    while True:
        following, failure = None, None
        try:
            following = copies.send(next(source))
        except StopIteration:
            pass
        except Exception as error:  # raised below, after the batch that is ready
            failure = error
        if ahead is not None:
            yield copies.receive(ahead)
        if failure is not None:
            raise failure
        if following is None:
            return
        ahead = following


class _Direct:
    """Copy to a device without streams."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def send(self, batch: _Batch) -> _Batch:
        return batch[0].to(self.device), batch[1].to(self.device)

    def receive(self, sent: _Batch) -> _Batch:
        return sent


class _SideStream:
    """Copy to a GPU on a separate stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(self, batch: _Batch) -> tuple[_Batch, Any]:
        with torch.cuda.stream(self.stream):
            return (_copied(batch[0], self.device), _copied(batch[1], self.device)), self.stream.record_event()

    def receive(self, sent: tuple[_Batch, Any]) -> _Batch:
        batch, copied = sent
        current = torch.cuda.current_stream(self.device)
        current.wait_event(copied)
        for tensor in batch:
            # Allocated on the other stream, whose next copy could otherwise reuse this memory while it is being read.
            tensor.record_stream(current)
        return batch


def _copied(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to a device; to a GPU through pinned memory, without waiting.

    PyTorch keeps the pinned copy until the device has read it.
    """
    if device.type == "cuda" and tensor.numel():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
