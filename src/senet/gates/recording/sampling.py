"""Sample images at random, as a function of a seed and their indices alone, and make thumbnails of them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from senet.gates.recording.batches import Batch
from senet.gates.recording.record import BlockGates, Gates, Sample
from senet.gates.recording.statistics import Counts

__all__ = ["Reservoir", "make_thumbnails", "merged_sample", "sampling_keys"]

_WORD = (1 << 64) - 1


def sampling_keys(indices: Counts, seed: int) -> NDArray[np.uint64]:
    """Return (N,), a distinct pseudorandom key for each index. The sample holds the images with the smallest keys.

    This is two rounds of the finaliser of SplitMix64 (Steele, Lea and Flood 2014), which is a permutation of 64 bits.
    """
    offset = _mixed(np.array([seed & _WORD], np.uint64))
    return _mixed(_mixed(indices.astype(np.uint64)) ^ offset)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))


class Reservoir:
    """Holds the sampled images up to now: those with the smallest keys.

    Args:
        size: S, the number of images.
        thumbnail: pixels of a thumbnail's side; None for no thumbnails.
        seed: seed of the sample.
        config: the network's `pretrained_cfg`, for images whose pixels are unknown.
    """

    def __init__(self, size: int, thumbnail: int | None, seed: int, config: Mapping[str, Any]) -> None:
        self._size, self._side, self._seed, self._config = size, thumbnail, seed, config
        self._indices = np.zeros(0, np.int64)
        self._keys = np.zeros(0, np.uint64)
        # Labels and thumbnails, then gates and squeezes of each block: one row for each sampled image.
        self._rows: list[NDArray[Any]] = []
        self._has_thumbnails = thumbnail is not None

    def add(self, batch: Batch, recorded: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Add the images of a batch that belong to the sample.

        Args:
            batch: the batch.
            recorded: gates and squeezes (N, C) of each block.
        """
        keys = sampling_keys(batch.indices, self._seed)
        chosen = np.argsort(np.concatenate((self._keys, keys)), kind="stable")[: self._size]
        added = chosen[chosen >= len(self._keys)] - len(self._keys)
        # The first batch defines dtypes and shapes of the rows, even if none of its images is sampled.
        if self._rows and not len(added):
            return
        kept = np.sort(chosen[chosen < len(self._keys)])
        new = [batch.labels.numpy()[added], self._thumbnails(batch, added)]
        rows = torch.from_numpy(added)
        new += [values[rows].float().numpy() for pair in recorded for values in pair]
        old = self._rows or [array[:0] for array in new]
        self._rows = [np.concatenate((before[kept], after)) for before, after in zip(old, new, strict=True)]
        self._indices = np.concatenate((self._indices[kept], batch.indices[added]))
        self._keys = np.concatenate((self._keys[kept], keys[added]))

    def _thumbnails(self, batch: Batch, rows: Counts) -> NDArray[np.uint8]:
        side = self._side or 1
        if not self._has_thumbnails:
            return np.zeros((len(rows), side, side, 3), np.uint8)
        found = make_thumbnails(batch, rows, side, self._config)
        if found is None:
            self._has_thumbnails = False
            return np.zeros((len(rows), side, side, 3), np.uint8)
        return found

    def sample(self) -> tuple[Sample, list[tuple[NDArray[np.float32], NDArray[np.float32]]]]:
        """Return the sample, and the gates and squeezes (S, C) of each block."""
        order = np.argsort(self._indices, kind="stable")
        labels, pictures, *rows = [array[order] for array in self._rows]
        sample = Sample(self._indices[order], labels, pictures if self._has_thumbnails else None)
        return sample, list(zip(rows[::2], rows[1::2], strict=True))

    def resume(self, sample: Sample, blocks: Sequence[BlockGates]) -> None:
        """Continue from an earlier sample."""
        self._indices, self._keys = sample.indices, sampling_keys(sample.indices, self._seed)
        self._has_thumbnails = sample.thumbnails is not None
        side = self._side or 1
        empty = np.zeros((len(sample.labels), side, side, 3), np.uint8)
        self._rows = [sample.labels, empty if sample.thumbnails is None else sample.thumbnails]
        self._rows += [rows for block in blocks for rows in (block.sample_gates, block.sample_squeezes)]


def make_thumbnails(batch: Batch, rows: Counts, side: int, config: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Resize some images of a batch to squares, with black bars if needed.

    Without pixels, the normalization is inverted with the network's mean and std. If it has none, each image is scaled
    to the full range.

    Args:
        batch: the batch.
        rows: (n,), indices of the images in the batch.
        side: pixels of a side.
        config: the network's `pretrained_cfg`.

    Returns:
        (n, side, side, 3); None if the images do not have two spatial axes and 1 or 3 channels.
    """
    given = batch.images if batch.pixels is None else batch.pixels
    if given.ndim != 4 or given.shape[1] not in (1, 3):
        return None
    images = given[torch.from_numpy(rows).to(given.device)].detach().to("cpu", torch.float32)
    if not len(images):
        return np.zeros((0, side, side, 3), np.uint8)
    if batch.pixels is None:
        mean, std = (torch.tensor(config.get(name) or (), dtype=torch.float32) for name in ("mean", "std"))
        if len(mean) == len(std) == images.shape[1]:
            images = 255 * (images * std[:, None, None] + mean[:, None, None])
        else:
            low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
            images = 255 * (images - low) / (high - low).clamp(min=1e-12)
    longest = max(images.shape[2:])
    height, width = (max(1, round(side * length / longest)) for length in images.shape[2:])
    small = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    top, left = (side - height) // 2, (side - width) // 2
    small = F.pad(small, (left, side - width - left, top, side - height - top))
    whole = small.round().clamp(0, 255).nan_to_num(0).to(torch.uint8).expand(-1, 3, -1, -1)
    return whole.permute(0, 2, 3, 1).contiguous().numpy()


def merged_sample(parts: Sequence[Gates], size: int, seed: int) -> tuple[Sample, list[BlockGates]]:
    """Return the sample of all parts, and copies of the first part's blocks with the sample's gates and squeezes."""
    indices = np.concatenate([part.sample.indices for part in parts])
    chosen = np.argsort(sampling_keys(indices, seed), kind="stable")[:size]
    chosen = chosen[np.argsort(indices[chosen], kind="stable")]
    labels = np.concatenate([part.sample.labels for part in parts])[chosen]
    found = [part.sample.thumbnails for part in parts]
    pictures = [pictures for pictures in found if pictures is not None]
    whole = np.concatenate(pictures)[chosen] if len(pictures) == len(parts) else None
    blocks = []
    for same in zip(*(part.blocks for part in parts), strict=True):
        rows = [
            np.concatenate([getattr(b, name) for b in same])[chosen] for name in ("sample_gates", "sample_squeezes")
        ]
        blocks.append(replace(copy.deepcopy(same[0]), sample_gates=rows[0], sample_squeezes=rows[1]))
    return Sample(indices[chosen], labels, whole), blocks
