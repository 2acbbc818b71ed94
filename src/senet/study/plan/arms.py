"""Studies as data: the paper's ablations, each a set of arms that differ in one thing, and each arm the paper's row.

An arm is a network and settings of its recipe, and nothing else. Where a value is the default, as r = 16 is, the arm
has no setting for it: the standard network of all studies is one and the same run.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from senet.nn.block import hidden_width
from senet.paper import Entry, entries
from senet.utils.errors import unknown_name

__all__ = ["PLAIN", "STUDIES", "NamedStudy", "Study", "StudyArm", "find_entry", "open_study", "twins"]

# The name of the arm without SE.
PLAIN = "plain"
_RATIOS = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class StudyArm:
    """A network with settings.

    Attributes:
        name: of the arm's folder.
        label: what it is called in reports, in the paper's words where it has some.
        network: a name of `senet.list_models`.
        settings: what differs from the recipe, as of `--set`: "network.reduction=4".
        entry: the paper's row that it stands beside; None where the paper has none.
        against: name of the arm that it is compared to, in a study without a baseline for all.
    """

    name: str
    label: str
    network: str
    settings: tuple[str, ...] = ()
    entry: Entry | None = None
    against: str = ""


@dataclass(frozen=True)
class Study:
    """Arms to be compared.

    Attributes:
        name: of `STUDIES`, or of the file that it is from.
        title: what varies.
        table: of the paper, a key of `senet.paper.TITLES`; empty where it has none.
        arms: in the order in which they are reported.
        baseline: name of the arm that the others are compared to, here or in what the study grows to. Empty where each
            arm says its own (`against`), or else the first arm is.
        needs: keys of the recipe without which it makes no sense.
        notes: what is left out, and why.
    """

    name: str
    title: str
    table: str
    arms: tuple[StudyArm, ...]
    baseline: str
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def arm(self, name: str) -> StudyArm:
        """The arm of a name.

        Raises:
            ValueError: there is none; the message names the nearest one.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ValueError(unknown_name("arm", name, [arm.name for arm in self.arms]))

    def only(self, names: Iterable[str]) -> "Study":
        """The same study with some of its arms. Its baseline stays: that arm may have been run, or be run later.

        Raises:
            ValueError: a name that no arm has, or none at all.
        """
        chosen = {self.arm(name).name for name in names}
        if not chosen:
            raise ValueError(f"no arm is left; choose from {', '.join(arm.name for arm in self.arms)}")
        arms = tuple(arm for arm in self.arms if arm.name in chosen)
        return replace(self, arms=arms)


@dataclass(frozen=True)
class NamedStudy:
    """A study of `STUDIES`, before the network is known.

    Attributes:
        title: what varies.
        table: of the paper.
        arms: of the plain network and the same one with SE, by name, those with SE.
        needs: as of `Study`.
    """

    title: str
    table: str
    arms: Callable[[str, str], Iterable[StudyArm]]
    needs: tuple[str, ...] = ()


def open_study(name: str | PathLike[str], network: str | None = None, *, data: str = "") -> Study:
    """A study by its name, or of a TOML file of one's own.

    Args:
        name: of `STUDIES`, or a path that ends in `.toml`, see `senet.study.plan.study_file`.
        network: plain or with SE, which comes to the same; "networks" has its own, and so may a file.
        data: spec of the data: "networks" stands beside Table 5 on CIFAR-100, and beside Table 4 on anything else.

    Raises:
        ValueError: no such study or network, the message names the nearest one; or a network is missing, or given
            where the study has its own.
    """
    from senet.models import network as row_of
    from senet.models import plain_name

    if str(name).endswith(".toml"):
        from senet.study.plan.study_file import read_study

        return read_study(name, network)
    if name == "networks":
        return _networks(network, "5" if re.search("cifar-?100", data, re.IGNORECASE) else "4")
    if name not in STUDIES:
        raise ValueError(f"{unknown_name('study', str(name), [*STUDIES, 'networks'])} Or a path that ends in .toml.")
    if network is None:
        raise ValueError(f"the study {name!r} varies one network: give --network NAME, such as resnet20")
    found = STUDIES[str(name)]
    plain = plain_name(network)
    # Each ablation's baseline is the same network; the paper has none that is fine-tuned.
    entry = find_entry("10", "no SE") if found.table else None
    arms = (StudyArm(PLAIN, "no SE", plain, (), entry), *found.arms(plain, row_of(plain).se_name))
    arms, notes = _without_twins(plain, arms)
    return Study(str(name), found.title, found.table, arms, PLAIN, found.needs, notes)


def find_entry(table: str, label: str) -> Entry:
    """The paper's row of a table by what the paper calls it.

    Raises:
        ValueError: there is none.
    """
    for entry in entries(table):
        if entry.label == label:
            return entry
    raise ValueError(unknown_name(f"row of table {table}", label, [entry.label for entry in entries(table)]))


def twins(plain: str, ratios: Iterable[float]) -> dict[float, float]:
    """Reduction ratios that make the same network as an earlier one: their hidden layers have as many units everywhere.

    Args:
        plain: name of the plain network.
        ratios: in order.

    Returns:
        The ratio that it equals, by ratio.
    """
    seen: dict[tuple[int, ...], float] = {}
    found = {}
    channels = [site.channels for site in _sites(plain)]
    for ratio in ratios:
        hidden = tuple(hidden_width(count, ratio) for count in channels)
        if hidden in seen:
            found[ratio] = seen[hidden]
        seen.setdefault(hidden, ratio)
    return found


def _arms(*rows: tuple[str, str, dict[str, Any], str, str]) -> Callable[[str, str], Iterable[StudyArm]]:
    """Rows of name, label, options of SE, and the paper's table and row (both empty where there is none)."""

    def make(_: str, network: str) -> Iterable[StudyArm]:
        for name, label, options, table, row in rows:
            settings = tuple(f"network.{key}={value}" for key, value in options.items())
            yield StudyArm(name, label, network, settings, find_entry(table, row) if table else None)

    return make


def _stages(plain: str, network: str) -> Iterable[StudyArm]:
    """SE in one stage, for each stage of the network; and in all."""
    rows = {entry.label: entry for entry in entries("13")}
    for stage in sorted({site.stage for site in _sites(plain)}):
        label = f"stage {stage}"
        yield StudyArm(f"stage-{stage}", label, network, (f"network.stages={stage}",), rows.get(label))
    yield StudyArm("all-stages", "all stages", network, (), rows["all stages"])


def _sites(plain: str) -> Any:
    """Where SE goes in a network, which is built without values."""
    import torch

    from senet.insertion.sites import find_sites
    from senet.models import build_plain

    with torch.device("meta"):
        model = build_plain(plain)
    return find_sites(model)


def _without_twins(plain: str, arms: Iterable[StudyArm]) -> tuple[tuple[StudyArm, ...], tuple[str, ...]]:
    """Arms without those reduction ratios that make another arm's network, and what was left out."""
    arms = tuple(arms)
    names = {f"reduction-{ratio}": ratio for ratio in _RATIOS}
    there = [names[arm.name] for arm in arms if arm.name in names]
    if not there:
        return arms, ()
    same = twins(plain, sorted(there, key=lambda ratio: ratio != 16))  # that of r = 16 is the network as it is
    kept = tuple(arm for arm in arms if names.get(arm.name) not in same)
    return kept, tuple(
        f"r = {ratio} is left out: the hidden layers have as many units as with r = {other:g}, so that it is the same "
        f"network"
        for ratio, other in same.items()
    )


def _networks(network: str | None, table: str) -> Study:
    """Each network of Tables 4 and 5, plain and with SE; each with SE is compared to its plain twin."""
    from senet.models import CATALOGUE, plain_name

    if network is not None:
        raise ValueError(f"the study 'networks' has networks of its own; leave out --network {network}")
    rows = {entry.network: entry for entry in entries(table)}
    labels = {entry.network: entry.label for entry in entries("4", "5")}
    arms = tuple(
        StudyArm(name, labels[name], name, (), rows.get(name), "" if name in CATALOGUE else plain_name(name))
        for name in labels
    )
    return Study("networks", "networks, plain and with SE", table, arms, "")


STUDIES: dict[str, NamedStudy] = {
    "reduction": NamedStudy(
        "reduction ratio r",
        "10",
        _arms(
            *((f"reduction-{r}", f"r = {r}", {} if r == 16 else {"reduction": r}, "10", f"r = {r}") for r in _RATIOS)
        ),
    ),
    "squeeze": NamedStudy(
        "squeeze",
        "11",
        _arms(("squeeze-max", "max", {"squeeze": "max"}, "11", "max"), ("squeeze-avg", "average", {}, "11", "average")),
    ),
    "gate": NamedStudy(
        "excitation",
        "12",
        _arms(
            ("gate-relu", "ReLU", {"gate": "relu"}, "12", "ReLU"),
            ("gate-tanh", "tanh", {"gate": "tanh"}, "12", "tanh"),
            ("gate-sigmoid", "sigmoid", {}, "12", "sigmoid"),
        ),
    ),
    "stages": NamedStudy("stages with SE", "13", _stages),
    "placement": NamedStudy(
        "placement",
        "14",
        _arms(
            ("standard", "standard", {}, "14", "standard"),
            ("pre", "PRE", {"placement": "pre"}, "14", "PRE"),
            ("post", "POST", {"placement": "post"}, "14", "POST"),
            ("identity", "Identity", {"placement": "identity"}, "14", "Identity"),
        ),
    ),
    "conv3x3": NamedStudy(
        "placement inside the branch",
        "15",
        _arms(
            ("standard", "standard", {}, "14", "standard"),
            ("conv3x3", "SE_3x3", {"placement": "conv3x3"}, "15", "SE_3x3"),
        ),
    ),
    "nosqueeze": NamedStudy(
        "no squeeze",
        "16",
        _arms(
            ("standard", "standard", {}, "14", "standard"),
            ("nosqueeze", "NoSqueeze", {"squeeze": "none"}, "16", "NoSqueeze"),
        ),
    ),
    "start": NamedStudy(
        "start of SE in a pretrained network",
        "",
        _arms(
            ("start-identity", "SE from identity", {"missing": "gates", "init": "identity"}, "", ""),
            ("start-paper", "SE from the paper's start", {"missing": "gates", "init": "paper"}, "", ""),
        ),
        needs=("network.weights",),
    ),
}
