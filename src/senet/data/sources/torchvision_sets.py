"""Open torchvision's classification data sets: `torchvision:NAME?root=DIR&option=value`."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from senet.data.image_files import NONE_SKIPPED, image_paths, is_hidden, is_image
from senet.data.images import ImageData, Labels, check_pixels, options_of, read_image, readable
from senet.utils.errors import DataError, UnreadableImageError, unknown_name
from senet.utils.input_files import reason_of

__all__ = ["open_torchvision"]

# {parameter: {split: values}}; the first value that the data set accepts is used.
_SPLITS: dict[str, dict[str, tuple[Any, ...]]] = {
    "train": {"train": (True,), "val": (False,)},
    "split": {"train": ("train", "train-standard", "trainval"), "val": ("val", "valid", "validation", "test")},
    "version": {"train": ("2021_train",), "val": ("2021_valid",)},
}

# Not options of a spec: functions, and options that write to the disk.
_NO_OPTIONS = {"self", "transform", "target_transform", "transforms", "download", "loader", "is_valid_file"}

# Data sets that are not images with one class each.
_REFUSED = {
    "its labels are boxes around objects": ("CocoDetection", "Kitti", "VOCDetection", "WIDERFace"),
    "its labels are segmentations": ("Cityscapes", "SBDataset", "VOCSegmentation"),
    "its labels are sentences": ("CocoCaptions", "Flickr8k", "Flickr30k", "SBU"),
    "it is video": ("HMDB51", "Kinetics", "MovingMNIST", "UCF101"),
    "its labels are optical flow": ("FlyingChairs", "FlyingThings3D", "HD1K", "KittiFlow", "Sintel"),
    "its labels are depths from pairs of images": (
        *("CREStereo", "CarlaStereo", "ETH3DStereo", "FallingThingsStereo", "InStereo2k", "Kitti2012Stereo"),
        *("Kitti2015Stereo", "Middlebury2014Stereo", "SceneFlowStereo", "SintelStereo"),
    ),
    "it is pairs of images, the same or not": ("LFWPairs", "PhotoTour"),
    "an image has several labels": ("CelebA",),
    "its images are random noise": ("FakeData",),
    "it is a base class; torchvision:ImageFolder takes class folders": ("DatasetFolder", "VisionDataset"),
    "torchvision keeps its index as a pickle in the working folder; write it into class folders": ("LSUN", "LSUNClass"),
}

# Their `download=True` is an error.
_NOT_FETCHED = ("LFWPeople", "StanfordCars")

# Options whose labels are not classes.
_NO_CLASSES = {("target_type", "annotation"), ("target_types", "segmentation")}


def open_torchvision(spec: str, split: str) -> ImageData:
    """Open one split of a data set of torchvision that is on the disk.

    A split named in the spec, `split=`, `train=`, `version=` or `what=`, is used as the whole data set.

    Raises:
        DataError: the data set does not exist or is not for classification; an option or value is invalid; the folder
            lacks the data or their labels.
    """
    name, options = options_of(spec)
    kind = _kind(spec, name)
    parameters = _parameters(kind)
    given = _converted(spec, name, options, parameters)
    chosen = next((parameter for parameter in _SPLITS if parameter in parameters), None)
    fixed = [key for key in ("what", chosen) if key in given]
    values = () if chosen is None or fixed else _SPLITS[chosen][split]
    called = {True: "train", False: "test"}.get(given[fixed[0]], given[fixed[0]]) if fixed else split
    data_set, make = _opened(kind, given, [{chosen: value} for value in values] or [{}], parameters, called)
    labels, names = _labels_and_names(data_set, kind, called)
    source = _Torchvision(data_set, f"{name} {called}", make)
    skipped = image_paths(data_set.root)[1] if name == "ImageFolder" else NONE_SKIPPED
    data = ImageData(spec, source, labels, names, has_splits=bool(values), skipped_files=skipped)
    return data.subset(_order(data_set, len(labels)))


def _kind(spec: str, name: str) -> Any:
    """Return the class of a data set by its name."""
    import torchvision.datasets as datasets

    known = [n for n in datasets.__all__ if inspect.isclass(getattr(datasets, n))]
    for reason, refused in _REFUSED.items():
        known = [n for n in known if n not in refused]
        if name in refused:
            raise DataError(f"torchvision's {name} is not for classification here: {reason}")
    if name not in known:
        unknown = unknown_name("data set of torchvision", name, known)
        raise DataError(f"invalid spec {spec!r}: expected torchvision:NAME?root=DIR: {unknown}")
    if name == "Places365":
        from senet.data.sources.places365 import Places365

        return Places365
    return getattr(datasets, name)


def _parameters(kind: Any) -> dict[str, inspect.Parameter]:
    """Return a constructor's parameters, with the base class's where it passes `**kwargs` to it."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        own = inspect.signature(base.__init__).parameters
        found = {**own, **found}
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in own.values()):
            break
    return {key: value for key, value in found.items() if value.kind is not inspect.Parameter.VAR_KEYWORD}


def _converted(
    spec: str, name: str, options: Mapping[str, str], parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
    """Return the options of a spec as arguments of the constructor."""
    known = [key for key in parameters if key not in _NO_OPTIONS]
    for key, value in options.items():
        if key not in known:
            raise DataError(f"{spec!r}: {unknown_name(f'option of torchvision:{name}', key, known)}")
        if (key, value) in _NO_CLASSES:
            raise DataError(f"{spec!r}: {key}={value} gives no class for an image; leave it out")
    lacking = [k for k in known if parameters[k].default is inspect.Parameter.empty and k not in options]
    if lacking:
        example = "&".join(f"{key}={'DIR' if key == 'root' else 'VALUE'}" for key in lacking)
        raise DataError(f"{spec!r} lacks {', '.join(lacking)}: add {'&' if '?' in spec else '?'}{example}")
    arguments: dict[str, Any] = {key: _value(spec, key, text, parameters[key]) for key, text in options.items()}
    if "root" in arguments:
        arguments["root"] = os.path.expanduser(arguments["root"])
    return arguments


def _value(spec: str, key: str, text: str, parameter: inspect.Parameter) -> object:
    """Return the value of an option in the type of its parameter."""
    types = {type(parameter.default), parameter.annotation, *get_args(parameter.annotation)}
    if bool in types:
        truth = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in truth:
            raise DataError(f"{spec!r}: {key} must be true or false, got {text!r}")
        return truth[text.lower()]
    if int in types:
        try:
            return int(text)
        except ValueError as error:
            raise DataError(f"{spec!r}: {key} must be a whole number, got {text!r}") from error
    return text


def _opened(
    kind: Any,
    given: Mapping[str, Any],
    choices: Sequence[Mapping[Any, Any]],
    parameters: Mapping[str, inspect.Parameter],
    split: str,
) -> tuple[Any, Callable[[], Any]]:
    """Return the data set, with the first split of `choices` that it accepts, and a function that builds it again."""
    # The default of `download` is True for some.
    own = {"download": False, "loader": _load, "is_valid_file": partial(_is_taken, given.get("root", ""))}
    fixed = {key: value for key, value in own.items() if key in parameters}
    failure: Exception | None = None
    arguments: dict[str, Any] = {**given, **choices[0]}
    if "root" in given and not Path(given["root"]).is_dir():
        choices, failure = [], FileNotFoundError("there is no such folder")  # some data sets would create it
    for choice in choices:
        arguments = {**given, **choice}
        make = partial(kind, **arguments, **fixed)
        try:
            return make(), make
        # Some forty readers raise errors of many classes on missing or damaged data.
        except Exception as error:
            missing = error if isinstance(error, ImportError) else error.__context__
            if isinstance(missing, ImportError):
                message = f"torchvision's {kind.__name__} needs {missing.name}: pip install {missing.name}"
                raise DataError(message) from error
            failure = error
            if not str(error).startswith("Unknown value"):
                break  # the split exists but is not readable; another one would be other data
    root = arguments.pop("root", None)
    message = f"cannot open torchvision's {kind.__name__} in {root}, split {split!r}: {failure}"
    if "download" in parameters and kind.__name__ not in _NOT_FETCHED:
        others = "".join(f"{key}={value!r}, " for key, value in arguments.items())
        message += f"; to download it: torchvision.datasets.{kind.__name__}({root!r}, {others}download=True)"
    raise DataError(message) from failure


def _is_taken(root: str, path: str) -> bool:
    """Return whether torchvision's ImageFolder takes a file, by the rules for other folders."""
    return is_image(path) and not is_hidden(os.path.relpath(path, root))


def _load(path: str | Path) -> Image.Image:
    """Read an image file as other specs do: an error names the file, and 16 bits are kept."""
    try:
        return read_image(open(path, "rb"), str(path))
    except OSError as error:
        raise UnreadableImageError(path, reason_of(error)) from error


def _labels_and_names(data_set: Any, kind: Any, split: str) -> tuple[Labels, list[str]]:
    """Return class indices (N,) of all images, without decoding any, and the names of the classes."""
    raw, names = _kept(data_set)
    if raw is None:
        raise DataError(
            f"cannot open torchvision's {kind.__name__}: its labels are available only by decoding every image"
        )
    raw = raw.tolist() if hasattr(raw, "tolist") else raw
    if len(raw) == 0:
        raise DataError(f"torchvision's {kind.__name__}, split {split!r}, has no images")
    if any(label is None for label in raw) or min(raw) < 0:
        raise DataError(
            f"torchvision's {kind.__name__}, split {split!r}, has images without labels; give another split"
        )
    labels = np.asarray(raw, dtype=np.int64)
    # Synonyms are joined into one name, as in timm: "tench, Tinca tinca".
    texts = [name if isinstance(name, str) else ", ".join(name) for name in names or ()]
    texts = texts or [str(label) for label in range(int(labels.max()) + 1)]
    if labels.max() >= len(texts):
        raise DataError(
            f"torchvision's {kind.__name__} has the label {labels.max()}, but only {len(texts)} class names"
        )
    return labels, texts


def _kept(data_set: Any) -> tuple[Any, Any]:
    """Return the labels and class names that a data set stores, None where it stores none."""
    kinds = (getattr(data_set, key, None) for key in ("classes", "categories", "_classes", "class_to_idx"))
    names = next(filter(None, kinds), None)
    if "binary-category" in getattr(data_set, "_target_types", ()):  # OxfordIIITPet
        return data_set._bin_labels, data_set.bin_classes
    if hasattr(data_set, "categories_map"):  # INaturalist, whose label is of one rank of the taxonomy
        (rank,) = data_set.target_type
        full = [category for category, _ in data_set.index]
        if rank == "full":
            return full, data_set.all_categories
        return [data_set.categories_map[c][rank] for c in full], list(data_set.categories_index[rank])
    if hasattr(data_set, "_flat_character_images"):  # Omniglot
        return [label for _, label in data_set._flat_character_images], data_set._characters
    if hasattr(data_set, "h5py"):  # PCAM
        file = data_set._base_folder / data_set._FILES[data_set._split]["targets"][0]
        with data_set.h5py.File(file) as content:
            return np.asarray(content["y"]).reshape(-1), names
    for attribute in ("targets", "labels", "_labels", "y"):
        if hasattr(data_set, attribute):
            labels = getattr(data_set, attribute)
            # QMNIST stores eight numbers for an image; the first is the class.
            return [row[0] for row in labels.tolist()] if getattr(labels, "ndim", 1) == 2 else labels, names
    if hasattr(data_set, "_samples"):  # pairs of an image, or its file, and its label
        return [label for _, label in data_set._samples], names
    return None, None


def _order(data_set: Any, images: int) -> Labels:
    """Return an order of the images that does not depend on the disk: two data sets use the folder's listing order."""
    if hasattr(data_set, "categories_map"):
        return np.array(sorted(range(images), key=data_set.index.__getitem__))
    if type(data_set).__name__ == "SUN397":
        return np.array(sorted(range(images), key=data_set._image_files.__getitem__))
    return np.arange(images)


class _Torchvision:
    """Images of a data set of torchvision, which holds (image, label) pairs."""

    def __init__(self, data_set: Any, name: str, make: Callable[[], Any]) -> None:
        self._data_set, self._name, self._make = data_set, name, make

    def __getstate__(self) -> dict[str, Any]:
        # PCAM holds a module, which cannot be pickled: the other process opens the data set again.
        state = self.__dict__.copy()
        if hasattr(self._data_set, "h5py"):
            del state["_data_set"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_data_set" not in state:
            self._data_set = self._make()

    def read(self, index: int) -> Image.Image:
        with readable(self.name(index)):
            image: Image.Image = self._data_set[index][0]
            check_pixels(image.size)
            image.load()  # some data sets only open the file
            return image

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"
