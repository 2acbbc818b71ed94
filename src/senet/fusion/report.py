"""What `senet.fuse` did: one row for each SE module."""

from dataclasses import dataclass
from itertools import groupby

__all__ = ["FuseReport", "FuseRow"]

# The most modules listed in a line.
_LISTED = 4


@dataclass(frozen=True)
class FuseRow:
    """What was done to an SE module.

    Attributes:
        se: its name in the network.
        kind: the name of its class.
        norm: the name of the batch norm that computes it; "" if it was left unchanged.
        activation: between the two: "relu", "relu6", "silu" or "hard_swish"; None without one.
        reason: why it was left unchanged; "" if it is fused.

    Examples:
        >>> import timm
        >>> row = senet.fuse(timm.create_model("mobilenetv3_small_050")).fuse_report.rows[0]
        >>> row.se, row.norm, row.activation
        ('blocks.0.0.se', 'blocks.0.0.bn1', 'relu')
    """

    se: str
    kind: str
    norm: str = ""
    activation: str | None = None
    reason: str = ""

    @property
    def fused(self) -> bool:
        """Whether it is fused."""
        return not self.reason


@dataclass(frozen=True)
class FuseReport:
    """What `senet.fuse` did to a network.

    Attributes:
        rows: by SE module, in the order of the network.

    Examples:
        >>> import timm
        >>> report = senet.fuse(timm.create_model("mobilenetv3_small_050")).fuse_report
        >>> len(report.rows), len(report.fused), report.left
        (9, 9, [])
    """

    rows: tuple[FuseRow, ...]

    @property
    def fused(self) -> list[FuseRow]:
        """The rows of fused SE modules."""
        return [row for row in self.rows if row.fused]

    @property
    def left(self) -> list[FuseRow]:
        """The rows of SE modules that were left unchanged."""
        return [row for row in self.rows if not row.fused]

    def __str__(self) -> str:
        """Return how many SE modules are fused, and the others by reason."""
        lines = [f"{len(self.fused)} of {len(self.rows)} SE modules fused"]
        for reason, rows in groupby(sorted(self.left, key=lambda row: row.reason), key=lambda row: row.reason):
            names = [row.se or "the network" for row in rows]
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED + 1 else ""
            lines.append(f"left unchanged: {', '.join(names[:_LISTED] if more else names)}{more}: {reason}")
        return "\n".join(lines)
