"""Draw the picture of the README: a network with its sites, the gates of a run, and the time of a training step.

The gates are those of a run, whose means are kept in overview.json; the times are read from docs/performance.md.

    senet train se_resnet20 --data digits --recipe digits --set network.reduction=4 -o runs/overview
    senet gates runs/overview/best.safetensors --data digits -o runs/overview-gates
    python docs/overview.py --gates runs/overview-gates/gates.safetensors   # records overview.json
    python docs/overview.py                                                 # draws
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch

import senet
from senet.gates import load_gates
from senet.utils.figure_style import GREY, NARROW, SKY, VERMILLION, WIDTH, figure_theme, save_figure, styled, theme

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "benchmarks"))
RECORDED = DOCS / "overview.json"
# Labels of the dots, and where the page has their numbers: heading of the table, row, column.
STEPS = (
    (
        "GPU: H200, bf16, batch 256",
        "Training step: time, to the plain twin",
        "bf16, 256",
        ("se_resnet50", "timm/seresnet50"),
    ),
    (
        "CPU: 2 cores, float32, batch 16",
        "resnet50, batch 16, 224x224",
        "train, eager, to its twin",
        ("se_resnet50", "timm/seresnet50"),
    ),
)
SIDES = (("senet", VERMILLION, "o"), ("timm", GREY, "s"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=Path, help="record the gates of this recording, and draw nothing")
    parser.add_argument("--output", type=Path, default=DOCS, help="the folder of the pictures")
    args = parser.parse_args()
    if args.gates:
        record(args.gates)
        return
    draw_all(args.output)


def record(path: Path) -> None:
    """Keep the mean gates by class of a recording."""
    gates = load_gates(path)
    blocks = [{"name": b.name, "label": b.label, "means": np.round(b.gates.means, 2).tolist()} for b in gates.blocks]
    found = {"network": gates.network, "data": gates.data, "classes": gates.classes, "images": gates.images}
    RECORDED.write_text(json.dumps(found | {"blocks": blocks}) + "\n", encoding="utf-8")


def draw_all(folder: Path) -> None:
    """Draw the picture for wide and narrow, light and dark pages."""
    for name in ("light", "dark"):
        with figure_theme(name):
            suffix = "" if name == "light" else "-dark"
            draw(folder / f"overview{suffix}.png", narrow=False)
            draw(folder / f"overview-narrow{suffix}.png", narrow=True)


@styled
def draw(path: Path, *, narrow: bool) -> None:
    """Draw network and gates on the left or on top, and times on the right or below."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    figure: Any = Figure(figsize=(NARROW, 5.9) if narrow else (WIDTH, 3.3), layout="constrained")
    options = {"height_ratios": (3.3, 2.6)} if narrow else {"width_ratios": (2.15, 1)}
    first, second = figure.subfigures(2 if narrow else 1, 1 if narrow else 2, **options).flat
    _network(first, recorded)
    _times(second)
    save_figure(figure, path)


def _network(figure: Any, recorded: dict[str, Any]) -> None:
    """Draw the units of the network with SE at their sites, and the gates of each site below it."""
    blocks = recorded["blocks"]
    sites = senet.find_sites(senet.create_model("resnet20"))
    assert [block["name"].removesuffix(".se") for block in blocks] == [site.name for site in sites]
    grid = figure.add_gridspec(2, len(blocks), height_ratios=(1, 1.15))
    top = figure.add_subplot(grid[0, :])
    _units(top, sites)
    for index, (block, site) in enumerate(zip(blocks, sites, strict=True)):
        axes = figure.add_subplot(grid[1, index])
        means = np.array(block["means"])  # (classes, C)
        picture = axes.imshow(means[:, means.mean(0).argsort()], cmap="cividis", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks([])
        axes.set_yticks(
            [0, len(means) - 1] if index == 0 else [],
            [recorded["classes"][0], recorded["classes"][-1]] if index == 0 else [],
        )
        axes.set_xlabel(f"{site.channels}", fontsize=8)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.spines["top"].set(visible=True, color=VERMILLION, linewidth=3)
        if index == 0:
            axes.set_ylabel("digit", fontsize=8, labelpad=1)
    bar = figure.colorbar(picture, ax=figure.axes[1:], orientation="horizontal", fraction=0.07, pad=0.03, aspect=50)
    bar.set_label("mean gate of a channel (column) for a digit (row)", fontsize=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=0)
    figure.suptitle("ResNet-20 with SE, and its gates")


def _units(axes: Any, sites: Any) -> None:
    """Draw each residual unit: two layers, SE, and the skip around them."""
    height = {16: 0.5, 32: 0.75, 64: 1.0}
    for index, site in enumerate(sites):
        tall = height[site.channels]
        for x, width, colour in ((index - 0.3, 0.2, SKY), (index, 0.2, SKY), (index + 0.3, 0.2, VERMILLION)):
            shape = "round,pad=0,rounding_size=0.05"
            box = FancyBboxPatch(
                (x - width / 2, -tall / 2), width, tall, boxstyle=shape, facecolor=colour, edgecolor="none", zorder=3
            )
            axes.add_patch(box)
        axes.plot(
            [index - 0.44, index - 0.44, index + 0.44, index + 0.44],
            [0, 0.66, 0.66, 0],
            color=theme().muted,
            linewidth=0.8,
        )
    axes.plot([-0.6, len(sites) - 0.4], [0, 0], color=theme().muted, linewidth=0.8, zorder=1)
    for index, (stage, size) in enumerate(((2, 32), (3, 16), (4, 8))):
        axes.text(
            3 * index + 1, 0.92, f"stage {stage}, {size}\u00d7{size}", ha="center", fontsize=8, color=theme().muted
        )
    entries = [
        Patch(color=SKY, label="convolution"),
        Patch(color=VERMILLION, label="SE"),
        Line2D([], [], color=theme().muted, linewidth=0.8, label="skip"),
    ]
    axes.legend(handles=entries, loc="upper center", bbox_to_anchor=(0.5, 0.06), ncols=3, fontsize=8, columnspacing=1.2)
    axes.set_xlim(-0.62, len(sites) - 0.38)
    axes.set_ylim(-0.62, 1.2)
    axes.axis("off")


def _times(figure: Any) -> None:
    """Draw the time of a training step relative to the plain network, with intervals."""
    from measured_tables import read_ratios

    axes = figure.subplots()
    y, ticks = 0.0, []
    for title, table, column, rows in STEPS:
        axes.text(0.47, y, title, fontsize=8, color=theme().muted, va="center")
        axes.plot([1, 1], [y + 0.4, y + 2.6], color=theme().ink, linewidth=0.9, zorder=1)
        for (side, colour, marker), row in zip(SIDES, rows, strict=True):
            y += 1
            ratio = read_ratios(DOCS / "performance.md", table)[row][column]
            errors = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
            axes.errorbar(ratio.median, y, xerr=errors, fmt=marker, color=colour, markersize=7, capsize=3, zorder=3)
            faster = ratio.median < 1  # the number is on the side away from the line
            x, side_of_dot = (ratio.low - 0.06, "right") if faster else (ratio.high + 0.06, "left")
            axes.text(x, y, f"{ratio.median:.3f}", ha=side_of_dot, va="center", fontsize=8.5)
            ticks.append((y, side))
        y += 1.3
    axes.set_yticks([place for place, _ in ticks], [side for _, side in ticks])
    axes.set_ylim(y - 0.6, -0.6)
    axes.set_xlim(0.45, 1.8)
    axes.set_xticks([0.8, 1.0, 1.2, 1.4], ["0.8", "1\nplain", "1.2", "1.4"])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=theme().ink)
    axes.set_xlabel("relative to the plain network")
    figure.suptitle("Training step of SE-ResNet-50")


if __name__ == "__main__":
    main()
