"""Open images in class folders, on disk or in a tar archive."""

import io
import os
from collections.abc import Set
from itertools import combinations
from pathlib import Path
from typing import IO

import numpy as np

from senet.data.decoding import KINDS
from senet.data.image_files import NONE_SKIPPED, SkippedFiles, image_paths, is_hidden
from senet.data.images import ImageData, Source, readable
from senet.data.shards.archives import images_in
from senet.data.sources.files import Files
from senet.utils.errors import DataError
from senet.utils.input_files import reading, same_name
from senet.utils.text import natural_key

__all__ = ["open_archive", "open_folder"]

# Names of the folders of splits, in lower case.
_SPLIT_NAMES = frozenset(
    ("train", "training", "val", "valid", "validation", "eval", "dev", "test", "testing", "holdout")
)


class _Members:
    """Images in an uncompressed archive, which is opened for each read: processes can share this object."""

    def __init__(self, path: Path, names: list[str], starts: list[int], sizes: list[int]) -> None:
        self._path, self._names = path, names
        self._starts, self._sizes = starts, sizes

    def read(self, index: int) -> IO[bytes]:
        with readable(self.name(index)), self._path.open("rb") as file:
            file.seek(self._starts[index])
            return io.BytesIO(file.read(self._sizes[index]))

    def name(self, index: int) -> str:
        return f"{self._path}/{self._names[index]}"


def open_folder(spec: str, root: Path, split: str) -> ImageData:
    """Open a folder of class folders, or one split of a folder with `train/` and `val/`.

    Args:
        spec: the spec, for messages.
        root: the folder.
        split: "train" or "val".

    Raises:
        DataError: there are no images, only one split, images outside of class folders, or a class without images.
    """
    has_splits = (root / "train").is_dir() and (root / "val").is_dir()
    folder = root / split if has_splits else root
    for here, missing in (("train", "val"), ("val", "train")):
        # A class may be called "train": its folder holds images, the folder of a split holds folders.
        if not has_splits and (root / here).is_dir() and any(p.is_dir() for p in (root / here).iterdir()):
            raise DataError(
                f"the folder {root} has {here}/ but no {missing}/; add it, or give {root / here} itself and the "
                f"validation data as --val-data or --val-fraction"
            )
    paths, folders, skipped = _images_below(folder)
    if not paths:
        others = f"; {skipped}" if skipped.count else ""
        raise DataError(f"found no images ({KINDS}) in class folders of {folder}{others}")
    # Both splits name their classes the same way: by paths, if either split needs paths.
    nested = has_splits and any(os.path.dirname(name) for name in set(folders))
    other = set(_images_below(root / ("val" if split == "train" else "train"))[1]) if nested else set()
    data = _of_folders(spec, Files(paths), folders, folder, has_splits, other, skipped)
    filled = {Path(name).parts[0] for name in set(folders)}
    empty = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in filled and not is_hidden(p.name))
    if empty:
        raise DataError(
            f"the class {empty[0]!r} of {folder} has no readable image ({KINDS}); add some or remove the folder"
        )
    return data


def _images_below(folder: Path) -> tuple[list[str], list[str], SkippedFiles]:
    """Return the image files below a folder in natural order, their folders relative to it, and the skipped files."""
    paths, skipped = image_paths(folder)
    at = len(os.path.join(folder, ""))
    return paths, [os.path.dirname(path)[at:] or "." for path in paths], skipped


def open_archive(spec: str, path: Path) -> ImageData:
    """Open an uncompressed .tar of class folders.

    Args:
        spec: the spec, for messages.
        path: the archive.

    Raises:
        DataError: the archive is damaged, or has one of the faults listed at `open_folder`.
    """
    with reading(path, "archive", error=DataError, remedy="give a whole, uncompressed .tar"):
        found, others = images_in(path)
    skipped = SkippedFiles.of(others)
    if not found:
        also = f"; {skipped}" if skipped.count else ""
        raise DataError(f"found no images ({KINDS}) in class folders of the archive {path}{also}")
    names, starts, sizes = (list(column) for column in zip(*found, strict=True))
    folders = [os.path.normpath(os.path.dirname(name)) for name in names]
    return _of_folders(spec, _Members(path, names, starts, sizes), folders, path, skipped=skipped)


def _of_folders(
    spec: str,
    source: Source,
    folders: list[str],
    top: Path,
    has_splits: bool = False,
    other: Set[str] = frozenset(),
    skipped: SkippedFiles = NONE_SKIPPED,
) -> ImageData:
    """Return images labelled by their folders.

    Args:
        spec: the spec, for messages.
        source: the images.
        folders: the folder of each image, relative to `top`.
        top: the folder or archive.
        has_splits: whether the data have a training and a validation split.
        other: folders of the other split, relative to its own top.
        skipped: files that are not images.

    Raises:
        DataError: images outside of class folders, nested class folders, or two folders for one class.
    """
    holding = set(folders)
    if holding == {"."} or (not has_splits and holding <= _SPLIT_NAMES):
        raise DataError(
            f"{top} holds images without class folders, such as {source.name(0)}; put the images of each class into a "
            f"folder named after it. ImageNet's own ILSVRC2012_img_val.tar, which has none, is sorted by "
            f"torchvision:ImageNet?root=DIR, where DIR holds it and ILSVRC2012_devkit_t12.tar.gz"
        )
    if "." in holding:
        stray = source.name(folders.index("."))
        raise DataError(f"the image {stray} is in no class folder; {top} must contain one folder for each class")
    nested = next((f for f in sorted(holding) if any(str(parent) in holding for parent in Path(f).parents)), None)
    if nested is not None:
        raise DataError(
            f"the folder {nested} of {top} holds images, and so does a folder that contains it: a class is named after "
            f"its innermost folder; move the images of the outer folder, or the images of {nested}"
        )
    named = {folder: same_name(name) for folder, name in _class_names(holding, other, top).items()}
    for one, two in combinations(sorted(holding), 2) if len(set(named.values())) < len(named) else ():
        if named[one] == named[two]:
            raise DataError(
                f"{top} has two folders for the class {named[one]!r}, written in different Unicode forms: {one!a} and "
                f"{two!a}; move the images of one into the other"
            )
    # Names that are equal in natural order, such as "1" and "01", keep the order of their folders.
    by_name = {named[folder]: folder for folder in sorted(holding)}
    classes = sorted(by_name, key=natural_key)
    index = {by_name[name]: label for label, name in enumerate(classes)}
    labels = np.array([index[folder] for folder in folders], dtype=np.int64)
    return ImageData(spec, source, labels, classes, has_splits=has_splits, skipped_files=skipped)


def _class_names(holding: Set[str], other: Set[str], top: Path) -> dict[str, str]:
    """Return the class name of each folder: the innermost name, or the whole path if innermost names are not unique.

    Raises:
        DataError: folders with one innermost name seem to be of two splits.
    """
    if all(len({os.path.basename(folder) for folder in folders}) == len(folders) for folders in (holding, other)):
        return {folder: os.path.basename(folder) for folder in holding}
    above = os.path.commonpath(holding) if len(holding) > 1 else ""
    below: dict[str, dict[str, str]] = {}  # {first part of the path that differs: {rest of the path: folder}}
    for folder in sorted(holding):
        first, *rest = Path(os.path.relpath(folder, above or ".")).parts
        below.setdefault(first, {})["/".join(rest)] = folder
    for one, two in combinations(below, 2):
        # Training and validation have the same classes; "a/airport/outdoor" and "b/balcony/outdoor" are two classes.
        splits = {one.lower(), two.lower()} <= _SPLIT_NAMES
        shared = sorted(set(below[one]) & set(below[two]))
        if shared and (splits or set(below[one]) == set(below[two])):
            raise DataError(
                f"{top} has two folders for the class {os.path.basename(shared[0])!r}, {below[one][shared[0]]} and "
                f"{below[two][shared[0]]}; rename one, or give them separately if they are two splits"
            )
    return {folder: folder.replace(os.sep, "/") for folder in holding}
