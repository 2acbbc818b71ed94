"""The paper's figures 6 and 7 of a network's gates, for print: matplotlib, PDF and PNG, no screen."""

from collections.abc import Sequence
from math import ceil
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from senet.gates.recording.record import BlockGates, Gates
from senet.gates.report.selection import example_blocks, example_classes, sample_channels
from senet.utils.figures import make_printable
from senet.utils.files import atomic_path

__all__ = ["draw_figure6", "draw_figure7"]

# Petroff 2021, arXiv 2107.02270: they can be told apart with each kind of colour blindness.
_COLOURS = (
    "#3f90da",
    "#bd1f01",
    "#ffa90e",
    "#832db6",
    "#717581",
    "#e76300",
    "#a96b59",
    "#92dadd",
    "#b9ac70",
    "#94a4a2",
)
_DASHES = ("-", "--", ":")
_ALL = "#111827"
_COLUMNS = 2  # of the paper
_FORMATS = ("pdf", "png", "svg")


def draw_figure6(
    gates: Gates,
    paths: Sequence[str | PathLike[str]],
    *,
    classes: Sequence[str] | None = None,
    blocks: Sequence[str] | None = None,
    channels: int | None = 50,
    seed: int = 0,
) -> None:
    """Figure 6: the mean gate of each channel, for some classes and over all, a panel for each block.

    Args:
        gates: of the network.
        paths: files to write, each in the format of its suffix: .pdf, .png or .svg.
        classes: names; None for the paper's goldfish, pug, plane and cliff where the data have them, else four others.
        blocks: names or labels; None for the last of each stage and all of the last stage, as in the paper.
        channels: how many are drawn of each block, chosen by the seed; None draws all.
        seed: of that choice.

    Raises:
        ValueError: a class or block that is unknown, a class that was not seen, no channels, or another suffix.
        OSError: a file cannot be written.
    """
    chosen, shown = example_classes(gates, classes), example_blocks(gates, blocks)
    figure, panels = _panels(len(shown), ceil(len(shown) / _COLUMNS), _COLUMNS)
    for axes, block in zip(panels, shown, strict=True):
        sampled = sample_channels(block.channels, channels, seed)
        lines = [axes.plot(block.gates.means[place, sampled], **_line(index))[0] for index, place in enumerate(chosen)]
        lines += axes.plot(block.gates.mean[sampled], color=_ALL, linewidth=1.4, zorder=3)
        _dress(axes, block, len(sampled))
    _legend(figure, lines, [*(gates.classes[place] for place in chosen), "all"])
    _write(figure, paths)


def draw_figure7(
    gates: Gates,
    paths: Sequence[str | PathLike[str]],
    *,
    classes: Sequence[str] | None = None,
    blocks: Sequence[str] | None = None,
    channels: int | None = 50,
    seed: int = 0,
) -> None:
    """Figure 7: mean and standard deviation of the gates within a class, a column for each class.

    Args:
        gates: of the network.
        paths: files to write, each in the format of its suffix: .pdf, .png or .svg.
        classes: names; None for the paper's goldfish and plane where the data have them, else two others.
        blocks: names or labels; None for the last of each stage and all of the last stage, as in the paper.
        channels: how many are drawn of each block, chosen by the seed; None draws all.
        seed: of that choice.

    Raises:
        ValueError: a class or block that is unknown, a class that was not seen, no channels, or another suffix.
        OSError: a file cannot be written.
    """
    chosen, shown = example_classes(gates, classes, count=2), example_blocks(gates, blocks)
    figure, panels = _panels(len(shown) * len(chosen), len(shown), len(chosen))
    rows = [panels[start : start + len(chosen)] for start in range(0, len(panels), len(chosen))]
    for row, block in zip(rows, shown, strict=True):
        sampled = sample_channels(block.channels, channels, seed)
        deviations = block.gates.class_deviations
        lines = []
        for index, (axes, place) in enumerate(zip(row, chosen, strict=True)):
            mean, deviation = block.gates.means[place, sampled], deviations[place, sampled]
            colour = _line(index)["color"]
            band = mean - deviation, mean + deviation
            axes.fill_between(np.arange(len(sampled)), *band, color=colour, alpha=0.25, linewidth=0)
            lines += axes.plot(mean, color=colour, linewidth=1.2)
            _dress(axes, block, len(sampled))
    _legend(figure, lines, [gates.classes[place] for place in chosen])
    _write(figure, paths)


def _line(index: int) -> dict[str, Any]:
    dashes = _DASHES[index // len(_COLOURS) % len(_DASHES)]
    return {"color": _COLOURS[index % len(_COLOURS)], "linestyle": dashes, "linewidth": 1.0}


def _panels(count: int, rows: int, columns: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 2.1 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    return figure, list(grid.flat[:count])


def _dress(axes: Any, block: BlockGates, channels: int) -> None:
    """What every panel has: the block's name, and the range that its gates can take, or took."""
    axes.set_title(block.label, fontsize=10, parse_math=False)
    axes.set_xlabel(
        "channel index" if channels == block.channels else f"channel index ({channels} of {block.channels})"
    )
    axes.set_ylabel("gate")
    axes.set_xlim(-0.5, max(channels - 0.5, 0.5))
    if "sigmoid" in block.gate.lower() and block.gain > 0:
        margin = 0.04 * block.gain
        axes.set_ylim(-margin, block.gain + margin)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Any, lines: Sequence[Any], names: Sequence[str]) -> None:
    """One for all panels, beneath them."""
    columns = min(len(names), max(1, 90 // (8 + max(map(len, names)))))
    # A name that begins with "_" would be left out, and "$5" would be a formula: the text is set afterwards.
    places = [str(place) for place in range(len(names))]
    legend = figure.legend(lines, places, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def _write(figure: Any, paths: Sequence[str | PathLike[str]]) -> None:
    for path in map(Path, paths):
        suffix = path.suffix.lower().removeprefix(".")
        if suffix not in _FORMATS:
            raise ValueError(f"cannot draw {path.name}: its format is not known; end it in .pdf, .png or .svg")
    make_printable(figure)
    for path in map(Path, paths):
        suffix = path.suffix.lower().removeprefix(".")
        with atomic_path(path) as temporary:
            # Text as text, so that it can be found and selected in a paper.
            from matplotlib import rc_context

            with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
                figure.savefig(temporary, dpi=200, format=suffix)
