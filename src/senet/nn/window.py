"""The squeeze over a sliding window, for maps in evaluation that are larger than those in training.

Chu et al., Improving Image Restoration by Revisiting Global Information Aggregation (TLC, arXiv 2112.04491): a network
trained on patches meets other statistics in a larger test image if it pools globally.

Window sums are built by doubling, axis by axis: a sum of 2 n values is a sum of two sums of n. A window of k values
takes at most 2 log2(k) additions for each position. Nothing is subtracted, as in cumulative sums, so that rounding does
not grow with the map, and a value that is not finite stays in the windows that hold it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from senet.utils.arguments import argument
from senet.utils.choices import Squeeze
from senet.utils.modes import is_traced

__all__ = ["Window", "check_window", "slides", "spread", "squeeze_windows"]

# Positions along each spatial axis; an integer for all axes.
Window = int | tuple[int, ...]

# The most spatial axes that PyTorch pads.
_MOST_AXES = 3


def check_window(window: int | Sequence[int] | None, squeeze: str) -> Window | None:
    """Return a valid window.

    Args:
        window: its positions along each spatial axis; an integer for all axes; None for the whole map.
        squeeze: the squeeze of the block.

    Raises:
        TypeError: the window is neither an integer nor a sequence of integers.
        ValueError: a length below 1, no length or more than three; or the squeeze is "none".
    """
    if window is None:
        return None
    lengths: Any = [window] if isinstance(window, int) else window
    sequence = isinstance(lengths, Sequence) and not isinstance(lengths, str)
    if not sequence or not all(isinstance(n, int) and not isinstance(n, bool) for n in lengths):
        raise TypeError(f"window must be an integer or a tuple of integers, such as (56, 56), got {window!r}")
    if not 1 <= len(lengths) <= _MOST_AXES or min(lengths) < 1:
        raise ValueError(
            f"window must have a length of 1 or more for each of one to three spatial axes, got {window!r}; None "
            f"squeezes the whole map"
        )
    if squeeze == "none":
        raise ValueError(
            f"{argument('window', window)} needs a squeeze over space, and {argument('squeeze', 'none')} has none; use "
            f"'avg' or 'max'"
        )
    return window if isinstance(window, int) else tuple(window)


def slides(window: Window, u: Tensor) -> bool:
    """Return whether a map is larger than a window along any axis.

    Args:
        window: positions along each spatial axis.
        u: (N, C, *spatial).

    Raises:
        ValueError: the map has another number of spatial axes than the window.
    """
    return any(length < size for length, size in zip(_lengths(window, u), _sizes(u), strict=True))


def squeeze_windows(u: Tensor, how: Squeeze, window: Window) -> Tensor:
    """Compute the mean or the maximum of every window that lies in a map.

    Args:
        u: (N, C, *spatial).
        how: "avg" or "max".
        window: positions along each spatial axis; an axis that is no longer is squeezed to length 1.

    Returns:
        (N, C, *windows): size - length + 1 windows along each axis, in u's dtype and memory format.
    """
    z, count = u, 1
    # As in a global squeeze: sums in half precision would overflow or stop growing.
    if how == "avg" and u.dtype in (torch.float16, torch.bfloat16):
        z = u.to(torch.float32)
    for axis, (length, size) in enumerate(zip(_lengths(window, u), _sizes(u), strict=True), 2):
        if length < size:
            z = _combine(z, axis, length, torch.maximum if how == "max" else torch.add)
            count *= length
        else:
            z = z.amax(axis, keepdim=True) if how == "max" else z.mean(axis, keepdim=True)
    return z if how == "max" else (z / count).to(u.dtype)


def spread(s: Tensor, u: Tensor, window: Window) -> Tensor:
    """Assign to each position the gates of the window around it; at borders, of the nearest window in the map.

    Around means (length - 1) // 2 positions before it, and length // 2 after it.

    Args:
        s: (N, C, *windows), the gates of each window of `squeeze_windows`.
        u: (N, C, *spatial), the map.
        window: positions along each spatial axis.

    Returns:
        (N, C, *spatial), of length 1 along axes that the window covers.
    """
    pads: list[int] = []
    for length, size in zip(_lengths(window, u), _sizes(u), strict=True):
        pads = [*((length - 1) // 2, length // 2), *pads] if length < size else [0, 0, *pads]
    return nn.functional.pad(s, pads, mode="replicate").to(u.dtype)  # autocast pads in float32


def _combine(x: Tensor, axis: int, length: int, of_two: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine `length` neighbours along an axis: (..., size, ...) -> (..., size - length + 1, ...).

    Slices end relative to the end of the axis, so that a trace or a compiled network takes maps of other sizes.
    """
    found, have = x, 0
    power, width = x, 1
    while True:
        if length & width:
            found = power if have == 0 else of_two(_before(found, axis, width), _after(power, axis, have))
            have += width
        if 2 * width > length:
            return found
        power = of_two(_before(power, axis, width), _after(power, axis, width))
        width *= 2


def _before(x: Tensor, axis: int, count: int) -> Tensor:
    return x[(slice(None),) * axis + (slice(None, -count),)]


def _after(x: Tensor, axis: int, count: int) -> Tensor:
    return x[(slice(None),) * axis + (slice(count, None),)]


def _lengths(window: Window, u: Tensor) -> tuple[int, ...]:
    axes = u.ndim - 2
    if isinstance(window, int):
        return (window,) * axes
    if len(window) != axes:
        raise ValueError(
            f"a window of {len(window)} lengths, {window}, does not fit a map with {axes} spatial axes, of the shape "
            f"{tuple(u.shape)}; give one length for each axis, or one integer"
        )
    return window


def _sizes(u: Tensor) -> tuple[int, ...]:
    """Return the spatial axes as integers, also under `torch.jit.trace`, where a size is a tensor."""
    if not is_traced():
        return u.shape[2:]
    tracing: Any = torch._C
    state = tracing._get_tracing_state()
    tracing._set_tracing_state(None)
    try:
        return u.shape[2:]
    finally:
        tracing._set_tracing_state(state)
