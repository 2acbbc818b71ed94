"""The chart of docs/performance.md: time of a training step on a GPU, relative to the plain network."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from senet.utils.files import atomic_path

__all__ = ["draw"]

# Colours of matplotlib's cycle that differ in lightness, for readers who do not see colours.
COLOURS = {
    "resnet50, units fused": "#9ecae1",
    "se_resnet50": "#08519c",
    "timm/resnet50 + senet.insert": "#4292c6",
    "timm/seresnet50": "#fd8d3c",
    "resnet50, SE by addcmul (NVIDIA)": "#fdd0a2",
}


def draw(path: Path, cases: dict[str, list[dict[str, Any]]], hardware: dict[str, Any]) -> None:
    """Draw a group of bars for each training case, with whiskers for the quartiles.

    Args:
        path: of the PNG file.
        cases: what `benchmarks/gpu.py` measured, see `training_steps`.
        hardware: of the machine that measured it.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    labelled = set[str]()
    for group, sides in enumerate(cases.values()):
        bars = sorted(
            (side for side in sides if side["name"] in COLOURS), key=lambda side: [*COLOURS].index(side["name"])
        )
        width = 0.8 / len(COLOURS)
        for index, side in enumerate(bars):
            ratio, name = side["twin"], side["name"]
            low, high = ratio["quartiles"]
            axes.bar(
                group + (index - (len(bars) - 1) / 2) * width,
                ratio["median"],
                width,
                yerr=[[ratio["median"] - low], [high - ratio["median"]]],
                color=COLOURS[name],
                label=None if name in labelled else name,
                error_kw={"lw": 0.8},
            )
            labelled.add(name)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xticks(range(len(cases)), list(cases))
    axes.set_ylabel("time of a training step,\nrelative to the plain twin")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"ResNet-50, 224x224, {hardware.get('gpu') or 'CPU'}: precision or mode, and batch", fontsize=10)
    if labelled:  # a smoke test has other networks
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=144, format="png")
