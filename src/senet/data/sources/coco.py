"""Images with boxes in COCO's format: folders of images, and a JSON file for each that describes them.

Everything is checked here, when the data are opened: ids, categories, boxes, and the header of each image file.
What cannot be used is left out, and is listed in `ImageData.faults`.
"""

import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from senet.data.boxes import BoxData, ImageBoxes
from senet.data.decoding import formats, upright_size
from senet.data.faults import AnnotationFault, check_faults
from senet.data.images import check_pixels, options_of, readable
from senet.data.sources.coco_entries import BoxEntry, CategoryEntry, ImageEntry, check_size, clipped, id_of
from senet.data.sources.files import Files
from senet.utils.errors import DataError, UnreadableImageError, shown, unknown_name
from senet.utils.input_files import parse_json, read_bytes, reading

__all__ = ["open_coco"]

# Bytes of an annotation file; COCO's own have 450 million.
_LARGEST = 4 * 2**30
# Of annotations; outlines are most of a file, and are not used.
_UNUSED = ("segmentation", "keypoints", "caption")
# Threads that read headers of images; a network file system takes milliseconds for each.
_THREADS = 8


def open_coco(spec: str, split: str) -> BoxData:
    """Open one split of `coco:DIR`, which has train/, train.json, val/ and val.json, or of `coco:?train=..&val=..`.

    A box may exceed its image by up to a pixel, and is cut. Images without boxes are faults in training only: in
    evaluation, every detection in them is wrong.

    Args:
        spec: "coco:DIR", or "coco:?train=IMAGES,FILE.json&val=IMAGES,FILE.json" with one of them or both.
        split: "train" or "val".

    Returns:
        The images in the order of the file, without the annotations in its `faults`; classes in the order of their ids.

    Raises:
        DataError: a file or folder is missing, a file is not COCO's JSON, its categories have faults, or no image can
            be used.
    """
    folder, path, has_splits = _location(spec, split)
    annotations = _Annotations(folder, path)
    annotations.read(trained=split == "train")
    images, faults = list(annotations.images.values()), annotations.faults
    if not images:
        check_faults(faults, f"{spec} has no image that can be used: {path}", skip=False)
        raise DataError(f"the annotation file {path} has no images")
    return BoxData(
        spec,
        Files([image.file for image in images]),
        [image.annotations() for image in images],
        annotations.classes,
        has_splits=has_splits,
        faults=faults,
    )


def _location(spec: str, split: str) -> tuple[Path, Path, bool]:
    """Return the folder of images and the annotation file of a split, and whether the spec has both splits.

    Raises:
        DataError: the spec is invalid, or one of them does not exist.
    """
    name, options = options_of(spec)
    for key in options:
        if key not in ("train", "val"):
            raise DataError(f"{spec!r}: {unknown_name('option of coco:', key, ['train', 'val'])}")
    if bool(name) == bool(options):
        raise DataError(f"{spec!r} must be coco:DIR, or coco:?train=IMAGES,FILE.json&val=IMAGES,FILE.json")
    if name:
        root = Path(os.path.expanduser(name))
        missing = [part for part in ("train.json", "train", "val.json", "val") if not (root / part).exists()]
        if missing:
            raise DataError(
                f"the folder {root} has no {missing[0]}; add train.json, val.json and folders of images train/ and "
                f"val/, or give coco:?train=IMAGES,FILE.json&val=IMAGES,FILE.json"
            )
        return root / split, root / f"{split}.json", True
    value = options.get(split) or next(iter(options.values()))
    folder, path = _pair(value, spec)
    if not folder.is_dir():
        raise DataError(f"{spec!r}: the folder of images {folder} does not exist")
    if not path.is_file():
        raise DataError(f"{spec!r}: the annotation file {path} does not exist")
    return folder, path, len(options) == 2


def _pair(value: str, spec: str) -> tuple[Path, Path]:
    """Return the folder and the file of `IMAGES,FILE.json`; names with commas are divided where both exist."""
    parts = value.split(",")
    pairs = [
        (Path(os.path.expanduser(",".join(parts[:n]))), Path(os.path.expanduser(",".join(parts[n:]))))
        for n in range(1, len(parts))
    ]
    if not pairs or not all(map(str.strip, (parts[0], parts[-1]))):
        raise DataError(f"{spec!r} has {value!r}: expected IMAGES,FILE.json, a folder of images and a file")
    return next((pair for pair in pairs if pair[0].is_dir() and pair[1].is_file()), pairs[-1])


@dataclass
class _Image:
    """An image that can be used, and its boxes: class, corners, area and crowd."""

    id: int
    file: str
    size: tuple[int, int]
    rows: list[tuple[int, list[float], float, bool]] = field(default_factory=list)

    def annotations(self) -> ImageBoxes:
        """Return the boxes as arrays."""
        return ImageBoxes(
            self.id,
            self.size,
            np.array([row[1] for row in self.rows], dtype=np.float32).reshape(-1, 4),
            np.array([row[0] for row in self.rows], dtype=np.int64),
            np.array([row[2] for row in self.rows], dtype=np.float32),
            np.array([row[3] for row in self.rows], dtype=np.bool_),
        )


class _Annotations:
    """The checked content of an annotation file.

    Args:
        folder: of the images.
        path: of the annotation file.

    Attributes:
        classes: names, in the order of their ids.
        images: images that can be used, by id and in the order of the file.
        faults: what is left out.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self.path = folder, path
        self.classes: list[str] = []
        self.images: dict[int, _Image] = {}
        self.faults: list[AnnotationFault] = []
        self._class_of: dict[int, int] = {}
        # Ids of images that are left out; their annotations are left out with them, and are not listed.
        self._left_out: set[int] = set()

    def read(self, trained: bool) -> None:
        """Read the file.

        Args:
            trained: leave out images without boxes.

        Raises:
            DataError: the file is not JSON of COCO's form, or its categories have faults.
        """
        content = read_bytes(self.path, "annotation file", _LARGEST, error=DataError)
        with reading(self.path, "annotation file", error=DataError):
            whole = parse_json(content, object_hook=_without_unused)
            images, annotations, categories = (_list_of(whole, key) for key in ("images", "annotations", "categories"))
        self._read_categories(categories)
        self._read_images(images)
        ids: set[int] = set()
        for number, entry in enumerate(annotations):
            self._read_annotation(entry, number, ids)
        if trained:
            self._leave_out_empty()

    def _read_categories(self, entries: list[Any]) -> None:
        problems: list[str] = []
        names: dict[int, str] = {}
        for number, entry in enumerate(entries):
            try:
                category = CategoryEntry.of(entry)
            except ValueError as error:
                problems.append(f"entry {number + 1}: {error}")
                continue
            if category.id in names:
                problems.append(f"the id {category.id} occurs twice, for {names[category.id]!r} and {category.name!r}")
            elif category.name in names.values():
                problems.append(f"two categories have the name {category.name!r}")
            names[category.id] = category.name
        if problems or not names:
            listed = "; ".join(problems[:10]) or "there are none"
            raise DataError(f"the categories of the annotation file {self.path} cannot be used: {listed}; correct them")
        self.classes = [names[number] for number in sorted(names)]
        self._class_of = {number: label for label, number in enumerate(sorted(names))}

    def _read_images(self, entries: list[Any]) -> None:
        counts = Counter(id_of(entry) for entry in entries)
        first: dict[str, int] = {}
        usable: list[ImageEntry] = []
        for number, entry in enumerate(entries):
            try:
                image = ImageEntry.of(entry)
                if counts[image.id] > 1:  # annotations of this id could be those of any
                    raise ValueError(f"{counts[image.id]} images have the same id; give each one of its own")
                if image.file_name in first:
                    raise ValueError(f"image {first[image.file_name]} has the same file; list each file once")
            except ValueError as error:
                where = f"entry {number + 1} of the images: " if id_of(entry) is None else ""
                self._leave_out(id_of(entry), self._file(entry), f"{where}{error}")
                continue
            first[image.file_name] = image.id
            usable.append(image)
        for image, size in zip(usable, _sizes([self._file(image) for image in usable]), strict=True):
            try:
                if isinstance(size, str):
                    raise ValueError(size)
                check_size(image, size)
                self.images[image.id] = _Image(image.id, self._file(image), size)
            except ValueError as error:
                self._leave_out(image.id, self._file(image), str(error))

    def _file(self, image: Any) -> str:
        name = image.get("file_name") if isinstance(image, dict) else getattr(image, "file_name", None)
        return str(self.folder / name if isinstance(name, str) else self.path)

    def _leave_out(self, image_id: int | None, file: str, reason: str) -> None:
        self.faults.append(AnnotationFault("image", image_id, file, reason))
        if image_id is not None:
            self._left_out.add(image_id)

    def _read_annotation(self, entry: Any, number: int, ids: set[int]) -> None:
        annotation_id, image_id = id_of(entry), id_of(entry, "image_id")
        if image_id in self._left_out:
            return
        image = None if image_id is None else self.images.get(image_id)
        try:
            if annotation_id is None:
                raise ValueError(f"expected an object with an integer id, got {shown(entry)}")
            if annotation_id in ids:
                raise ValueError("another annotation has the same id; give each one of its own")
            ids.add(annotation_id)
            box = BoxEntry.of(entry)
            if image is None:
                raise ValueError(f"image_id must be the id of an image, got {shown(box.image_id)}")
            if (category := id_of(entry, "category_id")) not in self._class_of:
                raise ValueError(f"category_id must be the id of a category, got {shown(box.category_id)}")
            corners = clipped(box.box, image.size)
            area = (corners[2] - corners[0]) * (corners[3] - corners[1]) if box.area is None else float(box.area)
            image.rows.append((self._class_of[category or 0], corners, area, box.crowd))
        except ValueError as error:
            file = str(self.path) if image is None else image.file
            where = f"entry {number + 1} of the annotations: " if annotation_id is None else ""
            self.faults.append(AnnotationFault("annotation", annotation_id, file, f"{where}{error}"))

    def _leave_out_empty(self) -> None:
        """Leave out images without a box that is trained on."""
        for image in [image for image in self.images.values() if all(crowd for *_, crowd in image.rows)]:
            found = "only boxes around groups (iscrowd)" if image.rows else "no boxes that can be used"
            self._leave_out(image.id, image.file, f"it has {found}; annotate it, or remove it")
            del self.images[image.id]


def _list_of(whole: Any, key: str) -> list[Any]:
    if not isinstance(whole, dict) or not isinstance(whole.get(key), list):
        got = f"{key} is {shown(whole[key])}" if isinstance(whole, dict) and key in whole else f"it has no {key}"
        raise ValueError(f"{got}; expected COCO's format, an object with the lists images, annotations and categories")
    found: list[Any] = whole[key]
    return found


def _without_unused(value: dict[str, Any]) -> dict[str, Any]:
    """Remove what is not used from an object, while the file is parsed."""
    for key in _UNUSED:
        value.pop(key, None)
    return value


def _sizes(files: list[str]) -> list[tuple[int, int] | str]:
    """Return height and width of each upright image, or why its header cannot be read."""
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as threads:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_pixels is stricter
        return list(threads.map(_size, files))


def _size(file: str) -> tuple[int, int] | str:
    if not os.path.isfile(file):
        return "the file does not exist"
    try:
        with readable(file), Image.open(file, formats=formats()) as image:
            check_pixels(image.size)
            return upright_size(image)
    except UnreadableImageError as error:
        return error.reason
