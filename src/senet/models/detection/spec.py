"""Options of a detector, apart from those of its backbone."""

from dataclasses import dataclass, fields
from typing import Any

from senet.models.detector_names import MIN_SIZE
from senet.utils.errors import shown
from senet.utils.limits import LARGEST_SIDE, MOST_CHANNELS, check_at_most

__all__ = ["DETECTOR_OPTIONS", "STAGES", "DetectorSpec"]

# torchvision's number of stages that can be frozen: the stem and four stages.
STAGES = 5


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """The options of a detector; the defaults are torchvision's and the papers'.

    Attributes:
        min_size: pixels of the shorter side of the images.
        max_size: the most pixels of the longer side.
        anchor_sizes: side in pixels of the anchors of each map, the largest map first. None is 8 times the stride of
            the map in Faster R-CNN, and 4 times the stride in RetinaNet, which has anchors of 2^(1/3) and 2^(2/3)
            times the size too: 32, 64, 128, 256 and 512 with a ResNet for ImageNet.
        fpn_channels: channels of the feature pyramid, and of RetinaNet's heads.
        box_channels: channels of the two layers of Faster R-CNN's box head.
        trainable_stages: stages of the backbone to train, the deepest first; 5 trains all, 0 none. Frozen stages
            include their SE.
        freeze_bn: freeze the statistics, weights and biases of the backbone's batch norms; SE is trained.

    Raises:
        TypeError: a number or switch has another type.
        ValueError: a number is out of range.
    """

    min_size: int = MIN_SIZE
    max_size: int = 1333
    anchor_sizes: tuple[int, ...] | None = None
    fpn_channels: int = 256
    box_channels: int = 1024
    trainable_stages: int = STAGES
    freeze_bn: bool = False

    def __post_init__(self) -> None:
        for name, most in (
            ("min_size", LARGEST_SIDE),
            ("max_size", LARGEST_SIDE),
            ("fpn_channels", MOST_CHANNELS),
            ("box_channels", MOST_CHANNELS),
        ):
            _check_number(name, getattr(self, name), 1, most)
        if self.max_size < self.min_size:
            raise ValueError(f"max_size must be at least min_size ({self.min_size}), got {self.max_size}")
        _check_number("trainable_stages", self.trainable_stages, 0, STAGES)
        if type(self.freeze_bn) is not bool:
            raise TypeError(f"freeze_bn must be true or false, got {shown(self.freeze_bn)}")
        if self.anchor_sizes is not None:
            if not isinstance(self.anchor_sizes, list | tuple):
                raise TypeError(f"anchor_sizes must be a list of sides in pixels, got {shown(self.anchor_sizes)}")
            for size in self.anchor_sizes:
                _check_number("anchor_sizes", size, 1, LARGEST_SIDE)
            object.__setattr__(self, "anchor_sizes", tuple(self.anchor_sizes))

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as JSON holds them, without the sizes of images."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _IN_CFG}
        values = {name: value for name, value in values.items() if value != getattr(DetectorSpec, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


# Stored in `pretrained_cfg`.
_IN_CFG = ("min_size", "max_size")
DETECTOR_OPTIONS = tuple(field.name for field in fields(DetectorSpec))


def _check_number(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int:
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, got {value}")
    check_at_most(name, value, most)
