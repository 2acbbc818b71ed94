"""A network of a few hundred weights, and a few images, by the part of the API that 0.1 has too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from senet.data import ImageData
from senet.models import CATALOGUE, ResNetSpec, table

FOLDER = Path(__file__).parent
NETWORK = "se_tiny"


def add_network() -> None:
    """Add the networks "tiny" and "se_tiny" to the catalogue of this process."""
    spec = ResNetSpec(
        units=(1, 1), channels=(4, 8), widths=(4, 8), bottleneck=False, stem="conv3", stem_channels=4, pool="none"
    )
    row = replace(CATALOGUE["resnet20"], spec=spec, se_name=NETWORK, num_classes=3)
    CATALOGUE["tiny"] = row
    table._PLAIN_NAMES[NETWORK] = "tiny"


def remove_network() -> None:
    """Undo `add_network`."""
    del CATALOGUE["tiny"], table._PLAIN_NAMES[NETWORK]


class _Squares:
    def read(self, index: int) -> Image.Image:
        """An image with a bright square whose place depends on its class."""
        pixels = np.random.default_rng(index).integers(0, 100, (8, 8, 3), dtype=np.uint8)
        corner = 2 * (index % 3)
        pixels[corner : corner + 3, corner : corner + 3] += 120
        return Image.fromarray(pixels)

    def name(self, index: int) -> str:
        return f"square {index}"


def squares() -> ImageData:
    """Twelve images of three classes."""
    return ImageData("squares", _Squares(), np.arange(12) % 3, ["low", "middle", "high"])


def image() -> torch.Tensor:
    """The input of the logits in `logits.pt`."""
    return torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)
