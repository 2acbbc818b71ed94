"""Small data sets in COCO's format."""

import json
from pathlib import Path
from typing import Any

from tests.images import picture

# Width and height of each image: landscape, portrait and square.
SIZES = ((40, 30), (24, 36), (50, 30), (30, 30), (20, 41))
# Not consecutive, and not in the order of the file.
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def boxes_of(image: int) -> list[list[float]]:
    """x, y, width and height of the boxes of an image: one of each class, inside of every size."""
    return [[1 + image % 3, 2, 12, 15.5], [4.25, 3, 9 + image % 4, 20]]


def content(images: int) -> dict[str, Any]:
    """The object of an annotation file."""
    sizes = [SIZES[number % len(SIZES)] for number in range(images)]
    annotations = [
        {"image_id": 10 + number, "category_id": category, "bbox": box, "iscrowd": 0}
        for number in range(images)
        for category, box in zip((7, 3), boxes_of(number), strict=True)
    ]
    return {
        "images": [
            {"id": 10 + number, "file_name": f"{number}.png", "width": width, "height": height}
            for number, (width, height) in enumerate(sizes)
        ],
        "annotations": [{"id": 100 + number, **one} for number, one in enumerate(annotations)],
        "categories": CATEGORIES,
    }


def write_coco(root: Path, train: int = 5, val: int = 2) -> Path:
    """A folder for `coco:DIR`; the images are `picture(0)`, `picture(1)`, ... in each split."""
    for split, images in (("train", train), ("val", val)):
        (root / split).mkdir(parents=True)
        for number in range(images):
            picture(number, *SIZES[number % len(SIZES)]).save(root / split / f"{number}.png")
        rewrite(root, content(images), split)
    return root


def rewrite(root: Path, whole: Any, split: str = "train") -> None:
    """Write an annotation file."""
    (root / f"{split}.json").write_text(whole if isinstance(whole, str) else json.dumps(whole), encoding="utf-8")
