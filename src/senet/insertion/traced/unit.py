"""A unit of a network, as a run shows it, and its kind."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from senet.graph.operations import Call, Value
from senet.insertion.site import Rule
from senet.insertion.traced.joins import Arm, Join

__all__ = ["Unit", "kind", "pattern", "repeated_kinds"]


@dataclass(frozen=True)
class Unit:
    """A unit of a network, as in `Site.unit`.

    Attributes:
        rule: see `Site.rule`.
        call: of the module that is the unit; None where the network's own forward joins.
        end: the value at the placement "standard": the end of the branch, or the output of the unit.
        join: None where nothing joins.
        branch: the arm with the convolutions; None for a unit of several branches.
        skip: the other arm; None without one.
    """

    rule: Rule
    call: Call | None
    end: Value
    join: Join | None = None
    branch: Arm | None = None
    skip: Arm | None = None

    @property
    def name(self) -> str:
        """The unit's module; empty if it is none."""
        return "" if self.call is None else self.call.name


def pattern(name: str) -> str:
    """Return a module's name with `*` in place of numbers: "layer*.*.conv*"."""
    return re.sub(r"\d+", "*", name)


def kind(unit: Unit) -> object:
    """Return what repeated units have in common: the class of their module, or its name but for numbers."""
    module = None if unit.call is None else unit.call.module
    return pattern(unit.name) if module is None or type(module) is nn.Sequential else type(module)


def repeated_kinds(units: Iterable[Unit]) -> set[object]:
    """Return the kinds that several units have. The branches of one sum are one unit."""
    joined = {(kind(unit), id(unit) if unit.join is None else unit.join.output.number) for unit in units}
    return {one for one, count in Counter(one for one, _ in joined).items() if count > 1}
