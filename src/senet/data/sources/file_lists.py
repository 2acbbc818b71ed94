"""Images in files that a list names with their labels: CSV, `path,label` or `path,label,label`; or Parquet."""

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from senet.data.images import ImageData, options_of
from senet.data.multi_label import MultiLabelData
from senet.data.sources.files import Files
from senet.utils.errors import DataError, shown, unknown_name
from senet.utils.extras import optional_import
from senet.utils.input_files import read_text, reading, same_name
from senet.utils.text import natural_key

__all__ = ["open_file_list"]

# A first line that begins with one of these names columns.
_HEADINGS = ("path", "file", "image", "filename")
# Names of columns of labels. Tables pad lines with columns without a name.
_LABELS = re.compile(r"((label|class|categor|tag)\w*( \d+)?)?", re.IGNORECASE)
# Between labels that another program joined into one cell.
_JOINED = ";|"


def open_file_list(spec: str, split: str) -> ImageData:
    """Open `csv:FILE`, or one split of `csv:FOLDER`, which has train.csv and val.csv; or the same with `parquet:`.

    A line has the path of an image, relative to the file or to the option `root`, and its labels. A Parquet file has
    them in a column of texts, `path`, and a column of texts or lists of texts, `label` or `labels`. Data in which every
    image has one label are opened as `ImageData`, all others as `MultiLabelData`.

    Args:
        spec: the spec.
        split: "train" or "val".

    Raises:
        DataError: the file is missing or empty, or a line has no path, a missing or repeated file, or a repeated label;
            the message names file and line. Or pyarrow is missing.
    """
    name, options = options_of(spec)
    kind = spec.partition(":")[0]
    lists = [f"train.{kind}", f"val.{kind}"]
    for key in options:
        if key != "root":
            raise DataError(f"{spec!r}: {unknown_name(f'option of {kind}:', key, ['root'])}")
    path = Path(os.path.expanduser(name))
    has_splits = path.is_dir()
    if has_splits:
        missing = [file for file in lists if not (path / file).is_file()]
        if missing:
            raise DataError(f"the folder {path} has no {missing[0]}; add it, or give the file itself as {kind}:FILE")
        path = path / f"{split}.{kind}"
    if not path.is_file():
        raise DataError(
            f"the file list {path} does not exist; give {kind}:FILE, or a folder with {' and '.join(lists)}"
        )
    if kind == "csv" and path.suffix.lower() == ".parquet":
        raise DataError(f"the file list {path} is not text: give parquet:{name}")
    root = Path(os.path.expanduser(options["root"])) if "root" in options else path.parent
    rows = _checked(_csv_rows(path, root) if kind == "csv" else _parquet_rows(path), path, root)
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


def _checked(lines: Iterable[tuple[int, list[str]]], path: Path, root: Path) -> list[tuple[str, list[str]]]:
    """Return the file and the labels of each image, from the number and the cells of each line."""
    rows: list[tuple[str, list[str]]] = []
    seen: dict[str, int] = {}
    for number, cells in lines:
        file, labels = _row(cells, f"line {number} of {path}", root)
        if file in seen:
            raise DataError(
                f"line {number} of {path} lists {cells[0]} again, after line {seen[file]}; put all labels of an image "
                f"into one line"
            )
        seen[file] = number
        rows.append((file, labels))
    if not rows:
        raise DataError(f"the file list {path} is empty; expected lines path,label or path,label,label")
    return rows


def _csv_rows(path: Path, root: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line that is neither empty nor a heading."""
    reader = csv.reader(io.StringIO(read_text(path, "file list", error=DataError)), strict=True)
    first = True
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if first and cells[0].lower() in _HEADINGS and not (root / cells[0]).is_file():
                _check_heading(cells, path)
            else:
                yield reader.line_num, cells
            first = False
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of {path} is not CSV: {error}") from error


def _check_heading(names: list[str], path: Path) -> None:
    """Refuse columns of other things, and columns for each class of 0 and 1, which would be read as labels."""
    other = next((name for name in names[1:] if not _LABELS.fullmatch(name)), None)
    if other is not None:
        raise DataError(
            f"the file list {path} has a column {other!r}; expected the path and then only labels, in columns named "
            f"label or class"
        )


def _parquet_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each row, from 1."""
    with optional_import("train", "Parquet file lists need pyarrow", DataError):
        import pyarrow
        import pyarrow.parquet
    with reading(path, "file list", error=DataError):
        try:
            table = pyarrow.parquet.read_table(path)
        except pyarrow.ArrowInvalid as error:
            raise DataError(f"the file list {path} is not Parquet: {error}") from error
    labels = next((name for name in ("labels", "label") if name in table.column_names), None)
    if "path" not in table.column_names or labels is None:
        raise DataError(
            f"the file list {path} has the columns {', '.join(table.column_names)}; expected path, and label or labels"
        )
    columns = (table.column(name).to_pylist() for name in ("path", labels))
    for number, (file, found) in enumerate(zip(*columns, strict=True), 1):
        cells = found if isinstance(found, list) else [found]
        texts = ["" if cell is None else cell for cell in (file, *cells)]
        if not all(isinstance(text, str | int) for text in texts):
            raise DataError(f"line {number} of {path} has {shown(found)}; expected texts, or lists of texts")
        yield number, [str(text).strip() for text in texts]


def _row(cells: list[str], where: str, root: Path) -> tuple[str, list[str]]:
    """Return the file and the labels of a line."""
    name, *labels = cells
    labels = [same_name(label) for label in labels if label]  # tables pad short lines with empty cells
    if not name:
        raise DataError(f"{where} has no path; expected path,label or path,label,label")
    joined = next((label for label in labels if any(mark in label for mark in _JOINED)), None)
    if joined is not None:
        raise DataError(f"{where} has the label {joined!r}; give one label in each cell, as in path,label,label")
    twice = next((label for number, label in enumerate(labels) if label in labels[:number]), None)
    if twice is not None:
        raise DataError(f"{where} gives the label {twice!r} twice; give it once")
    file = str(root / name)
    if not os.path.isfile(file):
        raise DataError(f"{where} names a file that does not exist: {file}")
    return file, labels
