"""Metrics as data: key, name, unit and direction of a number by which a network is judged."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Metric", "Panel"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number by which a network is judged.

    Attributes:
        key: key in `metrics.jsonl` and in JSON output, such as "top1_error".
        name: full name, such as "top-1 error".
        noun: name in a sentence that says which metric it is, such as "error"; by default `name`.
        label: name on an axis; by default `name`.
        unit: such as "%"; empty without one.
        digits: after the decimal point.
        of_images: whether it is the percentage of images for which something holds, whose spread is binomial.
        better: whether a lower or a higher value is better.
        limits: lowest and highest value.
        undefined: value of a result for which the metric is not defined; None if it always is.
        column: head of its column in the table of epochs; empty if it has none.
        progress: format of the value in the line of a step, such as "loss {:.3f}"; empty if it is not shown there.

    Examples:
        >>> from senet.tasks import Metric
        >>> error = Metric(key="top1_error", name="top-1 error", unit="%")
        >>> error.text(23.291), error.is_better(23.29, 24.80)
        ('23.29 %', True)
    """

    key: str
    name: str
    noun: str = ""
    label: str = ""
    unit: str = ""
    digits: int = 2
    of_images: bool = False
    better: Literal["lower", "higher"] = "lower"
    limits: tuple[float, float] = (-math.inf, math.inf)
    undefined: float | None = None
    column: str = ""
    progress: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "noun", self.noun or self.name)
        object.__setattr__(self, "label", self.label or self.name)

    @property
    def axis(self) -> str:
        """Text of an axis: label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def head(self) -> str:
        """Head of a column: noun and unit."""
        return f"{self.noun} {self.unit}".rstrip()

    def number(self, value: float) -> str:
        """Return a value with the metric's digits, or "-" where it is not defined."""
        return "-" if value == self.undefined else f"{value:.{self.digits}f}"

    def text(self, value: float) -> str:
        """Return a value with its unit."""
        number = self.number(value)
        return number if value == self.undefined else f"{number} {self.unit}".rstrip()

    def is_better(self, value: float, other: float) -> bool:
        """Return whether a value is better than another one."""
        return value < other if self.better == "lower" else value > other

    def best(self, values: Iterable[float]) -> float:
        """Return the best of some values."""
        return min(values) if self.better == "lower" else max(values)

    def as_cost(self, value: float) -> float:
        """Return a number that is lower the better the value is."""
        return value if self.better == "lower" else -value


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A plot over epochs: a metric of the validation data, and its counterpart in training.

    Attributes:
        validation: metric of the validation data.
        training: the same number in training; None where it is not known.
    """

    validation: Metric
    training: Metric | None = None
