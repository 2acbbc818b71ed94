"""Image formats, and the conversion of an image of any mode to upright 8-bit RGB."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

__all__ = ["KINDS", "extensions", "formats", "is_kind", "to_rgb", "upright", "upright_size"]

# For messages; the list of all extensions is long.
KINDS = ".jpg, .png, .webp, .tif and other formats of Pillow"

# Formats that Pillow recognizes and cannot decode by itself. EPS would start Ghostscript, a program that runs the file.
_REFUSED = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))
# EXIF tag of the orientation: 1 is upright, 2 to 8 are rotated or mirrored, 5 to 8 by a quarter turn.
_ORIENTATION, _TURNED, _QUARTER = 0x0112, range(2, 9), range(5, 9)
# Values of 12 bits and fewer are nearly black on a 16-bit scale.
_FEWER_BITS = 4096
# Images on the scale of 0 to 255 have larger values; images of 0 to 1 with an overshoot do not.
_OVERSHOOT = 2.0


@cache
def formats() -> tuple[str, ...]:
    """Return the formats that are decoded, by Pillow's names."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in _REFUSED)


@cache
def extensions() -> frozenset[str]:
    """Return the extensions of image files in lower case, such as ".jpg"."""
    known = formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)


def is_kind(suffix: str) -> bool:
    """Whether an extension in lower case without its dot, such as "jpg", belongs to an image."""
    return f".{suffix}" in extensions()


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of an image, and remove it.

    Returns:
        The same image if it is upright already.

    Raises:
        SyntaxError, ValueError, struct.error: the image has an orientation, and its metadata are damaged.
    """
    return ImageOps.exif_transpose(image) if _orientation(image) in _TURNED else image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return height and width of the upright image; the pixels are not decoded."""
    width, height = image.size
    return (width, height) if _orientation(image) in _QUARTER else (height, width)


def _orientation(image: Image.Image) -> Any:
    """Return the EXIF orientation of an image; 1 is upright."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    # Pillow's parser raises errors of many kinds. With damaged metadata the pixels are used as stored.
    except Exception:
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB; transparency is dropped.

    16-bit integers keep their upper eight bits. Floating point values are on the scale of 0 to 1, or of 0 to 255.

    Raises:
        ValueError: the mode has no conversion; or values are not finite, outside of their scale, or so small that the
            scale is ambiguous and the image would be black.
    """
    if image.mode == "F":
        image = Image.fromarray(_of_floats(np.asarray(image)))
    elif image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray(_of_integers(np.asarray(image)))
    elif image.mode in ("La", "RGBa"):  # premultiplied by alpha
        image = image.convert(image.mode.upper())
    elif image.mode == "PA" or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")  # Pillow warns about the direct conversion
    return image.convert("RGB")


def _of_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert (H, W) floating point values to (H, W) of 8 bits."""
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
    """Convert (H, W) values of 16 bits or more to their upper eight bits of 16; Pillow would clip them to white."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535 or 0 < high < _FEWER_BITS:
        raise ValueError(
            f"its values are from {low:,} to {high:,}, which do not fill the scale of 0 to 65,535 of 16 bits: it would "
            f"be black or clipped; scale them, or save it with 8 bits"
        )
    return (values >> 8).astype(np.uint8)
