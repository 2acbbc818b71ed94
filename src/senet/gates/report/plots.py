"""Draw the paper's figures 6 and 7 for a recording, with Matplotlib."""

from collections.abc import Sequence
from math import ceil
from os import PathLike
from pathlib import Path
from typing import Any

from senet.gates.recording.record import BlockGates, Gates
from senet.gates.report.selection import example_blocks, example_classes, sample_channels
from senet.utils.figure_style import COLOURS, DASHES, WIDTH, make_printable, styled, theme, themed_path
from senet.utils.files import atomic_path

__all__ = ["draw_figure6", "draw_figure7"]

_COLUMNS = 2  # of the paper
_FORMATS = ("pdf", "png", "svg")


@styled
def draw_figure6(
    gates: Gates,
    paths: Sequence[str | PathLike[str]],
    *,
    classes: Sequence[str] | None = None,
    blocks: Sequence[str] | None = None,
    channels: int | None = 50,
    seed: int = 0,
) -> None:
    """Draw figure 6: the mean gate of each channel, for some classes and over all classes, one panel per block.

    Args:
        gates: the recording.
        paths: output files; the suffix .pdf, .png or .svg selects the format.
        classes: names of the classes; None for the paper's goldfish, pug, plane and cliff, or others if the data lacks
            them.
        blocks: names or labels of the blocks; None for the paper's selection, see `example_blocks`.
        channels: number of sampled channels of each block; None for all.
        seed: seed of the sample.

    Raises:
        ValueError: a class or block is unknown, a class has no images, `channels` is below 1, or an unknown suffix.
        OSError: a file cannot be written.

    Examples:
        >>> from senet.gates import draw_figure6
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> draw_figure6(gates, ["figure6.png"], classes=["cat", "dog"], blocks=["layer1.0.bn2.se"])
    """
    chosen, shown = example_classes(gates, classes), example_blocks(gates, blocks)
    figure, panels = _panels(len(shown), ceil(len(shown) / _COLUMNS), _COLUMNS)
    for axes, block in zip(panels, shown, strict=True):
        sampled = sample_channels(block.channels, channels, seed)
        means = block.gates.means
        lines = [axes.plot(sampled, means[place, sampled], **_line(index))[0] for index, place in enumerate(chosen)]
        lines += axes.plot(sampled, block.gates.mean[sampled], color=theme().ink, linewidth=1.4, zorder=3)
        axes.set_title(block.label, parse_math=False)
        _style_axes(axes, block, len(sampled))
    _legend(figure, lines, [*(gates.classes[place] for place in chosen), "all"])
    _write(figure, paths)


@styled
def draw_figure7(
    gates: Gates,
    paths: Sequence[str | PathLike[str]],
    *,
    classes: Sequence[str] | None = None,
    blocks: Sequence[str] | None = None,
    channels: int | None = 50,
    seed: int = 0,
) -> None:
    """Draw figure 7: mean and standard deviation of the gates within a class, a column per class, a row per block.

    Args:
        gates: the recording.
        paths: output files; the suffix .pdf, .png or .svg selects the format.
        classes: names of the classes; None for the paper's goldfish and plane, or others if the data lacks them.
        blocks: names or labels of the blocks; None for the paper's selection, see `example_blocks`.
        channels: number of sampled channels of each block; None for all.
        seed: seed of the sample.

    Raises:
        ValueError: a class or block is unknown, a class has no images, `channels` is below 1, or an unknown suffix.
        OSError: a file cannot be written.

    Examples:
        >>> from senet.gates import draw_figure7
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> draw_figure7(gates, ["figure7.png"], classes=["cat", "dog"], blocks=["layer1.0.bn2.se"])
    """
    chosen, shown = example_classes(gates, classes, count=2), example_blocks(gates, blocks)
    figure, panels = _panels(len(shown) * len(chosen), len(shown), len(chosen))
    rows = [panels[start : start + len(chosen)] for start in range(0, len(panels), len(chosen))]
    for axes, place in zip(rows[0], chosen, strict=True):
        axes.set_title(gates.classes[place], parse_math=False)
    for row, block in zip(rows, shown, strict=True):
        sampled = sample_channels(block.channels, channels, seed)
        deviations = block.gates.class_deviations
        for index, (axes, place) in enumerate(zip(row, chosen, strict=True)):
            mean, deviation = block.gates.means[place, sampled], deviations[place, sampled]
            colour = _line(index)["color"]
            band = mean - deviation, mean + deviation
            axes.fill_between(sampled, *band, color=colour, alpha=0.3, linewidth=0)
            axes.plot(sampled, mean, color=colour, linewidth=1.2)
            _style_axes(axes, block, len(sampled))
        row[0].set_ylabel(f"{block.label}\ngate", parse_math=False)
    _write(figure, paths)


def _line(index: int) -> dict[str, Any]:
    dashes = DASHES[index // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dashes, "linewidth": 1.0}


def _panels(count: int, rows: int, columns: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 1.5 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    return figure, list(grid.flat[:count])


def _style_axes(axes: Any, block: BlockGates, channels: int) -> None:
    """Set labels and limits of a panel."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("channel" if channels == block.channels else f"channel ({channels} of {block.channels}, sampled)")
    axes.set_ylabel("gate")
    axes.set_xlim(-0.5, block.channels - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    if "sigmoid" in block.gate.lower() and block.gain > 0:
        margin = 0.04 * block.gain
        axes.set_ylim(-margin, block.gain + margin)
    axes.grid()


def _legend(figure: Any, lines: Sequence[Any], names: Sequence[str]) -> None:
    """Draw one legend below the panels."""
    columns = min(len(names), max(1, 90 // (8 + max(map(len, names)))))
    # Matplotlib skips names that begin with "_" and parses "$" as a formula, so names are set afterwards.
    places = [str(place) for place in range(len(names))]
    legend = figure.legend(lines, places, loc="outside lower center", ncols=columns)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def _write(figure: Any, paths: Sequence[str | PathLike[str]]) -> None:
    for path in map(Path, paths):
        suffix = path.suffix.lower().removeprefix(".")
        if suffix not in _FORMATS:
            raise ValueError(f"cannot draw {path.name}: unknown format; use the suffix .pdf, .png or .svg")
    make_printable(figure)
    for path in map(Path, paths):
        suffix = path.suffix.lower().removeprefix(".")
        with atomic_path(themed_path(path)) as temporary:
            # Store text as text, which can be searched and selected.
            from matplotlib import rc_context

            with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
                figure.savefig(temporary, dpi=200, format=suffix)
