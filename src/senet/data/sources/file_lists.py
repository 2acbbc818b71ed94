"""Images in files that a CSV lists with their labels: `path,label` or `path,label,label`."""

import csv
import io
import os
from pathlib import Path

import numpy as np

from senet.data.images import ImageData, options_of
from senet.data.multi_label import MultiLabelData
from senet.data.sources.files import Files
from senet.utils.errors import DataError, unknown_name
from senet.utils.input_files import read_text, same_name
from senet.utils.text import natural_key

__all__ = ["open_file_list"]

# A first line that begins with one of these names columns.
_HEADINGS = ("path", "file", "image", "filename")


def open_file_list(spec: str, split: str) -> ImageData:
    """Open `csv:FILE`, or one split of `csv:FOLDER`, which has train.csv and val.csv.

    A line has the path of an image, relative to the file or to the option `root`, and its labels. Data in which every
    image has one label are opened as `ImageData`, all others as `MultiLabelData`.

    Args:
        spec: the spec.
        split: "train" or "val".

    Raises:
        DataError: the file is missing or empty, or a line has no path, a missing or repeated file, or a repeated label;
            the message names file and line.
    """
    name, options = options_of(spec)
    for key in options:
        if key != "root":
            raise DataError(f"{spec!r}: {unknown_name('option of csv:', key, ['root'])}")
    path = Path(os.path.expanduser(name))
    has_splits = path.is_dir()
    if has_splits:
        missing = [file for file in ("train.csv", "val.csv") if not (path / file).is_file()]
        if missing:
            raise DataError(f"the folder {path} has no {missing[0]}; add it, or give the file itself as csv:FILE")
        path = path / f"{split}.csv"
    if not path.is_file():
        raise DataError(f"the file list {path} does not exist; give csv:FILE, or a folder with train.csv and val.csv")
    root = Path(os.path.expanduser(options["root"])) if "root" in options else path.parent
    rows = _read(path, root)
    classes = sorted(sorted({label for _, labels in rows for label in labels}), key=natural_key)
    if not classes:
        raise DataError(f"the file list {path} has no labels; expected lines path,label or path,label,label")
    index = {name: number for number, name in enumerate(classes)}
    files = Files([file for file, _ in rows])
    if all(len(labels) == 1 for _, labels in rows):
        single = np.array([index[labels[0]] for _, labels in rows], dtype=np.int64)
        return ImageData(spec, files, single, classes, has_splits=has_splits)
    several = np.zeros((len(rows), len(classes)), dtype=np.uint8)
    for number, (_, labels) in enumerate(rows):
        several[number, [index[label] for label in labels]] = 1
    return MultiLabelData(spec, files, several, classes, has_splits=has_splits)


def _read(path: Path, root: Path) -> list[tuple[str, list[str]]]:
    """Return the file and the labels of each image."""
    reader = csv.reader(io.StringIO(read_text(path, "file list", error=DataError)), strict=True)
    rows: list[tuple[str, list[str]]] = []
    lines: dict[str, int] = {}
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells) or (not rows and cells[0].lower() in _HEADINGS and not (root / cells[0]).is_file()):
                continue
            file, labels = _row(cells, f"line {reader.line_num} of {path}", root)
            if file in lines:
                raise DataError(
                    f"line {reader.line_num} of {path} lists {cells[0]} again, after line {lines[file]}; "
                    f"put all labels of an image into one line"
                )
            lines[file] = reader.line_num
            rows.append((file, labels))
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of {path} is not CSV: {error}") from error
    if not rows:
        raise DataError(f"the file list {path} is empty; expected lines path,label or path,label,label")
    return rows


def _row(cells: list[str], where: str, root: Path) -> tuple[str, list[str]]:
    """Return the file and the labels of a line."""
    name, *labels = cells
    labels = [same_name(label) for label in labels if label]  # tables pad short lines with empty cells
    if not name:
        raise DataError(f"{where} has no path; expected path,label or path,label,label")
    twice = next((label for number, label in enumerate(labels) if label in labels[:number]), None)
    if twice is not None:
        raise DataError(f"{where} gives the label {twice!r} twice; give it once")
    file = str(root / name)
    if not os.path.isfile(file):
        raise DataError(f"{where} names a file that does not exist: {file}")
    return file, labels
