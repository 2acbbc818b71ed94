"""Images that show a quantizer the ranges of a network's values."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from senet.data import ImageData, open_data
from senet.evaluation import InputOptions, loader_for
from senet.utils.arguments import argument
from senet.utils.progress import Progress, no_progress

__all__ = ["IMAGES", "LEAST_IMAGES", "check_batches", "open_calibration", "read_batches"]

Array = np.ndarray[Any, Any]

# More images change no range by much: see docs/deploy.md.
IMAGES = 512
# Fewer leave ranges to chance.
LEAST_IMAGES = 16


def open_calibration(
    model: nn.Module,
    data: str | ImageData,
    options: InputOptions | None = None,
    *,
    images: int = IMAGES,
    progress: Progress = no_progress,
) -> list[Tensor]:
    """Return images of a data set as a network takes them, for its quantization. Labels are not used.

    Args:
        model: a network with `pretrained_cfg`, see `senet.evaluate`.
        data: a spec, of which the training split is used; or an open data set.
        options: preprocessing and batch size that replace the network's own.
        images: how many, at equal distances in the data set; all, if it has fewer.
        progress: shows progress of decoding.

    Returns:
        Batches (N, C, H, W), normalized.

    Raises:
        DataError: the data cannot be opened, or an image cannot be read.
        ValueError: see `senet.evaluate`, or the data set has fewer than `LEAST_IMAGES` images.
    """
    data = open_data(data, "train") if isinstance(data, str) else data
    chosen = np.linspace(0, len(data) - 1, min(images, len(data))).astype(int)
    loader = loader_for(model, data.subset(np.unique(chosen)), options, progress=progress)
    batches = [loader.preprocessing.normalize(pixels) for pixels, _ in loader.epoch()]
    _check_count(sum(map(len, batches)))
    return batches


def read_batches(
    batches: Iterable[Tensor] | None,
    shape: Sequence[int | None],
    dtype: torch.dtype = torch.float32,
    *,
    images: int = IMAGES,
) -> list[Tensor]:
    """Read calibration data, and check them against the input of an exported network.

    Args:
        batches: (N, C, H, W) each, of any N, as the network takes them; None is an error. No more are read than used.
        shape: of the network's input; None for an axis of any length.
        dtype: of the network's input; batches of any floating-point dtype fit one.
        images: the most to use, and at least a batch of the network.

    Returns:
        Batches in the dtype of the input, on the CPU.

    Raises:
        TypeError: the data or a batch have another type, or a batch another kind of dtype.
        ValueError: there are none, a batch has another shape than the input or the first batch, holds values that are
            not finite, or there are fewer than `LEAST_IMAGES` images.
    """
    if batches is None:
        raise ValueError(
            f"quantization to 8 bits needs calibration data, which show the ranges of the network's values; give "
            f"{argument('calibration')} with batches of images"
        )
    if isinstance(batches, Tensor):
        raise TypeError("calibration must be an iterable of batches (N, C, H, W), got one tensor; put it in a list")
    if not isinstance(batches, Iterable):
        raise TypeError(
            f"calibration must be the spec of a data set, or an iterable of batches (N, C, H, W), got "
            f"{type(batches).__name__}"
        )
    images = max(images, shape[0] or 0)
    found, count = [], 0
    for one in _checked(batches, shape, dtype):
        found.append(one[: images - count])
        count += len(found[-1])
        if count >= images:
            break
    _check_count(count)
    return found


def check_batches(
    batches: Iterable[Tensor] | None,
    shape: Sequence[int | None],
    dtype: torch.dtype = torch.float32,
    *,
    batch: int = 1,
    images: int = IMAGES,
) -> list[Array]:
    """Read calibration data, and cut them to the batch size of the network.

    Args:
        batches, shape, dtype, images: see `read_batches`.
        batch: images of a batch, if the network takes any number.

    Returns:
        Batches of the network's batch size, or of `batch` images.

    Raises:
        TypeError, ValueError: see `read_batches`.
    """
    rows = torch.cat(read_batches(batches, shape, dtype, images=images)).numpy()
    step = shape[0] or min(batch, len(rows))
    return [rows[start : start + step] for start in range(0, len(rows) - step + 1, step)]


def _checked(batches: Iterable[Tensor], shape: Sequence[int | None], dtype: torch.dtype) -> Iterator[Tensor]:
    first: tuple[int, ...] | None = None
    for number, batch in enumerate(batches):
        if not isinstance(batch, Tensor):
            raise TypeError(
                f"calibration batch {number} is a {type(batch).__name__}, expected a tensor (N, C, H, W); of a data "
                f"set with labels, give the images alone"
            )
        sizes = tuple(batch.shape)
        fits = len(sizes) == len(shape) and all(n in (None, size) for n, size in zip(shape[1:], sizes[1:], strict=True))
        if not fits:
            wanted = ", ".join(("N", *("any" if n is None else str(n) for n in shape[1:])))
            raise ValueError(
                f"calibration batch {number} has the shape {sizes}, and the network takes ({wanted}); preprocess the "
                f"images as for the network"
            )
        first = first or sizes
        if sizes[1:] != first[1:]:
            raise ValueError(
                f"calibration batch {number} has the shape {sizes}, and batch 0 {first}: calibration takes images of "
                f"one size; resize them"
            )
        if batch.dtype != dtype and not (batch.is_floating_point() and dtype.is_floating_point):
            given, wanted = (str(kind).removeprefix("torch.") for kind in (batch.dtype, dtype))
            raise TypeError(
                f"calibration batch {number} is {given}, and the network takes {wanted}; preprocess the images as for "
                f"the network"
            )
        if not bool(batch.isfinite().all()):
            raise ValueError(f"calibration batch {number} holds NaN or infinity; remove such images")
        yield batch.detach().cpu().to(dtype).contiguous()


def _check_count(count: int) -> None:
    if count < LEAST_IMAGES:
        raise ValueError(
            f"calibration data has {count} images, and fewer than {LEAST_IMAGES} leave the ranges of values to chance; "
            f"give more, {IMAGES} or so"
        )
