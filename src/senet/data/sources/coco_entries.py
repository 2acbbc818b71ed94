"""The entries of an annotation file of COCO: categories, images and boxes, checked one by one.

Each function raises ValueError with what is wrong and the fix; the caller knows file and id.
"""

import math
from dataclasses import dataclass
from typing import Any

from senet.utils.errors import shown
from senet.utils.input_files import same_name
from senet.utils.limits import LARGEST_SIDE

__all__ = ["BoxEntry", "CategoryEntry", "ImageEntry", "check_size", "clipped", "id_of"]

# Pixels by which a box may exceed its image: coordinates are rounded, or counted from 1. It is then clipped.
_MARGIN = 1.0
# Pixels of a side. Resized boxes must have a size in float32, or torchvision's detectors raise an error.
_LEAST_SIDE = 0.1


@dataclass(frozen=True)
class CategoryEntry:
    """A category: its id, and its name, normalized."""

    id: int
    name: str

    @classmethod
    def of(cls, entry: Any) -> "CategoryEntry":
        """Check an entry of the list of categories."""
        number = id_of(entry)
        name = None if number is None else entry.get("name")
        if number is None or not isinstance(name, str) or not name.strip():
            raise ValueError(f"expected an object with an integer id and a name, got {shown(entry)}")
        return cls(number, same_name(name))


@dataclass(frozen=True)
class ImageEntry:
    """An image: its id, its file below the folder of images, and its height and width if the file gives them."""

    id: int
    file_name: str
    height: int | None
    width: int | None

    @classmethod
    def of(cls, entry: Any) -> "ImageEntry":
        """Check an entry of the list of images."""
        number = id_of(entry)
        if number is None:
            raise ValueError(f"expected an object with an integer id, got {shown(entry)}")
        name = entry.get("file_name")
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise ValueError(f"file_name must be the name of a file, got {shown(name)}")
        height, width = (_pixels(entry, key) for key in ("height", "width"))
        return cls(number, name, height, width)


@dataclass(frozen=True)
class BoxEntry:
    """A box: ids of its image and its category, x, y, width and height, pixels of the object, and iscrowd."""

    image_id: Any
    category_id: Any
    box: list[float]
    area: float | None
    crowd: bool

    @classmethod
    def of(cls, entry: dict[str, Any]) -> "BoxEntry":
        """Check the values of an annotation; its ids may be unknown, or of any type."""
        box, area, crowd = entry.get("bbox"), entry.get("area"), entry.get("iscrowd", 0)
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            raise ValueError(f"bbox must be four numbers x, y, width and height, got {shown(box)}")
        if area is not None and not (_is_number(area) and 0 <= area <= LARGEST_SIDE**2):
            raise ValueError(f"area must be a number of pixels, at most {LARGEST_SIDE**2:,}, got {shown(area)}")
        if not isinstance(crowd, int) or crowd not in (0, 1):
            raise ValueError(f"iscrowd must be 0 or 1, got {shown(crowd)}")
        box = [float(value) for value in box]
        return cls(entry.get("image_id"), entry.get("category_id"), box, area, bool(crowd))


def id_of(entry: Any, key: str = "id") -> int | None:
    """Return an id of an entry; None if it has none, or one of another type."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def check_size(image: ImageEntry, size: tuple[int, int]) -> None:
    """Check the size (height, width) of an upright image file against its entry."""
    height, width = image.height or size[0], image.width or size[1]
    if (height, width) != size:
        raise ValueError(
            f"the file has {size[1]}x{size[0]} pixels, upright, and its annotations are for {width}x{height}"
        )


def clipped(box: list[float], size: tuple[int, int]) -> list[float]:
    """Return x1, y1, x2 and y2 of a box (x, y, width, height) in an image of (height, width)."""
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise ValueError(f"its box {box} has no size: width and height must be above 0")
    right, bottom = x + width, y + height
    if min(x, y) < -_MARGIN or right > size[1] + _MARGIN or bottom > size[0] + _MARGIN:
        raise ValueError(f"its box {box} (x, y, width, height) is not inside the image of {size[1]}x{size[0]} pixels")
    inside = [max(x, 0.0), max(y, 0.0), min(right, float(size[1])), min(bottom, float(size[0]))]
    if min(inside[2] - inside[0], inside[3] - inside[1]) < _LEAST_SIDE:
        raise ValueError(f"its box {box} has a side of less than {_LEAST_SIDE} pixels inside the image")
    return inside


def _pixels(entry: dict[str, Any], key: str) -> int | None:
    value = entry.get(key)
    if value is None:
        return None
    if not _is_number(value) or value < 1 or value != int(value):
        raise ValueError(f"{key} must be a number of pixels, got {shown(value)}")
    return int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
