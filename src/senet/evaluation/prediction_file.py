"""Write predictions as CSV."""

import csv
from collections.abc import Sequence
from os import PathLike

from senet.evaluation.predict import Prediction
from senet.utils.files import atomic_path

__all__ = ["write_predictions"]


def write_predictions(predictions: Sequence[Prediction], path: str | PathLike[str]) -> None:
    """Write a line for each image: its name, what it shows if that is known, and its classes with probabilities.

    Columns are `image`, then `truth` (labels joined by ";") and `wrong` (0 or 1) of labelled images, then `class_1`,
    `probability_1` and so on, the most probable first. Boxes follow their class as `x1_1`, `y1_1`, `x2_1` and `y2_1`.
    Cells of an image with fewer classes are empty.

    Args:
        predictions: see `senet.predict`.
        path: path of the CSV.

    Raises:
        OSError: the file cannot be written.
    """
    labelled = any(one.truth is not None for one in predictions)
    most = max((len(one.classes) for one in predictions), default=0)
    columns = predictions[0].columns if predictions else ()
    head = ["image", *(["truth", "wrong"] if labelled else [])]
    head += [f"{name}_{rank}" for rank in range(1, most + 1) for name in columns]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        for one in predictions:
            truth = [";".join(one.truth or ()), "" if one.wrong is None else int(one.wrong)] if labelled else []
            cells = [cell for rank in range(len(one.classes)) for cell in one.cells(rank)]
            writer.writerow([one.name, *truth, *cells, *[""] * (len(columns) * most - len(cells))])
