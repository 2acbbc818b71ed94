"""Small data sets on disk, and images that no one can read."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 10, height: int = 8) -> Image.Image:
    """Noise, which no two seeds share."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def write_classes(root: Path, classes: Mapping[str, int], suffix: str = ".png") -> Path:
    """Class folders of so many images each; the images are `picture(0)`, `picture(1)`, ... in order."""
    seed = 0
    for name, images in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            picture(seed).save(root / name / f"{number}{suffix}")
            seed += 1
    return root


def pack(folder: Path, prefix: str = "") -> Path:
    """A tar archive next to a folder, with the same content."""
    archive = folder.with_suffix(".tar")
    with tarfile.open(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.add(path, arcname=f"{prefix}{path.relative_to(folder)}", recursive=False)
    return archive


def corrupt_jpeg() -> bytes:
    """The first half of a JPEG."""
    file = io.BytesIO()
    picture(0, 64, 64).save(file, "JPEG")
    return file.getvalue()[: len(file.getvalue()) // 2]
