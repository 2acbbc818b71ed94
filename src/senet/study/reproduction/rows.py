"""The paper's rows as data: each with the runs that measure it, and arms of studies that are related to it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from senet.paper import TITLES, Entry
from senet.study.data_sets import DATA_SETS
from senet.study.reproduction.commands import RowCommands, study_command

__all__ = ["Measured", "RelatedArm", "Reproduction", "Row", "Status"]

# As in the paper; with other settings; a study of another network or other data; not yet; senet cannot.
Status = Literal["measured", "other settings", "related", "missing", "unsupported"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Runs of a row that differ in their seeds alone.

    Attributes:
        runs: paths of their folders.
        seeds: their seeds.
        mean, half: top-1 error in percent after the last epoch, and half of its 95 % interval; None for one seed. Of a
            detector AP at an overlap of 0.5.
        top5: mean top-5 error in percent; of a detector AP.
        where: data set, training and validation images, and epochs.
        deviations: differences to the paper's experiment; empty where none is known.
        second: name of the metric in `top5`.
    """

    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    mean: float
    half: float | None
    top5: float
    where: str
    deviations: tuple[str, ...]
    second: str = "top-5"


@dataclass(frozen=True, kw_only=True)
class RelatedArm:
    """An arm of a study that corresponds to a row, with another network, other data, or other options of SE.

    Attributes:
        study: title of the study.
        network: network of the arm, with its settings.
        where: data set, training and validation images, epochs and recipe.
        seeds: number of seeds.
        mean, half: top-1 error in percent after the last epoch, and half of its 95 % interval; None for one seed.
        difference, difference_half: difference to the study's baseline, paired by seed; None for the baseline.
        baseline: label of the baseline; empty for the baseline.
        significant: whether the difference is significant after Holm's correction.
    """

    study: str
    network: str
    where: str
    seeds: int
    mean: float
    half: float | None
    difference: float | None
    difference_half: float | None
    baseline: str
    significant: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the paper.

    Attributes:
        entry: the paper's figures.
        commands: commands that measure it; None where senet cannot.
        measured: runs that measure it.
        related: arms of studies that correspond to it.
    """

    entry: Entry
    commands: RowCommands | None
    measured: tuple[Measured, ...]
    related: tuple[RelatedArm, ...]

    @property
    def status(self) -> Status:
        """How far the row is measured."""
        if any(not one.deviations for one in self.measured):
            return "measured"
        if self.measured:
            return "other settings"
        if self.related:
            return "related"
        return "missing" if self.commands is not None else "unsupported"


@dataclass(frozen=True)
class Reproduction:
    """All of the paper's tables.

    Attributes:
        rows: in the paper's order.
        unused: runs and studies that no row has, each with the reason.
    """

    rows: tuple[Row, ...]
    unused: tuple[str, ...] = ()

    def tables(self) -> list[tuple[str, list[Row]]]:
        """Return the key of each table, with its rows."""
        return [(key, [row for row in self.rows if row.entry.table == key]) for key in TITLES]

    def as_data(self) -> list[dict[str, Any]]:
        """Return every row as JSON values."""
        return [
            {
                "table": row.entry.table,
                "label": row.entry.label,
                "network": row.entry.network,
                "options": dict(row.entry.options),
                "size": row.entry.size,
                "data_set": DATA_SETS[row.entry.table].name,
                "top1_error": row.entry.top1,
                "top5_error": row.entry.top5,
                "precision": row.entry.precision,
                "status": row.status,
                "measured": [asdict(one) for one in row.measured],
                "related": [asdict(one) for one in row.related],
                "commands": [] if row.commands is None else list(row.commands.lines),
                "study": study_command(row.entry.table),
                "limitation": "" if row.commands is None else row.commands.limitation,
            }
            for row in self.rows
        ]
