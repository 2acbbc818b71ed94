"""A unit of a network, as a run shows it."""

from dataclasses import dataclass

from senet.graph.operations import Call, Value
from senet.insertion.traced.joins import Arm, Join

__all__ = ["Unit"]


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

    rule: str
    call: Call | None
    end: Value
    join: Join | None = None
    branch: Arm | None = None
    skip: Arm | None = None

    @property
    def name(self) -> str:
        """The unit's module; empty if it is none."""
        return "" if self.call is None else self.call.name
