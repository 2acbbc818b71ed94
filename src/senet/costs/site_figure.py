"""Draw a network with its sites: layers by depth and resolution, SE where it would act, and what it costs there."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import log2, prod
from os import PathLike
from typing import Any

from senet.costs.site_costs import SiteCost, SiteCosts
from senet.graph.layers import Layer, layers_of
from senet.graph.operations import Trace
from senet.utils.figure_style import BLUE, SKY, VERMILLION, save_figure, styled, theme
from senet.utils.figures import short

__all__ = ["draw_sites"]

_LAYER, _SITE, _SKIP = SKY, VERMILLION, BLUE
# Heights of boxes, as a part of their band.
_LOWEST, _HIGHEST = 0.16, 0.78
# Widths in units of a layer: a layer with its gap, a site, and the gap between blocks.
_STEP, _BOX, _SITE_STEP, _GAP = 1.0, 0.74, 0.9, 0.55
# A step of log2 of the number of positions that may be a border.
_BORDER = 0.6
# Inches.
_NARROWEST, _WIDEST = 7.0, 14.0
# Parts of the network with a name above them: one larger than this share is divided, as long as they are few.
_LARGE, _FEW_GROUPS, _MOST_GROUPS = 0.5, 4, 24


@dataclass(frozen=True)
class _Item:
    """A box of the picture: a layer or a site.

    Attributes:
        place: of the operation in the run; half a step behind it for a site.
        name: of the module.
        block: boxes of one block stand close together.
        channels, spatial: of the map.
        layer: index in the list of layers; None for a site.
        site: the site and its cost; None for a layer.
    """

    place: float
    name: str
    block: str
    channels: int
    spatial: tuple[int, ...]
    layer: int | None = None
    site: SiteCost | None = None


@styled
def draw_sites(run: Trace, costs: SiteCosts, path: str | PathLike[str], title: str) -> None:
    """Draw a network from left to right in the order in which its layers run, one band for each resolution.

    A box is a layer, and its height stands for the channels of its output; it is grey outside of units with SE. SE at a
    site is a box of its own. Lines follow the data, and dashed ones return to a resolution, as the skips of a U-Net do.
    Below are the parameters of SE at each site.

    Args:
        run: of the network.
        costs: of its sites.
        path: of the PNG.
        title: of the picture.

    Raises:
        ValueError: the network has no layers.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    layers = layers_of(run)
    items = _items(run, layers, costs)
    if not items:
        raise ValueError("the network has no convolution or linear layer to draw")
    bands = _Bands(run, layers, costs)
    x = _positions(items)
    width = min(_WIDEST, max(_NARROWEST, 1.6 + 0.07 * x[-1]))
    heights = [0.5 * len(bands.sizes) + 0.4, 0.75]
    figure = Figure(figsize=(width, sum(heights) + 1.1), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    picture = _Picture(top, bands, items, x, layers)
    picture.draw_bands()
    picture.draw_links()
    picture.draw_boxes()
    picture.draw_groups()
    _draw_costs(bottom, items, x)
    top.set_xlim(-0.8, x[-1] + 0.8)
    figure.suptitle(title, parse_math=False)
    _draw_legend(figure, picture)
    save_figure(figure, path)


def _items(run: Trace, layers: Sequence[Layer], costs: SiteCosts) -> list[_Item]:
    """Return layers and sites in the order in which they run."""
    units = sorted({cost.site.unit for cost in costs.sites}, key=len, reverse=True)
    items = []
    for index, layer in enumerate(layers):
        if layer.kind == "layer":
            block = next((u for u in units if _is_in(layer.name, u)), layer.name.rpartition(".")[0])
            items.append(_Item(layer.place, layer.name, block, layer.channels, layer.spatial, layer=index))
    makers = {value.number: place for place, operation in enumerate(run.operations) for value in operation.outputs}
    for cost in costs.sites:
        site = cost.site
        calls = run.calls_of(site.unit if site.how == "skip" else site.name)
        if not calls:
            continue
        value = calls[0].taken if site.how == "input" else calls[0].given
        place: float = -1 if value is None else makers.get(value.number, -1)
        place += -0.5 if site.how == "skip" else 0.5
        block = site.unit if any(_is_in(layer.name, site.unit) for layer in layers) else site.unit.rpartition(".")[0]
        items.append(_Item(place, site.name, block, site.channels, cost.resolution or (), site=cost))
    return sorted(items, key=lambda item: item.place)


def _positions(items: Sequence[_Item]) -> list[float]:
    """Return the centre of each box."""
    x, found = 0.0, [0.0]
    for before, item in pairwise(items):
        x += _SITE_STEP if item.site or before.site else _STEP
        x += _GAP if item.block != before.block else 0
        found.append(x)
    return found


def _is_in(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.") or not module


class _Bands:
    """The resolutions of a network, the largest on top; those that differ by a border share a band.

    Args:
        run: of the network.
        layers: its layers.
        costs: of its sites, for the numbers of stages.
    """

    def __init__(self, run: Trace, layers: Sequence[Layer], costs: SiteCosts) -> None:
        image = next((value.shape[2:] for value in run.inputs if len(value.shape) >= 3), ())
        self._pooled = (1,) * len(image)
        sizes = [layer.spatial or self._pooled for layer in layers if layer.kind == "layer"]
        sizes += [cost.resolution for cost in costs.sites if cost.resolution]
        self._band: dict[tuple[int, ...], int] = {}
        self.sizes: list[tuple[int, ...]] = []
        stages: list[set[int]] = []
        largest = 0  # number of positions of the band
        for size in sorted(set(sizes), key=lambda size: (-prod(size), size)):
            if not self.sizes or log2(largest / prod(size)) > _BORDER:
                largest = prod(size)
                self.sizes.append(size)
                stages.append(set())
            elif sizes.count(size) > sizes.count(self.sizes[-1]):
                self.sizes[-1] = size
            self._band[size] = len(self.sizes) - 1
        for cost in costs.sites:
            if cost.resolution and cost.site.stage is not None:
                stages[self._band[cost.resolution]].add(cost.site.stage)
        self.stages = [sorted(found) for found in stages]

    def of(self, spatial: tuple[int, ...]) -> float:
        """Return the height at which a map of this size is drawn: in the closest band, if no layer has it."""
        size = spatial or self._pooled
        closest = min(self._band, key=lambda other: abs(log2(prod(other) / prod(size))))
        return -float(self._band.get(size, self._band[closest]))


class _Picture:
    """The upper panel.

    Args:
        axes: Matplotlib's axes.
        bands: the resolutions.
        items: the boxes.
        x: their centres.
        layers: the layers and joins.
    """

    def __init__(
        self, axes: Any, bands: _Bands, items: Sequence[_Item], x: Sequence[float], layers: Sequence[Layer]
    ) -> None:
        self._axes, self._bands, self._items, self._x, self._layers = axes, bands, items, x, layers
        self.channels = (min(item.channels for item in items), max(item.channels for item in items))
        self.skips = False
        self._with_se = {item.block for item in items if item.site}
        axes.set_ylim(-len(bands.sizes) + 0.5, 0.5 + 0.36)
        axes.spines[:].set_visible(False)
        axes.tick_params(bottom=False, labelbottom=False, left=False)

    def draw_bands(self) -> None:
        """Draw a band for each resolution, with its stages."""
        labels = []
        for index, size in enumerate(self._bands.sizes):
            if index % 2:
                self._axes.axhspan(-index - 0.5, -index + 0.5, color=theme().band, zorder=0, linewidth=0)
            text = "\u00d7".join(map(str, size)) if max(size, default=1) > 1 else "pooled"
            stages = self._bands.stages[index]
            stage = f"\nstage {', '.join(map(str, stages))}" if 1 <= len(stages) <= 3 else ""
            labels.append(text + stage)
        self._axes.set_yticks([-index for index in range(len(labels))], labels, fontsize=8)

    def draw_boxes(self) -> None:
        """Draw layers and sites."""
        from matplotlib.patches import FancyBboxPatch

        for item, x in zip(self._items, self._x, strict=True):
            height, y = self._height(item.channels), self._bands.of(item.spatial)
            colour = _SITE if item.site else _LAYER if item.block in self._with_se else theme().box
            width = 0.5 if item.site else _BOX
            box = FancyBboxPatch(
                (x - width / 2, y - height / 2),
                *(width, height),
                boxstyle="round,pad=0,rounding_size=0.12",
                mutation_aspect=0.25,
                facecolor=colour,
                edgecolor=theme().blend,
                linewidth=0.3,
                zorder=4 if item.site else 3,
            )
            self._axes.add_patch(box)

    def _height(self, channels: int) -> float:
        """Return the height of a box, on a logarithmic scale."""
        low, high = (log2(max(1, number)) for number in self.channels)
        part = (log2(max(1, channels)) - low) / (high - low) if high > low else 0.5
        return _LOWEST + (_HIGHEST - _LOWEST) * part

    def draw_links(self) -> None:
        """Draw what each layer and join reads: solid lines, or dashed ones back to a resolution that was left."""
        from matplotlib.collections import LineCollection

        places = [self._x_of(index) for index in range(len(self._layers))]
        flow: dict[tuple[tuple[float, float], ...], None] = {}
        skips: dict[tuple[tuple[float, float], ...], None] = {}
        for index, layer in enumerate(self._layers):
            y = self._bands.of(layer.spatial)
            for source in layer.sources:
                start = self._bands.of(self._layers[source].spatial)
                between = {self._bands.of(one.spatial) for one in self._layers[source + 1 : index]}
                line = ((places[source], start), (places[index], start), (places[index], y))
                if start == y and between - {y}:
                    skips[line] = None
                else:
                    flow[line] = None
        self.skips = bool(skips)
        self._axes.add_collection(LineCollection(list(flow), colors=theme().box, linewidths=1.1, zorder=1))
        dashed = LineCollection(list(skips), colors=_SKIP, linewidths=1.0, linestyles=(0, (4, 2)), zorder=2)
        self._axes.add_collection(dashed)

    def _x_of(self, index: int) -> float:
        """Return where a layer or join is: a join is at the last box before it, or shortly behind."""
        layer = self._layers[index]
        before = [k for k, item in enumerate(self._items) if item.place <= layer.place + 0.25]
        last = before[-1] if before else 0
        if layer.kind == "layer" or last + 1 == len(self._items):
            return self._x[last]
        return (self._x[last] + self._x[last + 1]) / 2

    def draw_groups(self) -> None:
        """Write the names of the network's parts above them."""
        labels = _groups([item.name for item in self._items])
        y = 0.56
        spans = []
        for label, run in groupby(range(len(labels)), key=labels.__getitem__):
            found = list(run)
            spans.append((label, self._x[found[0]] - 0.5, self._x[found[-1]] + 0.5))
        characters = self._axes.figure.get_figwidth() * 14 / (self._x[-1] + 1.6)  # that fit into a unit of x
        for label, start, end in spans:
            room = int(characters * (end - start))
            text = label if len(label) <= room else label.rpartition(".")[2]
            if len(text) <= room:
                self._axes.plot([start, end], [y, y], color=theme().muted, linewidth=1.0, solid_capstyle="butt")
                self._axes.text(
                    (start + end) / 2,
                    y + 0.08,
                    text,
                    ha="center",
                    va="bottom",
                    fontsize=7.5,
                    parse_math=False,
                )


def _groups(names: Sequence[str]) -> list[str]:
    """Return the part of the network that each module belongs to: the largest is divided while there are few."""
    labels = [name.partition(".")[0] for name in names]
    while True:
        sizes = {label: labels.count(label) for label in labels}
        largest = max(sizes, key=sizes.__getitem__)
        divided = [_deeper(n, label) if label == largest else label for n, label in zip(names, labels, strict=True)]
        large = sizes[largest] > _LARGE * len(names) or len(sizes) < _FEW_GROUPS
        if not large or divided == labels or len(set(divided)) > _MOST_GROUPS:
            return labels
        labels = divided


def _deeper(name: str, label: str) -> str:
    """Return a module one level deeper than a label on the way to a name."""
    rest = name[len(label) :].strip(".")
    step = rest.partition(".")[0]
    return f"{label}.{step}" if step and "." in rest else label


def _draw_costs(axes: Any, items: Sequence[_Item], x: Sequence[float]) -> None:
    """Draw the parameters of SE at each site."""
    places = [place for place, item in zip(x, items, strict=True) if item.site]
    counts = [item.site.params for item in items if item.site]
    visible = max(counts, default=1) / 50
    axes.bar(places, [max(number, visible) for number in counts], width=0.9, color=_SITE, linewidth=0)
    axes.set_ylabel("SE\nparameters", fontsize=8, rotation=0, ha="right", va="center")
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(theme().box)
    most = max(counts, default=1)
    axes.set_yticks([0, most], ["0", short(most)], fontsize=7.5)
    axes.grid(axis="y")
    axes.tick_params(bottom=False, labelbottom=False, left=False)
    axes.set_ylim(0, 1.1 * most)


def _draw_legend(figure: Any, picture: _Picture) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    low, high = picture.channels
    entries: list[Any] = [
        Patch(color=_SITE, label="SE at a site"),
        Patch(color=_LAYER, label=f"layer, {low:,} to {high:,} channels by height (log scale)"),
        Patch(color=theme().box, label="outside of units with SE"),
    ]
    if picture.skips:
        entries.append(Line2D([], [], color=_SKIP, linestyle=(0, (4, 2)), label="back to an earlier resolution"))
    figure.legend(handles=entries, loc="outside lower center", ncols=2 if picture.skips else 3, columnspacing=1.2)
