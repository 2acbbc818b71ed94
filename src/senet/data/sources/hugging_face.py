"""Open data sets of Hugging Face: `hf:NAME?split=SPLIT`, from the hub, the cache, or the disk."""

import inspect
import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from senet.data.class_names import ordered
from senet.data.images import ImageData, Labels, Source, options_of, readable
from senet.utils.errors import DataError, UnreadableImageError, unknown_name
from senet.utils.extras import optional_import
from senet.utils.input_files import same_name

__all__ = ["open_hugging_face"]

# Options of a spec: senet's own, and those that `datasets.load_dataset` takes.
_OWN = ("split", "image", "label", "streaming")
_LOADING = ("name", "data_dir", "data_files", "revision")

# Names of validation splits, in order of preference.
_VALIDATION = ("validation", "valid", "val", "test")


def open_hugging_face(spec: str, split: str) -> ImageData:
    """Open one split of a data set of Hugging Face.

    A split named in the spec, `split=`, is used as the whole data set. No code of a data set is ever run.

    Raises:
        DataError: the package `datasets` is missing; the data set, split or column does not exist, or is not
            available without the network; there is no column of images or classes; images have no label.
    """
    name, options = options_of(spec)
    for key in options:
        if key not in (*_OWN, *_LOADING):
            raise DataError(f"{spec!r}: {unknown_name('option of hf:', key, (*_OWN, *_LOADING))}")
    if not name:
        raise DataError(f"invalid spec {spec!r}: expected hf:NAME?split=SPLIT, with the name or folder of a data set")
    streaming = options.get("streaming", "false").lower()
    if streaming not in ("true", "false"):
        raise DataError(f"{spec!r}: streaming must be true or false, got {streaming!r}")
    splits = _splits(spec, name, options, streaming == "true")
    chosen, has_splits = (options["split"], False) if "split" in options else _choose(spec, list(splits), split)
    if chosen not in splits:
        raise DataError(f"{spec!r}: {unknown_name('split', chosen, splits)}")
    return _image_data(spec, splits[chosen], options, f"hf:{name} {chosen}", has_splits)


def _splits(spec: str, name: str, options: Mapping[str, str], streaming: bool) -> Mapping[str, Any]:
    """Return the splits by name; if the options name a split, that one alone."""
    with optional_import("train", f"{spec!r} needs Hugging Face's datasets", DataError):
        from datasets import Dataset, load_dataset, load_from_disk
    saved = any((Path(name) / file).is_file() for file in ("state.json", "dataset_dict.json"))
    arguments: dict[str, Any] = {key: value for key, value in options.items() if key in _LOADING}
    try:
        if saved:
            if arguments:
                raise ValueError(f"a folder of save_to_disk takes no {', '.join(arguments)}")
            data = load_from_disk(name)
            if isinstance(data, Dataset):
                return {str(data.split or options.get("split", "train")): data}
            return dict(data)
        # Versions of `datasets` that can run a data set's code have this option; later ones cannot run code.
        if "trust_remote_code" in inspect.signature(load_dataset).parameters:
            arguments["trust_remote_code"] = False
        if "split" in options:
            wanted = options["split"]
            return {wanted: load_dataset(name, split=wanted, streaming=streaming, **arguments)}
        return dict(load_dataset(name, streaming=streaming, **arguments))
    # The hub, its cache, the network and every file format raise errors of their own.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"cannot open {spec!r}: {reason}; a name on the hub is read from the cache once it is there, and otherwise "
            f"needs the network; data on the disk are hf:FOLDER, hf:imagefolder?data_dir=DIR or "
            f"hf:parquet?data_files=FILES"
        ) from error


def _choose(spec: str, splits: list[str], split: str) -> tuple[str, bool]:
    """Return the name of a split, and whether the data have both; a single split serves as either."""
    validation = next((name for name in _VALIDATION if name in splits), None)
    both = "train" in splits and validation is not None
    if both or len(splits) > 1:
        found = validation if split == "val" else "train" if "train" in splits else None
        if found is None:
            raise DataError(f"{spec!r} has the splits {', '.join(splits)}; choose one with split=")
        return found, both
    return splits[0], False


def _image_data(spec: str, data: Any, options: Mapping[str, str], called: str, has_splits: bool) -> ImageData:
    """Return a split as images with labels."""
    from datasets import Dataset, Image

    in_memory = not isinstance(data, Dataset)
    features = data.features or {}  # unknown for some files until they are read
    if not features:
        raise DataError(f"{spec!r} does not say what its columns hold; open it without streaming=true")
    image = _column(spec, features, "Image", "image", options)
    label = _column(spec, features, "ClassLabel", "label", options)
    kind = features[label]
    try:
        # Other columns are not read, and images stay encoded: senet decodes them like all other images.
        data = data.select_columns([image, label]).cast_column(image, Image(decode=False))
        if in_memory:
            rows = list(data)  # read once, in order
            source: Source = _Encoded([_content(row[image]) for row in rows], called)
            raw = [row[label] for row in rows]
        else:
            data = data.with_format(None)  # a format is saved with the data
            source = _Rows(data, image, called)
            raw = data.select_columns([label])[:][label]
    except Exception as error:  # as above: any file format, or the network
        raise DataError(f"cannot read {spec!r}: {' '.join(str(error).split())}") from error
    labels, classes = _classes(spec, raw, kind, label, called)
    return ImageData(spec, source, labels, classes, has_splits=has_splits)


def _column(spec: str, features: Mapping[str, Any], kind: str, key: str, options: Mapping[str, str]) -> str:
    """Return the column that an option names, or the only column of a type."""
    if key in options:
        if options[key] not in features:
            raise DataError(f"{spec!r}: {unknown_name('column', options[key], features)}")
        return options[key]
    found = [column for column, feature in features.items() if type(feature).__name__ == kind]
    if len(found) != 1:
        what = f"has {len(found)} columns of the type {kind}" + (f" ({', '.join(found)})" if found else "")
        raise DataError(f"{spec!r} {what}; give {key}=COLUMN, one of {', '.join(found or features)}")
    return found[0]


def _classes(spec: str, raw: list[Any], kind: Any, column: str, called: str) -> tuple[Labels, list[str]]:
    """Return class indices (N,) and the names of the classes."""
    if not raw:
        raise DataError(f"{called} has no images")
    hidden = sum(value is None or value == -1 for value in raw)
    if hidden:
        raise DataError(
            f"{hidden} of {len(raw)} images of {called} have no label (-1 or none in the column {column!r}): "
            f"labels are hidden in that split; give another one with split="
        )
    if all(isinstance(value, str) for value in raw):
        raw = [same_name(value) for value in raw]
        classes = ordered(list(set(raw)))
        index = {name: number for number, name in enumerate(classes)}
        return np.array([index[value] for value in raw], dtype=np.int64), classes
    if not all(isinstance(value, int) and value >= 0 for value in raw):
        raise DataError(
            f"{spec!r}: the column {column!r} ({kind}) does not hold classes; give label=COLUMN of whole numbers"
        )
    labels = np.array(raw, dtype=np.int64)
    return labels, list(getattr(kind, "names", None) or map(str, range(int(labels.max()) + 1)))


def _content(value: Any) -> bytes | None:
    """Return the encoded image of a row, from the row or its file; None if the row has none."""
    if value is None:
        return None
    content: bytes | None = value["bytes"]
    if content is None and value["path"] is not None:
        import fsspec

        with fsspec.open(value["path"], "rb") as file:
            content = file.read()
    return content


class _Rows:
    """Images in the rows of a memory-mapped data set: processes can share it."""

    def __init__(self, data: Any, column: str, name: str) -> None:
        self._data, self._column, self._name = data, column, name

    def read(self, index: int) -> IO[bytes]:
        with readable(self.name(index)):
            content = _content(self._data[index][self._column])
        return _file(content, self.name(index))

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"


class _Encoded:
    """Encoded images in memory."""

    def __init__(self, images: list[bytes | None], name: str) -> None:
        self._images, self._name = images, name

    def read(self, index: int) -> IO[bytes]:
        return _file(self._images[index], self.name(index))

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"


def _file(content: bytes | None, name: str) -> IO[bytes]:
    if content is None:
        raise UnreadableImageError(name, "its row has no image")
    return io.BytesIO(content)
