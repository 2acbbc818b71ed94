"""The named studies: the paper's ablations, its networks on CIFAR, and initializations of SE for fine-tuning."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from os import PathLike
from typing import Any

from senet.insertion.sites import find_sites
from senet.models import CATALOGUE, build_plain, plain_name
from senet.models import network as row_of
from senet.models.detector_names import is_detector
from senet.nn.block import hidden_width
from senet.paper import entries
from senet.study.plan.study import PLAIN, Study, StudyArm, find_entry
from senet.study.plan.study_file import read_study
from senet.utils.errors import unknown_name

__all__ = ["OLD_NAMES", "STUDIES", "NamedStudy", "duplicate_ratios", "open_study"]

# Names of version 0.1.
OLD_NAMES = {"start": "init"}
_RATIOS = (2, 4, 8, 16, 32)
# Keys of classifiers, and what a detector has instead.
_OF_DETECTORS = {"network.weights": "network.backbone_weights"}


@dataclass(frozen=True)
class NamedStudy:
    """A study of `STUDIES`, before the network is known.

    Attributes:
        title: what varies.
        table: the paper's table; empty where it has none.
        arms: function of the names of the plain network and of the same network with SE; yields the arms with SE.
        needs: keys that the recipe must set.
    """

    title: str
    table: str
    arms: Callable[[str, str], Iterable[StudyArm]]
    needs: tuple[str, ...] = ()


def open_study(name: str | PathLike[str], network: str | None = None, *, data: str = "") -> Study:
    """Return a named study, or read a study file.

    Args:
        name: a key of `STUDIES`, "networks", or a path that ends in `.toml`, see `senet.study.plan.study_file`.
        network: name of the network, plain or with SE (both mean the same study). "networks" names its own, and a file
            may.
        data: spec of the data; selects the paper's table for "networks": 5 on CIFAR-100, 4 on anything else.

    Raises:
        ValueError: the study or the network is unknown (the message suggests the nearest name), the network is missing,
            or it is given to a study that names its own.
    """
    if str(name).endswith(".toml"):
        return read_study(name, network)
    if name == "networks":
        return _networks(network, "5" if re.search("cifar-?100", data, re.IGNORECASE) else "4")
    name = OLD_NAMES.get(str(name), str(name))
    if name not in STUDIES:
        raise ValueError(f"{unknown_name('study', name, [*STUDIES, 'networks'])} Or a path that ends in .toml.")
    if network is None:
        raise ValueError(f"the study {name!r} varies one network: give --network NAME, such as resnet20")
    found = STUDIES[name]
    plain = plain_name(network)
    # All ablations share one baseline. The paper fine-tunes nothing.
    entry = find_entry("10", "no SE") if found.table else None
    arms = (StudyArm(PLAIN, "no SE", plain, (), entry), *found.arms(plain, row_of(plain).se_name))
    arms, notes = _drop_duplicate_ratios(plain, arms)
    needs = tuple(_OF_DETECTORS.get(key, key) for key in found.needs) if is_detector(plain) else found.needs
    return Study(name=name, title=found.title, table=found.table, arms=arms, baseline=PLAIN, needs=needs, notes=notes)


def duplicate_ratios(plain: str, ratios: Iterable[float]) -> dict[float, float]:
    """Find reduction ratios that build the same network as an earlier ratio: all hidden widths are equal.

    Args:
        plain: name of the plain network.
        ratios: in order of preference.

    Returns:
        The earlier ratio of each duplicate.
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
    """Return a function that yields an arm for each row: name, label, SE options, the paper's table and row."""

    def make(_: str, network: str) -> Iterable[StudyArm]:
        for name, label, options, table, row in rows:
            settings = tuple(f"network.{key}={value}" for key, value in options.items())
            yield StudyArm(name, label, network, settings, find_entry(table, row) if table else None)

    return make


def _stages(plain: str, network: str) -> Iterable[StudyArm]:
    """Yield an arm with SE in one stage for each stage of the network, then the arm with SE in all."""
    rows = {entry.label: entry for entry in entries("13")}
    for stage in sorted({site.stage for site in _sites(plain)}):
        label = f"stage {stage}"
        yield StudyArm(f"stage-{stage}", label, network, (f"network.stages={stage}",), rows.get(label))
    yield StudyArm("all-stages", "all stages", network, (), rows["all stages"])


def _sites(plain: str) -> Any:
    """Find the SE sites of a network, built on the meta device."""
    import torch

    with torch.device("meta"):
        model = build_plain(plain)
    return find_sites(model)


def _drop_duplicate_ratios(plain: str, arms: Iterable[StudyArm]) -> tuple[tuple[StudyArm, ...], tuple[str, ...]]:
    """Drop reduction ratios that build another arm's network; return the arms that are left, and a note for each."""
    arms = tuple(arms)
    names = {f"reduction-{ratio}": ratio for ratio in _RATIOS}
    there = [names[arm.name] for arm in arms if arm.name in names]
    if not there:
        return arms, ()
    duplicates = duplicate_ratios(plain, sorted(there, key=lambda ratio: ratio != 16))  # keep the default, r = 16
    kept = tuple(arm for arm in arms if names.get(arm.name) not in duplicates)
    return kept, tuple(
        f"dropped r = {ratio}: its hidden layers have as many units as with r = {other:g}, so the network is the same"
        for ratio, other in duplicates.items()
    )


def _networks(network: str | None, table: str) -> Study:
    """Return the study of all networks of Tables 4 and 5; each network with SE is compared to its plain twin."""
    if network is not None:
        raise ValueError(f"the study 'networks' names its own networks; leave out --network {network}")
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
    "attention": NamedStudy(
        "channel attention",
        "",
        _arms(
            ("attention-se", "SE", {}, "", ""),
            ("attention-eca", "ECA", {"attention": "eca"}, "", ""),
            ("attention-ese", "effective SE", {"attention": "ese"}, "", ""),
        ),
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
    "init": NamedStudy(
        "initialization of SE in a pretrained network",
        "",
        _arms(
            ("init-identity", "SE, init=identity", {"missing": "gates", "init": "identity"}, "", ""),
            ("init-paper", "SE, init=paper", {"missing": "gates", "init": "paper"}, "", ""),
        ),
        needs=("network.weights",),
    ),
}
