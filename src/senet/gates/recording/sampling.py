"""A random choice of images that depends on a seed and on their places in the data alone, and thumbnails of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from senet.gates.recording.batches import Batch
from senet.gates.recording.record import BlockGates, Gates, Sample
from senet.gates.recording.statistics import Counts

__all__ = ["Reservoir", "keys_of", "merged_sample", "thumbnails"]

_WORD = (1 << 64) - 1


def keys_of(indices: Counts, seed: int) -> NDArray[np.uint64]:
    """(N,): a number for each place, by which the sample takes the smallest: random, and none twice.

    Two rounds of the finaliser of SplitMix64 (Steele, Lea and Flood 2014), which is a permutation of 64 bits.
    """
    offset = _mixed(np.array([seed & _WORD], np.uint64))
    return _mixed(_mixed(indices.astype(np.uint64)) ^ offset)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))


class Reservoir:
    """The images of a sample so far: those whose keys are smallest.

    Args:
        size: S, how many are kept.
        thumbnail: pixels of a thumbnail's side; None for none.
        seed: of the choice.
        config: of the network, for images whose pixels are not known.
    """

    def __init__(self, size: int, thumbnail: int | None, seed: int, config: Mapping[str, Any]) -> None:
        self._size, self._side, self._seed, self._config = size, thumbnail, seed, config
        self._indices = np.zeros(0, np.int64)
        self._keys = np.zeros(0, np.uint64)
        # Labels and thumbnails, then of each block gates and squeezes: one row for each image that is kept.
        self._rows: list[NDArray[Any]] = []
        self._pictures = thumbnail is not None

    def add(self, batch: Batch, seen: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take of a batch those that are in the sample.

        Args:
            batch: its images.
            seen: of each block the gates and squeezes, (N, C).
        """
        keys = keys_of(batch.indices, self._seed)
        chosen = np.argsort(np.concatenate((self._keys, keys)), kind="stable")[: self._size]
        came = chosen[chosen >= len(self._keys)] - len(self._keys)
        # The first batch says what the rows look like, whether or not any of its images is taken.
        if self._rows and not len(came):
            return
        kept = np.sort(chosen[chosen < len(self._keys)])
        new = [batch.labels.numpy()[came], self._thumbnails(batch, came)]
        rows = torch.from_numpy(came)
        new += [values[rows].float().numpy() for pair in seen for values in pair]
        old = self._rows or [array[:0] for array in new]
        self._rows = [np.concatenate((before[kept], after)) for before, after in zip(old, new, strict=True)]
        self._indices = np.concatenate((self._indices[kept], batch.indices[came]))
        self._keys = np.concatenate((self._keys[kept], keys[came]))

    def _thumbnails(self, batch: Batch, rows: Counts) -> NDArray[np.uint8]:
        side = self._side or 1
        if not self._pictures:
            return np.zeros((len(rows), side, side, 3), np.uint8)
        found = thumbnails(batch, rows, side, self._config)
        if found is None:
            self._pictures = False
            return np.zeros((len(rows), side, side, 3), np.uint8)
        return found

    def taken(self) -> tuple[Sample, list[tuple[NDArray[np.float32], NDArray[np.float32]]]]:
        """The sample, and of each block gates and squeezes (S, C)."""
        order = np.argsort(self._indices, kind="stable")
        labels, pictures, *rows = [array[order] for array in self._rows]
        sample = Sample(self._indices[order], labels, pictures if self._pictures else None)
        return sample, list(zip(rows[::2], rows[1::2], strict=True))

    def go_on(self, sample: Sample, blocks: Sequence[BlockGates]) -> None:
        """Go on from a sample that is there."""
        self._indices, self._keys = sample.indices, keys_of(sample.indices, self._seed)
        self._pictures = sample.thumbnails is not None
        side = self._side or 1
        empty = np.zeros((len(sample.labels), side, side, 3), np.uint8)
        self._rows = [sample.labels, empty if sample.thumbnails is None else sample.thumbnails]
        self._rows += [rows for block in blocks for rows in (block.sample_gates, block.sample_squeezes)]


def thumbnails(batch: Batch, rows: Counts, side: int, config: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Small pictures of some images of a batch, (n, side, side, 3); an image that is no square has black bars.

    Where there are no pixels, the images are put back by mean and std of the network, and where it has none, each is
    stretched to the whole range.

    Returns:
        None where the images have no two spatial axes, or neither 1 nor 3 channels.
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
    """The sample of all of the parts, and blocks that have its rows, but the first part's figures."""
    indices = np.concatenate([part.sample.indices for part in parts])
    chosen = np.argsort(keys_of(indices, seed), kind="stable")[:size]
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
        blocks.append(_with_rows(same[0], *rows))
    return Sample(indices[chosen], labels, whole), blocks


def _with_rows(block: BlockGates, gates: NDArray[np.float32], squeezes: NDArray[np.float32]) -> BlockGates:
    from copy import deepcopy

    block = deepcopy(block)
    block.sample_gates, block.sample_squeezes = gates, squeezes
    return block
