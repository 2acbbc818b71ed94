"""The kinds of spec: scikit-learn's digits, folders, tar archives, and torchvision's data sets."""

import inspect
import io
import os
import tarfile
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image

from senet.data.images import ImageData, Labels, Source, is_hidden
from senet.errors import DataError, unknown_name

__all__ = ["SPECS", "open_source"]

SPECS = (
    "digits, a folder with train/ and val/ of class folders, an uncompressed .tar of class folders, "
    "torchvision:NAME?root=DIR"
)


def open_source(spec: str, split: str) -> ImageData:
    """Open one split of a spec, or all of a spec that has no splits.

    Raises:
        DataError: no such data, none of it is an image, or a class has no image.
    """
    if not spec:
        raise DataError(f"the data have no name; give {SPECS}")
    if spec == "digits":
        return _digits(split)
    if spec.startswith("torchvision:"):
        return _torchvision(spec, split)
    path = Path(spec)
    if path.is_dir():
        return _folder(spec, path, split)
    if path.is_file() and path.suffix.lower() == ".tar":
        return _tar(spec, path)
    what = "is a file of another kind" if path.exists() else "does not exist"
    raise DataError(f"the data {spec!r} {what}; give {SPECS}")


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
    """Images in files of their own."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths

    def read(self, index: int) -> IO[bytes]:
        try:
            return open(self._paths[index], "rb")
        except OSError as error:
            raise DataError(f"cannot read the image {self.name(index)}: {error.strerror}") from error

    def name(self, index: int) -> str:
        return self._paths[index]


class _Members:
    """Images in an archive. They lie in it as they are, so that nothing stays open: processes can share this."""

    def __init__(self, path: Path, names: list[str], starts: list[int], sizes: list[int]) -> None:
        self._path, self._names = path, names
        self._starts, self._sizes = starts, sizes

    def read(self, index: int) -> IO[bytes]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._starts[index])
                return io.BytesIO(file.read(self._sizes[index]))
        except OSError as error:
            raise DataError(f"cannot read the image {self.name(index)}: {error.strerror}") from error

    def name(self, index: int) -> str:
        return f"{self._path}/{self._names[index]}"


def _folder(spec: str, root: Path, split: str) -> ImageData:
    from timm.data.readers.reader_image_folder import ReaderImageFolder

    has_splits = (root / "train").is_dir() and (root / "val").is_dir()
    folder = root / split if has_splits else root
    for here, missing in (("train", "val"), ("val", "train")):
        # A class may be called "train": its folder holds images, and that of a split holds folders.
        if not has_splits and (root / here).is_dir() and any(p.is_dir() for p in (root / here).iterdir()):
            raise DataError(
                f"the folder {root} has {here}/ but no {missing}/; add it, or give {root / here} itself and the "
                f"validation data as --val-data or --val-fraction"
            )
    try:
        samples = ReaderImageFolder(str(folder)).samples
    except RuntimeError:
        samples = []
    paths = [path for path, _ in samples if not is_hidden(os.path.relpath(path, folder))]
    if not paths:
        raise DataError(f"found no images ({_extensions()}) in class folders of {folder}")
    relative = {parent: os.path.relpath(parent, folder) for parent in {os.path.dirname(path) for path in paths}}
    folders = [relative[os.path.dirname(path)] for path in paths]
    data = _of_folders(spec, _Files(paths), folders, folder, has_splits)
    filled = {Path(name).parts[0] for name in relative.values()}
    empty = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in filled and not is_hidden(p.name))
    if empty:
        raise DataError(
            f"the class {empty[0]!r} of {folder} has no readable image ({_extensions()}); add some or remove the folder"
        )
    return data


def _tar(spec: str, path: Path) -> ImageData:
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar

    try:
        # No cache of the archive's index: it would be written beside the archive, as a pickle.
        reader = ReaderImageInTar(str(path), cache_tarinfo=False)
        cut_short = _is_cut_short(path)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"cannot read the archive {path}: {error}; give a whole, uncompressed .tar") from error
    except (ValueError, AssertionError) as error:
        raise DataError(f"found no images ({_extensions()}) in class folders of the archive {path}") from error
    if cut_short:
        raise DataError(f"the archive {path} is cut short: it lacks the zeros that end a .tar; copy or make it anew")
    names, starts, sizes = [], [], []
    for member, _, parent in reader.samples:  # `parent` is the archive in the archive that has the member
        if is_hidden(member.name):
            continue
        names.append(os.path.join(os.path.splitext(parent.name)[0] if parent else "", member.name))
        starts.append(member.offset_data + (parent.offset_data if parent else 0))
        sizes.append(member.size)
    if not names:
        raise DataError(f"found no images ({_extensions()}) in class folders of the archive {path}")
    folders = [os.path.normpath(os.path.dirname(name)) for name in names]
    return _of_folders(spec, _Members(path, names, starts, sizes), folders, path, False)


def _is_cut_short(archive: Path) -> bool:
    # Python takes an archive that ends between two members, or in a header, for a whole one.
    with archive.open("rb") as file:
        file.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
        return any(file.read())


def _of_folders(spec: str, source: Source, folders: list[str], top: Path, has_splits: bool) -> ImageData:
    """Images whose classes are called by their innermost folders, which are given relative to `top`."""
    from timm.utils.misc import natural_key

    if "." in folders:
        stray = source.name(folders.index("."))
        raise DataError(f"the image {stray} lies in no class folder; {top} is to hold folders named by class")
    by_class: dict[str, str] = {}
    for folder in sorted(set(folders)):
        other = by_class.setdefault(os.path.basename(folder), folder)
        if other != folder:
            raise DataError(
                f"{top} has two folders for the class {os.path.basename(folder)!r}, {other} and {folder}; rename one, "
                f"or give them apart if they are two splits"
            )
    holding = set(by_class.values())
    nested = next((f for f in by_class.values() if any(str(parent) in holding for parent in Path(f).parents)), None)
    if nested is not None:
        raise DataError(
            f"the folder {nested} of {top} holds images, and so does a folder that it is in: a class is called by its "
            f"innermost folder; move the images of the outer one, or those of {nested}"
        )
    # Names that the natural order takes for equal, such as "1" and "01", stay in the order of their folders.
    classes = sorted(by_class, key=natural_key)
    index = {by_class[name]: label for label, name in enumerate(classes)}
    labels = np.array([index[folder] for folder in folders], dtype=np.int64)
    return ImageData(spec, source, labels, classes, has_splits=has_splits)


def _extensions() -> str:
    from timm.data.readers.img_extensions import get_img_extensions

    return ", ".join(get_img_extensions())


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
    known = [n for n in datasets.__all__ if inspect.isclass(getattr(datasets, n))]
    if name not in known:
        unknown = unknown_name("data set of torchvision", name, known)
        raise DataError(f"{spec!r} is to read torchvision:NAME?root=DIR: {unknown}")
    kind = getattr(datasets, name)
    if set(options) != {"root"}:
        raise DataError(f"{spec!r} is to read torchvision:{name}?root=DIR, with root and nothing else")
    parameters = inspect.signature(kind).parameters
    data_set, labels = _open_torchvision(kind, options["root"], split, parameters)
    classes = [str(c) for c in getattr(data_set, "classes", range(int(labels.max()) + 1))]
    has_splits = bool({"train", "split"} & set(parameters))
    return ImageData(spec, _Torchvision(data_set, f"{name} {split}"), labels, classes, has_splits=has_splits)


def _open_torchvision(kind: Any, root: str, split: str, parameters: Any) -> tuple[Any, Labels]:
    """The data set and its labels; the test split of a set that has none for validation."""
    choices: list[dict[str, Any]] = [{}]
    if "train" in parameters:
        choices = [{"train": split == "train"}]
    elif "split" in parameters:
        choices = [{"split": name} for name in (["train"] if split == "train" else ["val", "valid", "test"])]
    failure: Exception | None = None
    for choice in choices:
        try:
            data_set = kind(root=root, **choice)
            return data_set, _labels(data_set)
        except (RuntimeError, OSError, ValueError, TypeError, AttributeError) as error:
            failure = error
    fetch = f"; to fetch it: torchvision.datasets.{kind.__name__}({root!r}, download=True)"
    raise DataError(
        f"cannot open torchvision's {kind.__name__} in {root}, split {split!r}: {failure}"
        f"{fetch if 'download' in parameters else ''}"
    ) from failure


def _labels(data_set: Any) -> Labels:
    for attribute in ("targets", "labels", "_labels"):
        if hasattr(data_set, attribute):
            return np.asarray(getattr(data_set, attribute), dtype=np.int64)
    raise AttributeError("its labels are not to be had without decoding every image")
