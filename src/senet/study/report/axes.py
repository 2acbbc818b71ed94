"""The axes of a report's plots: their ends and ticks, and positions on them."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

__all__ = ["QUANTITIES", "Axis", "Quantity", "is_cut", "limits"]

Quantity = Literal["errors", "differences"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


class Axis:
    """A horizontal axis.

    Attributes:
        low, high: values at the left and right end.
        ticks: values with a line and a label.
    """

    def __init__(self, low: float, high: float) -> None:
        from matplotlib.ticker import MaxNLocator

        self.low, self.high = low, high
        ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
        self.ticks = [float(tick) for tick in ticks if low <= tick <= high]

    def position(self, value: float) -> float:
        """Return the position of a value in percent of the width; values outside are at the end."""
        return round(100 * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low), 2)

    @property
    def labels(self) -> list[tuple[float, str]]:
        """Position and label of each tick, with as few digits as the ticks need."""
        digits = max((len(f"{tick:.4f}".rstrip("0").partition(".")[2]) for tick in self.ticks), default=0)
        return [(self.position(tick), f"{round(tick, 4) + 0.0:.{digits}f}") for tick in self.ticks]  # + 0.0: not "-0"


def limits(data: Mapping[str, Any], what: Quantity) -> tuple[float, float]:
    """Return the ends of the axis of errors or differences.

    All points are inside. Intervals of few seeds are so wide that points would be indistinguishable, so intervals
    stretch the axis to at most three times the range of the points, and are cut off there.
    """
    points, ends = [0.0] if what == "differences" else [], []
    for arm in data["arms"]:
        found = arm["difference"] if what == "differences" else {**arm, "values": arm["errors"]}
        if found:
            points += found["values"]
            if found["half"] is not None:
                ends += [found["mean"] - found["half"], found["mean"] + found["half"]]
        if what == "differences" and arm["baseline"] and arm["paper"] and arm["paper"]["difference"] is not None:
            points.append(arm["paper"]["difference"])
    low, high = min(points, default=0.0), max(points, default=1.0)
    span = high - low or abs(high) * 0.1 or 1.0
    low, high = max(low - span, min([low, *ends])), min(high + span, max([high, *ends]))
    margin = 0.06 * (high - low) or 0.5 * span
    return low - margin, high + margin


def is_cut(data: Mapping[str, Any]) -> bool:
    """Return whether an interval extends beyond its axis, see `limits`."""
    for what in QUANTITIES:
        low, high = limits(data, what)
        shown = [arm["difference"] if what == "differences" else arm for arm in data["arms"]]
        intervals = [(one["mean"], one["half"]) for one in shown if one and one["half"] is not None]
        if any(mean - half < low or mean + half > high for mean, half in intervals):
            return True
    return False
