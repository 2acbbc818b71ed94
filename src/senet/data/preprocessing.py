"""Convert images to the input of a network, in the paper's evaluation protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from senet.data.decoding import to_rgb
from senet.data.images import check_pixels
from senet.utils.choices import check_choices
from senet.utils.limits import LARGEST_SIDE, check_at_most
from senet.utils.sizes import SizeLike, parse_size, size_pair

__all__ = ["MAX_SIZE", "Preprocessing", "PreprocessingOptions", "whole_size"]


# A quarter of the step between two grey levels; smaller values give inputs above 1,000.
LEAST_STD = 0.001
# Longest side of detectors' images (arXiv 1703.06870; torchvision's default).
MAX_SIZE = 1333

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """Values that replace those of a network's `pretrained_cfg`; None keeps the network's own.

    Attributes:
        resize: pixels of the shorter side before the crop, or (height, width) that the resized image covers.
        crop: pixels of a side of the central crop, or (height, width).
        mean: of each channel, on the scale of 0 to 1.
        std: of each channel, on the scale of 0 to 1.
    """

    resize: SizeLike | None = None
    crop: SizeLike | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the centre, scale to 0 to 1, normalize (paper section 6.1).

    Sizes are pixels, or (height, width); an aspect ratio is never changed.

    Attributes:
        resize: shorter side before the crop; or height and width that the resized image covers, one of them exactly (as
            in timm for inputs that are not square).
        crop: side of the square input of the network; or its height and width.
        mean: of each channel, on the scale of 0 to 1; one channel converts images to grey.
        std: of each channel, on the scale of 0 to 1.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos".
        max_size: longest side in pixels of images that are resized as a whole, see `whole`.

    Raises:
        ValueError: a size is below 1, the interpolation is unknown, or mean and std do not have 1 or 3 values each on
            the scale of 0 to 1.
    """

    resize: SizeLike
    crop: SizeLike
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    max_size: int = MAX_SIZE

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            object.__setattr__(self, name, parse_size(getattr(self, name), name))
        if min(*size_pair(self.resize), *self.size) < 1:
            raise ValueError(f"resize and crop must be 1 pixel or more, got {self.resize} and {self.crop}")
        if self.max_size < 1:
            raise ValueError(f"max_size must be 1 pixel or more, got {self.max_size}")
        for name, size in (("crop", self.crop), ("resize", self.resize), ("max_size", self.max_size)):
            check_at_most(name, max(size_pair(size)), LARGEST_SIDE, "pixels of a side")
        if not len(self.mean) == len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(f"mean and std must have 1 or 3 values each, got {self.mean} and {self.std}")
        if not all(0 <= value <= 1 for value in self.mean) or not all(0 < value <= 1 for value in self.std):
            raise ValueError(
                f"mean and std must be on the scale of 0 to 1, and std above 0, got {self.mean} and {self.std}; divide "
                f"those of pixels from 0 to 255 by 255"
            )
        check_choices(self)

    @classmethod
    def of(cls, cfg: Mapping[str, Any], options: PreprocessingOptions | None = None) -> "Preprocessing":
        """Return the preprocessing of a `pretrained_cfg` in timm's form.

        `resize` is crop / crop_pct, rounded down: 224 / 0.875 = 256. A key `resize`, which timm does not have, holds a
        size that no `crop_pct` gives.

        Args:
            cfg: needs input_size, crop_pct, mean, std and interpolation; may have resize and max_size.
            options: values that replace those of `cfg`.

        Raises:
            ValueError: a key is missing, mean and std have another number of values than the network has channels, or a
                value is invalid, such as a std below 0.001.
        """
        missing = [key for key in ("input_size", "crop_pct", "mean", "std", "interpolation") if key not in cfg]
        if missing:
            raise ValueError(f"pretrained_cfg lacks {', '.join(missing)}; give it timm's form, with all of these")
        if not cfg["crop_pct"] > 0:
            raise ValueError(f"crop_pct must be above 0, got {cfg['crop_pct']}; 0.875 resizes to 256 for 224 pixels")
        options = options or PreprocessingOptions()
        channels, *spatial = cfg["input_size"]
        resize = options.resize
        if resize is None and options.crop is None:
            resize = cfg.get("resize")
        size = parse_size(spatial if options.crop is None else options.crop, "crop")
        if resize is None:
            # 99 / (99 / 198) is slightly below 198: add a margin, to recover the size that crop_pct was computed from.
            resize = parse_size([int(side / cfg["crop_pct"] + 1e-6) for side in size_pair(size)], "resize")
        preprocessing = cls(
            resize=resize,
            crop=size,
            mean=tuple(cfg["mean"] if options.mean is None else options.mean),
            std=tuple(cfg["std"] if options.std is None else options.std),
            interpolation=cfg["interpolation"],
            max_size=cfg.get("max_size", MAX_SIZE),
        )
        if len(preprocessing.mean) != channels:
            raise ValueError(
                f"the network takes {channels}-channel images, and mean and std are of {len(preprocessing.mean)}: "
                f"{preprocessing.mean} and {preprocessing.std}; give mean and std with a value for each channel"
            )
        preprocessing.check_std()
        return preprocessing

    def check_std(self) -> None:
        """Check that std is not so small that logits overflow.

        Raises:
            ValueError: a value is below 0.001.
        """
        if min(self.std) < LEAST_STD:
            raise ValueError(
                f"std must be {LEAST_STD} or more, got {self.std}: smaller values make inputs so large that logits "
                f"overflow; for pixels of 0 to 255 without scaling, use 0.00392157 (1 / 255)"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input of the network."""
        return size_pair(self.crop)

    @property
    def fill(self) -> list[float]:
        """(C,), padding colour, 0 to 255: the mean, which is normalized to zero."""
        return [255 * value for value in self.mean]

    def as_cfg(self) -> dict[str, Any]:
        """Return entries of a `pretrained_cfg` that `of` converts back to the same preprocessing."""
        height, width = self.size
        pct = (min(height, width) if isinstance(self.resize, int) else height) / size_pair(self.resize)[0]
        cfg: dict[str, Any] = {
            "input_size": (len(self.mean), height, width),
            "crop_pct": pct,
            "mean": tuple(self.mean),
            "std": tuple(self.std),
            "interpolation": self.interpolation,
        }
        if self.max_size != MAX_SIZE:
            cfg["max_size"] = self.max_size
        return cfg if Preprocessing.of(cfg) == self else cfg | {"resize": self.resize}

    def pixels(self, image: Image.Image) -> UInt8[Tensor, "C H W"]:
        """Convert an image of any size to pixels.

        Returns:
            (C, H, W), 0 to 255.

        Raises:
            ValueError: the resized image would have more than `senet.utils.limits.MOST_PIXELS` pixels.
        """
        image = to_rgb(image)
        image = image if len(self.mean) == 3 else image.convert("L")
        width, height = image.size
        least = size_pair(self.resize)
        ratio = min(height / least[0], width / least[1])
        whole = (round(height / ratio), round(width / ratio))
        check_pixels((whole[1], whole[0]), f"resized from {width:,}x{height:,}, it would have")
        if isinstance(self.resize, int):  # torchvision rounds down instead
            short, long = self.resize, int(self.resize * max(image.size) / min(image.size))
            whole = (long, short) if width <= height else (short, long)
        image = image.resize((whole[1], whole[0]), Image.Resampling[self.interpolation.upper()])
        return _to_tensor(_center_crop(image, self.size))

    def whole(self, image: Image.Image, side: int) -> UInt8[Tensor, "C H W"]:
        """Convert a whole image to pixels, in a size of `whole_size`.

        Args:
            image: of any size.
            side: pixels of the shorter side.

        Returns:
            (C, H, W), 0 to 255.

        Raises:
            ValueError: the resized image would have more than `senet.utils.limits.MOST_PIXELS` pixels.
        """
        size = whole_size((image.height, image.width), side, self.max_size)
        check_pixels((size[1], size[0]), f"resized from {image.width:,}x{image.height:,}, it would have")
        image = to_rgb(image)
        image = image if len(self.mean) == 3 else image.convert("L")
        return _to_tensor(image.resize((size[1], size[0]), Image.Resampling[self.interpolation.upper()]))

    def scale(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and std on the scale of 0 to 255, (C, 1, 1) each, on a device; cached."""
        return _scale(self.mean, self.std, device, torch.get_default_dtype())

    def normalize(
        self, pixels: UInt8[Tensor, "N C H W"], scale: tuple[Tensor, Tensor] | None = None
    ) -> Float[Tensor, "N C H W"]:
        """Normalize pixels.

        Args:
            pixels: (N, C, H, W) of 0 to 255.
            scale: the result of `scale` for the device of the pixels. The owner of a CUDA graph passes it, and keeps it
                as long as the graph: the cache may evict it.

        Returns:
            (N, C, H, W), in channels-last format.
        """
        if scale is None and type(pixels) is not Tensor:  # tensors of a tracer must not be cached
            scale = _scale.__wrapped__(self.mean, self.std, pixels.device, torch.get_default_dtype())
        mean, std = self.scale(pixels.device) if scale is None else scale
        return pixels.contiguous(memory_format=torch.channels_last).float().sub_(mean).div_(std)


# As torchvision's `center_crop` and `pil_to_tensor`, whose import takes longer than to predict a few images.
def _center_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Crop the centre of (height, width); pixels outside of the image are black."""
    (width, height), (high, wide) = image.size, size
    left, top = (
        round((side - crop) / 2) if side >= crop else -((crop - side) // 2)
        for side, crop in ((width, wide), (height, high))
    )
    return image.crop((left, top, left + wide, top + high))


def _to_tensor(image: Image.Image) -> UInt8[Tensor, "C H W"]:
    width, height = image.size
    return torch.from_numpy(np.array(image)).view(height, width, -1).permute(2, 0, 1)


def whole_size(size: tuple[int, int], side: int, max_size: int) -> tuple[int, int]:
    """Return the size of an image that is resized as a whole, as torchvision's `resize` does.

    Args:
        size: height and width of the image.
        side: pixels of the shorter side.
        max_size: most pixels of the longer side.

    Returns:
        Height and width; at least a pixel each.
    """
    short, long = min(size), max(size)
    new_short, new_long = side, int(side * long / short)
    if new_long > max_size:
        new_short, new_long = max(1, int(max_size * new_short / new_long)), max_size
    return (new_short, new_long) if size[0] <= size[1] else (new_long, new_short)


@lru_cache(maxsize=32)
def _scale(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return mean and std on the scale of 0 to 255, (C, 1, 1) each.

    Cached by device: creating a tensor from Python numbers on a GPU synchronizes, twice in each step.
    """
    with torch.inference_mode(False):  # cached tensors must not be inference tensors
        found = [torch.tensor(values, device=device, dtype=dtype).view(-1, 1, 1) * 255 for values in (mean, std)]
    return found[0], found[1]
