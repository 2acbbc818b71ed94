"""Which image files are read, and how an image of any mode becomes RGB, upright and of 8 bits."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

__all__ = ["KINDS", "extensions", "formats", "is_kind", "to_rgb", "upright"]

# What is read, for messages: a list of all extensions would bury the rest.
KINDS = ".jpg, .png, .webp, .tif and what else Pillow decodes"

# Formats that Pillow recognises and cannot decode by itself. EPS would start Ghostscript, a program that runs the file.
_REFUSED = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))
# The tag of EXIF that says how the camera was held: 1 is upright, and 2 to 8 are the other ways.
_ORIENTATION, _TURNED = 0x0112, range(2, 9)
# Values of 12 bits and fewer, which are nearly black on the scale of 16.
_FEWER_BITS = 4096
# A picture on the scale of 0 to 255 has lighter pixels than this; one of 0 to 1 with an overshoot has not.
_OVERSHOOT = 2.0


@cache
def formats() -> tuple[str, ...]:
    """Formats that are decoded, as Pillow calls them."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in _REFUSED)


@cache
def extensions() -> frozenset[str]:
    """Extensions of the files that are taken for images, in small letters, such as ".jpg"."""
    known = formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)


def is_kind(suffix: str) -> bool:
    """Whether an extension without its dot, in small letters, is that of an image: "jpg"."""
    return f".{suffix}" in extensions()


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says; the result says nothing of it any more.

    Returns:
        The image itself where it is upright already.

    Raises:
        SyntaxError, ValueError, struct.error: the metadata of an image that is to be turned are damaged.
    """
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    # Pillow's parser has no errors of its own. Where the metadata are damaged, the pixels stay as they are stored.
    except Exception:
        return image
    return ImageOps.exif_transpose(image) if orientation in _TURNED else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, 8 bits; transparency is dropped.

    Integers of 16 bits keep their upper eight. Floating point numbers are on the scale of 0 to 1, or of 0 to 255.

    Raises:
        ValueError: a mode without a conversion; values that are not finite, outside of their scale, or so small that
            the scale is unclear and the image would be black.
    """
    if image.mode == "F":
        image = Image.fromarray(_of_floats(np.asarray(image)))
    elif image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray(_of_integers(np.asarray(image)))
    elif image.mode in ("La", "RGBa"):  # premultiplied by their transparency
        image = image.convert(image.mode.upper())
    elif image.mode == "PA" or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")  # Pillow warns of the direct way
    return image.convert("RGB")


def _of_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W), floating point -> (H, W), 8 bits."""
    if not np.isfinite(values).all():
        raise ValueError("it has values that are NaN or infinite; replace them")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255 or 1 < high < _OVERSHOOT:
        raise ValueError(
            f"its floating point values are from {low:.6g} to {high:.6g}, on neither the scale of 0 to 1 nor that of 0 "
            f"to 255; scale them, or save it with 8 bits"
        )
    return np.round(values * 255 if high <= 1 else values).astype(np.uint8)


def _of_integers(values: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W), 16 bits or more -> (H, W), the upper eight bits of sixteen; Pillow would clip them, and give white."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535 or 0 < high < _FEWER_BITS:
        raise ValueError(
            f"its values are from {low:,} to {high:,}, which do not fill the scale of 0 to 65,535 of 16 bits: it would "
            f"be black or clipped; scale them, or save it with 8 bits"
        )
    return (values >> 8).astype(np.uint8)
