"""The kinds of spec: scikit-learn's digits, folders, tar archives, and torchvision's data sets."""

import inspect
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image

from senet.data.images import ImageData, Labels
from senet.errors import DataError, unknown_name

__all__ = ["SPECS", "open_source"]

SPECS = "digits, a folder with train/ and val/ of class folders, a .tar of class folders, torchvision:NAME?root=DIR"


def open_source(spec: str, split: str) -> ImageData:
    """Open one split of a spec, or all of a spec that has no splits.

    Raises:
        DataError: no such data, none of it is an image, or a class has no image.
    """
    if spec == "digits":
        return _digits(split)
    if spec.startswith("torchvision:"):
        return _torchvision(spec, split)
    path = Path(spec)
    if path.is_dir():
        return _folder(spec, path, split)
    if path.is_file() and tarfile_name(path):
        return _tar(spec, path)
    what = "is a file of another kind" if path.exists() else "does not exist"
    raise DataError(f"the data {spec!r} {what}; give {SPECS}")


def tarfile_name(path: Path) -> bool:
    """Whether a path is called as an archive is that can be read at any place; compressed ones cannot."""
    return path.suffix == ".tar"


class _Arrays:
    """Images that are in memory, (N, H, W, 3) or (N, H, W), 8 bits."""

    def __init__(self, images: np.ndarray[Any, Any], name: str) -> None:
        self._images, self._name = images, name

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self._images[index])

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"


def _digits(split: str) -> ImageData:
    """Handwritten digits from scikit-learn: 1,797 real images of 8x8, enlarged to 32x32.

    Every fifth of a class is for validation, so that the split needs no random numbers.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("the data 'digits' need scikit-learn: pip install 'senet[demo]'") from error
    images, labels = load_digits(return_X_y=True)
    small = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    large = np.stack([np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BICUBIC)) for i in small])
    rank = np.zeros(len(labels), dtype=np.int64)
    for label in range(10):
        rank[labels == label] = np.arange((labels == label).sum())
    chosen = np.flatnonzero((rank % 5 == 4) == (split == "val"))
    data = ImageData("digits", _Arrays(large, "digits"), labels, [str(n) for n in range(10)], has_splits=True)
    return data.subset(chosen)


class _Files:
    """A reader of timm's: files in a folder or in a tar archive."""

    def __init__(self, open_reader: Callable[[], Any]) -> None:
        self._open = open_reader
        self._reader = open_reader()
        self._process = os.getpid()

    @property
    def reader(self) -> Any:
        # A worker process must not share the position in an open archive with the others.
        if self._process != os.getpid():
            self._reader, self._process = self._open(), os.getpid()
        return self._reader

    def read(self, index: int) -> IO[bytes]:
        try:
            return self.reader[index][0]  # type: ignore[no-any-return]
        except (OSError, tarfile.TarError, KeyError) as error:
            raise DataError(f"cannot read the image {self.name(index)}: {error}") from error

    def name(self, index: int) -> str:
        return str(self._reader.filename(index, absolute=True))


def _folder(spec: str, root: Path, split: str) -> ImageData:
    from timm.data.readers.reader_image_folder import ReaderImageFolder

    has_splits = (root / "train").is_dir() and (root / "val").is_dir()
    folder = root / split if has_splits else root
    if not has_splits and any((root / part).is_dir() for part in ("train", "val")):
        missing = "val" if (root / "train").is_dir() else "train"
        raise DataError(f"the folder {root} has no {missing}/ beside the other split; give its class folders alone")
    try:
        files = _Files(lambda: ReaderImageFolder(str(folder)))
    except RuntimeError as error:
        raise DataError(f"found no images in class folders of {folder}: {error}") from error
    samples = files.reader.samples
    data = _from_reader(spec, files, [target for _, target in samples], files.reader.class_to_idx, has_splits)
    stray = [path for path, target in samples if data.classes[target] == ""]
    if stray:
        raise DataError(f"the image {stray[0]} lies in no class folder; {folder} is to hold folders named by class")
    empty = sorted(p.name for p in folder.iterdir() if p.is_dir() and not _holds_image(p, data.classes))
    if empty:
        raise DataError(f"the class {empty[0]!r} of {folder} has no readable image; add some or remove the folder")
    return data


def _holds_image(folder: Path, classes: list[str]) -> bool:
    # A class is called by its innermost folder.
    return folder.name in classes or any(p.is_dir() and p.name in classes for p in folder.rglob("*"))


def _tar(spec: str, path: Path) -> ImageData:
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar

    try:
        # No cache of the archive's index: it would be written beside the archive, as a pickle.
        files = _Files(lambda: ReaderImageInTar(str(path), cache_tarinfo=False))
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"cannot read the archive {path}: {error}") from error
    except (ValueError, AssertionError) as error:
        raise DataError(f"found no images in class folders of the archive {path}") from error
    data = _from_reader(spec, files, files.reader.targets, files.reader.class_name_to_idx, False)
    if "" in data.classes:
        raise DataError(f"the archive {path} has images outside of class folders, such as {data.name(0)}")
    return data


def _from_reader(spec: str, files: _Files, targets: Any, class_to_idx: dict[str, int], has_splits: bool) -> ImageData:
    classes = sorted(class_to_idx, key=class_to_idx.__getitem__)
    return ImageData(spec, files, np.array(targets, dtype=np.int64), classes, has_splits=has_splits)


class _Torchvision:
    """A data set of torchvision's, of (image, label) pairs."""

    def __init__(self, data_set: Any, name: str) -> None:
        self._data_set, self._name = data_set, name

    def read(self, index: int) -> Image.Image:
        try:
            image: Image.Image = self._data_set[index][0]
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"cannot read the image {self.name(index)}: {error}") from error
        return image

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"


def _torchvision(spec: str, split: str) -> ImageData:
    import torchvision.datasets as datasets

    name, _, query = spec.removeprefix("torchvision:").partition("?")
    options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    kind = getattr(datasets, name, None)
    if name not in datasets.__all__ or not inspect.isclass(kind):
        raise DataError(unknown_name("data set of torchvision", name, datasets.__all__))
    if set(options) != {"root"}:
        raise DataError(f"{spec!r} is to read torchvision:{name}?root=DIR, with root and nothing else")
    parameters = inspect.signature(kind).parameters
    data_set, labels = _open_torchvision(kind, options, split, parameters)
    classes = [str(c) for c in getattr(data_set, "classes", range(int(labels.max()) + 1))]
    has_splits = bool({"train", "split"} & set(parameters))
    return ImageData(spec, _Torchvision(data_set, f"{name} {split}"), labels, classes, has_splits=has_splits)


def _open_torchvision(kind: Any, options: dict[str, Any], split: str, parameters: Any) -> tuple[Any, Labels]:
    """The data set and its labels; a set that calls its validation split "test" has that."""
    choices: list[dict[str, Any]] = [{}]
    if "train" in parameters:
        choices = [{"train": split == "train"}]
    elif "split" in parameters:
        choices = [{"split": name} for name in (["train"] if split == "train" else ["val", "test"])]
    for last, choice in enumerate(choices, 1 - len(choices)):
        try:
            data_set = kind(**options, **choice)
            return data_set, _labels(data_set)
        except (RuntimeError, OSError, ValueError, TypeError, AttributeError) as error:
            if last == 0:
                where = f"{kind.__name__} in {options['root']}"
                raise DataError(f"cannot open torchvision's {where}, split {split!r}: {error}") from error
    raise AssertionError


def _labels(data_set: Any) -> Labels:
    for attribute in ("targets", "labels", "_labels"):
        if hasattr(data_set, attribute):
            return np.asarray(getattr(data_set, attribute), dtype=np.int64)
    raise AttributeError("its labels are not to be had without decoding every image")
