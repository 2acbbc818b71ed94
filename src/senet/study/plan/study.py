"""The data of a study: arms that differ in one thing, each with the paper's row that it corresponds to.

An arm is a network with settings of its recipe. A value that equals the default, such as r = 16, has no setting, so
that the standard network is the same run in every study.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from senet.paper import Entry, entries
from senet.utils.errors import unknown_name

__all__ = ["PLAIN", "Study", "StudyArm", "find_entry"]

# Name of the arm without SE.
PLAIN = "plain"


@dataclass(frozen=True)
class StudyArm:
    """A network with settings.

    Attributes:
        name: name of the arm's folder.
        label: name in reports, the paper's where it has one.
        network: a name of `senet.list_models`.
        settings: differences to the recipe, as in `--set`: "network.reduction=4".
        entry: the paper's row of this arm; None where the paper has none.
        against: name of the arm to compare this one to, in a study without a common baseline.
    """

    name: str
    label: str
    network: str
    settings: tuple[str, ...] = ()
    entry: Entry | None = None
    against: str = ""


@dataclass(frozen=True)
class Study:
    """Arms to compare.

    Attributes:
        name: a key of `STUDIES`, "networks", or the stem of a study file.
        title: what varies.
        table: the paper's table, a key of `senet.paper.TITLES`; empty where it has none.
        arms: in the order of the report.
        baseline: name of the arm that the others are compared to. It may be missing from `arms` when only some arms
            are run. Empty: each arm is compared to its `against`, or, where no arm has one, to the first arm.
        needs: keys that the recipe must set.
        notes: arms that were dropped, and why.
    """

    name: str
    title: str
    table: str
    arms: tuple[StudyArm, ...]
    baseline: str
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def arm(self, name: str) -> StudyArm:
        """Return the arm called `name`.

        Raises:
            ValueError: there is none; the message suggests the nearest name.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ValueError(unknown_name("arm", name, [arm.name for arm in self.arms]))

    def only(self, names: Iterable[str]) -> "Study":
        """Return the study with some of its arms. The baseline stays: its runs may exist, or come later.

        Raises:
            ValueError: a name is unknown, or no name is given.
        """
        chosen = {self.arm(name).name for name in names}
        if not chosen:
            raise ValueError(f"no arm is left; choose from {', '.join(arm.name for arm in self.arms)}")
        arms = tuple(arm for arm in self.arms if arm.name in chosen)
        return replace(self, arms=arms)


def find_entry(table: str, label: str) -> Entry:
    """Return the row of one of the paper's tables by its label.

    Raises:
        ValueError: there is none.
    """
    for entry in entries(table):
        if entry.label == label:
            return entry
    raise ValueError(unknown_name(f"row of table {table}", label, [entry.label for entry in entries(table)]))
