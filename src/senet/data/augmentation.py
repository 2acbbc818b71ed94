"""Random augmentation of training images, determined by (seed, epoch, index)."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from torch import Tensor

from senet.data.preprocessing import Preprocessing
from senet.utils.choices import check_choices
from senet.utils.limits import LARGEST_SIDE, check_at_most
from senet.utils.sizes import size_pair

__all__ = ["Augmentation", "Draws", "crop_and_flip", "draw", "padding_colour", "seed_of"]

Crop = Literal["pad", "area", "none"]

# Mixed into the seed of a batch's scale, so that it is independent of other random numbers.
_SIDE = 1_000_037


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of training images.

    Attributes:
        crop: "pad" pads by `padding` and crops at random (CIFAR, He et al. 2015); "area" crops 8 to 100 % of the area
            at 3/4 to 4/3 of the aspect ratio of the network's input and resizes (ImageNet); "none" crops the centre, as
            in evaluation.
        flip: mirror half of the images.
        padding: pixels on each side, of the mean colour.
        randaugment: timm's name of a RandAugment policy (arXiv 1909.13719), applied last; "" for none.
        scales: shorter sides in pixels of whole images, of which each batch has one; empty for that of evaluation.

    Raises:
        ValueError: the crop or the policy is unknown, the padding is below 0, or a scale below 1.
    """

    crop: Crop = "none"
    flip: bool = False
    padding: int = 4
    randaugment: str = ""
    scales: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_choices(self)
        if self.padding < 0:
            raise ValueError(f"padding must be 0 pixels or more, got {self.padding}")
        check_at_most("padding", self.padding, LARGEST_SIDE, "pixels of a side")
        if self.randaugment:
            _policy(self.randaugment, (0.5, 0.5, 0.5))
        if min(self.scales, default=1) < 1:
            raise ValueError(f"scales must be 1 pixel or more, got {list(self.scales)}")
        check_at_most("scales", max(self.scales, default=1), LARGEST_SIDE, "pixels of a side")

    def side(self, preprocessing: Preprocessing, seed: int, epoch: int, step: int) -> int:
        """Return the shorter side of the whole images of a batch, drawn from `scales`.

        Args:
            preprocessing: its `resize` is the side if there are no scales.
            seed: seed of the random numbers.
            epoch: number of the epoch.
            step: number of the batch in the epoch, over all processes.
        """
        if not self.scales:
            return min(size_pair(preprocessing.resize))
        return self.scales[seed_of(seed, epoch, _SIDE, step) % len(self.scales)]

    def randomise(self, pixels: UInt8[Tensor, "C H W"], mean: Sequence[float], seed: int) -> UInt8[Tensor, "C H W"]:
        """Apply RandAugment to an image, filling with the mean colour; the same for the same seed."""
        from torchvision.transforms.functional import pil_to_tensor, to_pil_image

        # Before seeding: the first call imports modules, which may draw random numbers.
        policy, image = _policy(self.randaugment, tuple(mean)), to_pil_image(pixels)
        # timm uses these two global generators; restore their state.
        python, numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            image = policy(image)
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
        return pil_to_tensor(image)  # type: ignore[no-any-return]

    def area(self, image: Image.Image, preprocessing: Preprocessing, seed: int) -> UInt8[Tensor, "C H W"]:
        """Crop a random area of an image, resize and mirror it; the same for the same seed.

        Returns:
            (C, H, W), 0 to 255.
        """
        from torchvision.transforms import InterpolationMode, RandomHorizontalFlip, RandomResizedCrop

        interpolation = InterpolationMode(preprocessing.interpolation)
        size = preprocessing.size
        aspects = tuple(aspect * size[1] / size[0] for aspect in (3 / 4, 4 / 3))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                seed
            )  # torch.manual_seed would also seed the GPU, which is not restored
            image = RandomResizedCrop(size, (0.08, 1.0), aspects, interpolation)(image)
            image = RandomHorizontalFlip(0.5 if self.flip else 0.0)(image)
        # The size is right already; this converts to grey if needed, and to a tensor.
        return Preprocessing(size, size, preprocessing.mean, preprocessing.std).pixels(image)


@lru_cache(maxsize=8)
def _policy(name: str, mean: tuple[float, ...]) -> Any:
    """Create a RandAugment policy of timm by its name, such as "rand-m9-mstd0.5"."""
    from timm.data.auto_augment import rand_augment_transform

    # timm ignores unknown parts of a name.
    if not re.fullmatch(r"rand(-(m\d+|n\d+|mmax\d+|inc[01]|(mstd|p)\d+(\.\d+)?|t(weights|3aw?)))*", name):
        raise ValueError(
            f"randaugment must be timm's name of a policy, such as 'rand-m9-n2-mstd0.5-inc1' (magnitude 9 of 10 with a "
            f"deviation of 0.5, 2 operations), got {name!r}"
        )
    colour = tuple(min(255, round(255 * value)) for value in mean)
    policy = rand_augment_transform(name, {"img_mean": colour if len(colour) > 1 else colour[0]})
    for operation in policy.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = partial(_posterize, operation.aug_fn)
    return policy


def _posterize(posterize: Any, image: Image.Image, bits: int, **options: Any) -> Any:
    """Posterize to at least one bit: timm may ask for none, which newer versions of Pillow reject."""
    return posterize(image, max(bits, 1), **options)


@dataclass(frozen=True)
class Draws:
    """The random numbers of an epoch for M images: order, crop offsets, and which images are mirrored."""

    order: Int[Tensor, "M"]
    offsets: Int[Tensor, "M 2"]
    flips: Bool[Tensor, "M"]


def seed_of(*numbers: int) -> int:
    """Mix several numbers, such as seed, epoch and index, into one seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@lru_cache(maxsize=2)
def draw(augmentation: Augmentation, seed: int, epoch: int, images: int) -> Draws:
    """Draw the random numbers of an epoch, which depend on seed, epoch and number of images alone."""
    generator = torch.Generator().manual_seed(seed_of(seed, epoch))
    order = torch.randperm(images, generator=generator)
    span = 2 * augmentation.padding + 1 if augmentation.crop == "pad" else 1
    offsets = torch.randint(span, (images, 2), generator=generator)
    flips = torch.rand(images, generator=generator) < (0.5 if augmentation.flip else 0.0)
    return Draws(order, offsets, flips)


def padding_colour(fill: Sequence[float]) -> UInt8[Tensor, "C"]:
    """Return the padding colour as 8-bit values (C,), from (C,) numbers of 0 to 255."""
    return torch.tensor(fill).round().to(torch.uint8)


def crop_and_flip(
    pixels: UInt8[Tensor, "N C H W"],
    offsets: Int[Tensor, "N 2"],
    flips: Bool[Tensor, "N"],
    padding: int,
    fill: Sequence[float],
) -> UInt8[Tensor, "N C H W"]:
    """Pad a batch, then crop and mirror each image.

    Args:
        pixels: (N, C, H, W).
        offsets: (N, 2), row and column of the crop in the padded image, 0 to 2 * padding.
        flips: (N,), whether the image is mirrored.
        padding: pixels on each side.
        fill: (C,), padding colour, 0 to 255.

    Returns:
        (N, C, H, W).
    """
    n, channels, height, width = pixels.shape
    if padding:
        colour = padding_colour(fill).view(1, -1, 1, 1)
        padded = colour.expand(n, channels, height + 2 * padding, width + 2 * padding).contiguous()
        padded[:, :, padding:-padding, padding:-padding] = pixels
        pixels = padded
    crops = pixels.new_empty(n, channels, height, width)
    # Image by image: a single gather takes six times as long for large images.
    for crop, image, (row, column) in zip(crops, pixels, offsets.tolist(), strict=True):
        crop.copy_(image[:, row : row + height, column : column + width])
    mirrored = flips.nonzero()[:, 0]
    crops[mirrored] = crops[mirrored].flip(-1)
    return crops
