"""Images with boxes as PNG files."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from os import PathLike
from typing import Any

from PIL import Image

from senet.utils.figure_style import COLOURS, WIDTH, save_figure, styled, theme

__all__ = ["DrawnBoxes", "draw_boxes"]

# Height of a label, as a part of the height of its image.
_LABEL = 0.05


@dataclass(frozen=True, kw_only=True)
class DrawnBoxes:
    """The boxes of an image.

    Attributes:
        title: text above the image.
        boxes: x1, y1, x2, y2 in pixels, of each box.
        classes: class name of each box.
        labels: text at the corner of each box, such as class and score.
        truth: boxes of the annotations, drawn with dashed lines; empty if they are not known.
        truth_classes: their class names.
    """

    title: str
    boxes: Sequence[Sequence[float]]
    classes: Sequence[str]
    labels: Sequence[str]
    truth: Sequence[Sequence[float]] = ()
    truth_classes: Sequence[str] = ()


@styled
def draw_boxes(
    images: Sequence[Image.Image],
    drawn: Sequence[DrawnBoxes],
    path: str | PathLike[str],
    title: str = "",
    columns: int = 2,
) -> None:
    """Draw images with boxes in a colour for each class, and annotations in dashed lines, as a PNG.

    Args:
        images: at least one.
        drawn: the boxes of each.
        path: path of the PNG.
        title: title of the figure.
        columns: images in a row.

    Raises:
        ValueError: there are no images, or not the boxes of each.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    if not images or len(images) != len(drawn):
        raise ValueError(f"expected at least one image and boxes for each, got {len(images)} and {len(drawn)}")
    columns = min(columns, len(images))
    rows = ceil(len(images) / columns)
    width = WIDTH / columns
    highest = max(image.height / image.width for image in images)
    figure = Figure(figsize=(WIDTH, (width * min(highest, 2) + 0.3) * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    names = sorted({name for one in drawn for name in (*one.classes, *one.truth_classes)})
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    for axes, image, one in zip(grid.flat, images, drawn, strict=False):
        axes.imshow(image.convert("RGB"))
        axes.set_title(one.title, fontsize=8, parse_math=False)
        for box, name in zip(one.truth, one.truth_classes, strict=True):
            _rectangle(axes, box, colours[name], "--")
        for box, name, label in zip(one.boxes, one.classes, one.labels, strict=True):
            _rectangle(axes, box, colours[name], "-")
            style = {"facecolor": colours[name], "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
            # Inside the box where there is no place above it.
            above = box[1] > _LABEL * image.height
            axes.text(
                box[0],
                box[1],
                label,
                fontsize=6,
                color="white",
                va="bottom" if above else "top",
                parse_math=False,
                bbox=style,
                clip_on=True,
            )
    lines = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    if any(one.truth for one in drawn):
        lines.append(Line2D([], [], color=theme().ink, linestyle="--", label="annotated"))
    legend = figure.legend(handles=lines, loc="outside lower center", ncols=5)
    for text in legend.get_texts():
        text.set_parse_math(False)
    if title:
        figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def _rectangle(axes: Any, box: Sequence[float], colour: str, line: str) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linestyle=line, linewidth=1))
