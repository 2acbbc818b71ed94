"""torchvision's Places365 with file lists of any content: a part of the data, or other images in its layout."""

import os
import re

from torchvision.datasets import Places365 as _Released

__all__ = ["Places365"]

# The folder of a category's first letter: "/a/airfield", "/a/apartment_building/outdoor".
_LETTER = re.compile("^/[a-z]/")


class Places365(_Released):  # type: ignore[misc]
    """torchvision's class, which takes the released file lists alone, by their checksums.

    A folder has `categories_places365.txt` (lines "/a/airfield 0"), `places365_train_standard.txt` (lines
    "/a/airfield/00000001.jpg 0"), `places365_val.txt` (lines "Places365_val_00000001.jpg 165"), and the images in
    `data_256_standard/` and `val_256/` with small=true, or in `data_large_standard/` and `val_large/`.
    """

    def load_categories(self, download: bool = True) -> tuple[list[str], dict[str, int]]:
        """Return the categories in the order of their numbers, without "/a/", and the numbers by category."""
        _, numbers = super().load_categories(download)
        names = sorted(numbers, key=lambda name: numbers[name])
        if [numbers[name] for name in names] != list(range(len(names))):
            raise RuntimeError("categories_places365.txt must number its categories from 0, each with another number")
        return [_LETTER.sub("", name) for name in names], numbers

    def _check_integrity(self, file: str, md5: str, download: bool) -> bool:
        if not os.path.isfile(file):
            raise RuntimeError(f"there is no file {file}")
        return True
