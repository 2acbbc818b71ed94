"""What a rewriting did: one row for each module that it changed, or left, and the work that it saved."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from senet.utils.figures import short

__all__ = ["Action", "DeployReport", "Row"]

# In the order of a report.
Action = Literal["folded", "moved", "weights", "replaced", "constant", "removed", "left"]

_HEADINGS: dict[Action, str] = {
    "folded": "batch norms folded into the layer before them",
    "moved": "SE squeezed before its 1x1 convolution",
    "weights": "SE scales the weights of the 1x1 convolution after it",
    "replaced": "SE as one plain module",
    "constant": "SE with constant gates folded or removed",
    "removed": "dropout, stochastic depth, parametrizations and computed weights removed",
    "left": "left unchanged",
}
# The most modules listed in a line.
_LISTED = 4


@dataclass(frozen=True)
class Row:
    """What was done to a module.

    Attributes:
        module: its name in the original network.
        kind: the name of its class.
        action: what was done.
        detail: where it went, or the reason why it was left.

    Examples:
        >>> row = senet.deploy(senet.create_model("se_resnet20").eval()).report.rows[0]
        >>> row.module, row.kind, row.action
        ('bn1', 'BatchNorm2d', 'folded')
    """

    module: str
    kind: str
    action: Action
    detail: str = ""


@dataclass(frozen=True)
class DeployReport:
    """What `senet.deploy` did to a network.

    Attributes:
        rows: by module, in the order of the network.
        macs: multiply-adds of the run on the example, before and after.
        bytes_moved: what the operations of the run read and write in eager mode, weights included, before and after.

    Examples:
        >>> report = senet.deploy(senet.create_model("se_resnet20").eval()).report
        >>> before, after = report.macs
        >>> after <= before, len(report.of("folded"))
        (True, 19)
    """

    rows: tuple[Row, ...]
    macs: tuple[int, int]
    bytes_moved: tuple[int, int]

    def of(self, action: Action) -> list[Row]:
        """Return the rows with an action."""
        return [row for row in self.rows if row.action == action]

    def __str__(self) -> str:
        """Return the rows by action and detail, and the work before and after."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for action, heading in _HEADINGS.items():
            rows = self.of(action)
            if not rows:
                continue
            yield f"{len(rows):4d}  {heading}"
            if action == "folded":
                continue
            for detail, same in groupby(sorted(rows, key=lambda row: row.detail), key=lambda row: row.detail):
                names = [row.module or "the network" for row in same]
                more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED + 1 else ""
                listed = ", ".join(names[:_LISTED] if more else names)
                yield f"      {listed}{more}" + (f": {detail}" if detail else "")
        for what, (before, after) in (("multiply-adds", self.macs), ("bytes moved", self.bytes_moved)):
            change = f" ({100 * (after / before - 1):+.1f} %)" if before else ""
            yield f"{what}: {short(before)} -> {short(after)}{change}"
