"""The paper's tables beside what was measured here: each row with the runs that are of it, of studies like it, or none.

A run is of a row if network, SE options and data set are the row's: a run on CIFAR-10 is never taken for one on
ImageNet. In what it differs from the paper's settings is said with it: epochs, recipe, a part of the images. An arm of
a study that only stands beside a row is shown as such, with the network and the data that it was measured on.
"""

import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import Any

import numpy as np

from senet.paper import ENTRIES, TITLES, Entry
from senet.recipes.recipe import FREE
from senet.recipes.toml import load_recipe
from senet.runs.comparison import FinishedRun, estimate
from senet.study.report.collecting import Report, collect
from senet.study.reproduction.commands import Way, study_command, way_of
from senet.study.reproduction.data_sets import DATA_SETS, data_set_of, training_images

__all__ = ["Beside", "Measured", "Reproduction", "Row", "reproduce"]

_SE = ("placement", "reduction", "squeeze", "gate", "bias", "stages", "at")
_MOST_DEVIATIONS = 4


@dataclass(frozen=True)
class Measured:
    """Runs of a row that differ in their seeds alone.

    Attributes:
        runs: paths of their folders.
        seeds: of them.
        mean, half: of the top-1 error after the last epoch, and of its 95 % interval; None for one seed.
        top5: mean of the top-5 error.
        where: data set, with training and validation images, and epochs.
        deviations: in what they are not as in the paper; empty where nothing is known to differ.
    """

    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    mean: float
    half: float | None
    top5: float
    where: str
    deviations: tuple[str, ...]


@dataclass(frozen=True)
class Beside:
    """An arm of a study that stands beside a row: another network, other data, or other options of SE.

    Attributes:
        study: title of it.
        network: of the arm, with its settings.
        where: data set, with training and validation images, epochs and recipe.
        seeds: how many.
        mean, half: of the top-1 error after the last epoch, and of its 95 % interval; None for one seed.
        difference, difference_half: to the study's baseline, paired by seed; None for the baseline itself.
        baseline: what that one is called; empty for itself.
        significant: whether the difference is, after Holm's correction.
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


@dataclass(frozen=True)
class Row:
    """A row of the paper.

    Attributes:
        entry: the paper's.
        way: to measure it; None where senet cannot.
        measured: runs of it.
        beside: of studies that stand beside it.
    """

    entry: Entry
    way: Way | None
    measured: tuple[Measured, ...]
    beside: tuple[Beside, ...]

    @property
    def status(self) -> str:
        """What of the row there is: "measured", "otherwise" (other settings), "beside", "missing" or "impossible"."""
        if any(not one.deviations for one in self.measured):
            return "measured"
        if self.measured:
            return "otherwise"
        if self.beside:
            return "beside"
        return "missing" if self.way is not None else "impossible"


@dataclass(frozen=True)
class Reproduction:
    """All of the paper's tables.

    Attributes:
        rows: in the paper's order.
        unused: what was given and is of no row, with the reason.
    """

    rows: tuple[Row, ...]
    unused: tuple[str, ...] = ()

    def tables(self) -> list[tuple[str, list[Row]]]:
        """The rows of each table, by its key."""
        return [(key, [row for row in self.rows if row.entry.table == key]) for key in TITLES]

    def as_data(self) -> list[dict[str, Any]]:
        """Every row as data."""
        return [
            {
                "table": row.entry.table,
                "label": row.entry.label,
                "network": row.entry.network,
                "options": dict(row.entry.options),
                "size": row.entry.size,
                "data_set": DATA_SETS[row.entry.table].name if row.entry.table in DATA_SETS else "COCO",
                "top1_error": row.entry.top1,
                "top5_error": row.entry.top5,
                "precision": row.entry.precision,
                "status": row.status,
                "measured": [asdict(one) for one in row.measured],
                "beside": [asdict(one) for one in row.beside],
                "commands": [] if row.way is None else list(row.way.command),
                "study": study_command(row.entry.table),
                "lacking": "" if row.way is None else row.way.lacking,
            }
            for row in self.rows
        ]


def reproduce(paths: Sequence[str | PathLike[str]] = ()) -> Reproduction:
    """Put what was measured beside the paper's tables.

    Args:
        paths: output folders of `senet train` and `senet study`, folders of such folders, or a study's report.json.

    Raises:
        ValueError: a path that holds none of these.
    """
    found = collect(paths)
    rows: list[Row] = []
    used: set[str] = set()
    for entry in ENTRIES:
        way = way_of(entry)
        of_it = [run for run in found.runs.values() if _is_of(run, entry)]
        measured = tuple(_measured(runs, entry, way) for runs in _groups(of_it))
        own = {str(run.path) for run in of_it}
        beside = [(report.path, one) for report in found.reports for one in _arms_beside(report, entry, own)]
        used |= own | {path for path, _ in beside}
        rows.append(Row(entry, way, measured, _distinct(one for _, one in beside)))
    in_studies: set[str] = set()
    for report in found.reports:
        inside = set().union(*report.runs.values())
        in_studies |= inside
        if report.path not in used and not inside & used:
            found.unused.append(f"{report.path}: the paper has no row of the study {report.data['title']!r}")
    for path, run in found.runs.items():
        if path not in used and path not in in_studies:
            found.unused.append(f"{path}: the paper has no row of {_name(run)} on {_where_of(run)}")
    return Reproduction(tuple(rows), tuple(found.unused))


def _is_of(run: FinishedRun, entry: Entry) -> bool:
    """Whether network, SE options and data set are a row's; and the size of the images, where a row is about that."""
    if entry.network != run.network or entry.table not in DATA_SETS or entry.table == "release":
        return False
    if data_set_of(run) is not DATA_SETS[entry.table]:
        return False
    if entry.table == "8" and (entry.size, run.settings["crop_size"]) != (224, 224):
        return False  # errors on larger crops are measured by senet evaluate, and are in no run
    if entry.table == "9" and run.settings["crop_size"] != entry.size:
        return False
    return _se_options(_options(run)) == _se_options(entry.options)


def _se_options(options: Any) -> dict[str, Any]:
    """Those that are not as they are unless given."""
    from senet.insertion.insert import insert

    usual = {name: one.default for name, one in inspect.signature(insert).parameters.items()}
    return {key: value for key, value in options.items() if key in _SE and value != usual[key]}


def _options(run: FinishedRun) -> dict[str, Any]:
    return {key.removeprefix("network."): v for key, v in run.settings.items() if key.startswith("network.")}


def _groups(runs: Iterable[FinishedRun]) -> list[list[FinishedRun]]:
    """Runs that differ in nothing but the seed; a copy of a run is no second one."""
    groups: dict[str, dict[int, FinishedRun]] = {}
    for run in runs:
        traits = json.dumps([run.traits, run.images], sort_keys=True, default=str)
        groups.setdefault(traits, {}).setdefault(run.settings["seed"], run)
    return [[group[seed] for seed in sorted(group)] for group in groups.values()]


def _measured(runs: list[FinishedRun], entry: Entry, way: Way | None) -> Measured:
    last = [run.epochs[-1] for run in runs]
    found = estimate(np.array([epoch["top1_error"] for epoch in last]))
    return Measured(
        tuple(str(run.path) for run in runs),
        tuple(run.settings["seed"] for run in runs),
        float(found.mean),
        None if len(runs) == 1 else float(found.half),
        float(np.mean([epoch["top5_error"] for epoch in last])),
        _where_of(runs[0]),
        tuple(_deviations(runs[0], entry, way)),
    )


def _deviations(run: FinishedRun, entry: Entry, way: Way | None) -> Iterable[str]:
    """In what a run is not as in the paper, as far as the recipe says it."""
    known = DATA_SETS[entry.table]
    for what, count, paper in (
        ("training", training_images(run), known.training),
        ("validation", int(run.images["images"]), known.validation),
    ):
        if count != paper:
            yield f"{count:,} {what} images for {paper:,}"
    if way is None or not way.recipe:
        return
    recipe = asdict(load_recipe(way.recipe, way.settings))
    expected = recipe | {f"network.{key}": value for key, value in recipe.pop("network").items()}
    expected.pop("network", None)
    expected |= {f"network.{key}": value for key, value in entry.options.items()}
    skipped = {"seed", *FREE, *(f"network.{key}" for key in _SE), "network.num_classes", "network.in_channels"}
    differing = [
        f"{key} = {run.settings.get(key, 'none')} for {expected.get(key, 'none')}"
        for key in expected.keys() | run.settings.keys()
        if key not in skipped and run.settings.get(key) != expected.get(key)
    ]
    differing.sort(key=lambda text: (not text.startswith("epochs"), text))
    yield from differing[:_MOST_DEVIATIONS]
    if len(differing) > _MOST_DEVIATIONS:
        yield f"and {len(differing) - _MOST_DEVIATIONS} more settings"
    if way.lacking:
        yield f"without {way.lacking.partition(',')[0]}"


def _distinct(arms: Iterable[Beside]) -> tuple[Beside, ...]:
    """One that is in several studies once."""
    found: dict[Beside, Beside] = {}
    for one in arms:
        found.setdefault(replace(one, study=""), one)
    return tuple(found.values())


def _arms_beside(report: Report, entry: Entry, measured: set[str]) -> Iterable[Beside]:
    """Arms of a study that stand beside a row, and whose runs are no measurement of it."""
    data = report.data
    labels = {arm["name"]: arm["label"] for arm in data["arms"]}
    for arm in data["arms"]:
        paper, found = arm["paper"], arm["difference"]
        if paper is None or (paper["table"], paper["label"]) != (entry.table, entry.label) or arm["mean"] is None:
            continue
        if measured & report.runs.get(arm["name"], set()):
            continue
        settings = " ".join(setting.removeprefix("network.") for setting in arm["settings"])
        yield Beside(
            data["title"],
            f"{arm['network']} {settings}".strip(),
            _where(
                data.get("data_set") or data["data"],
                data["training_images"],
                data["validation_images"],
                " or ".join(map(str, data["epochs"])),
            )
            + f" of the recipe {data['recipe']}",
            len(arm["seeds"]),
            arm["mean"],
            arm["half"],
            found and found["mean"],
            found and found["half"],
            labels.get(arm["baseline"], ""),
            bool(found and found["significant"]),
        )


def _name(run: FinishedRun) -> str:
    options = " ".join(f"{key}={value}" for key, value in _se_options(_options(run)).items())
    return f"{run.network} {options}".strip()


def _where_of(run: FinishedRun) -> str:
    known = data_set_of(run)
    name = run.data if known is None else known.name
    return _where(name, training_images(run), run.images.get("images"), str(run.settings["epochs"]))


def _where(name: str, training: int, validation: Any, epochs: str) -> str:
    unit = "epoch" if epochs == "1" else "epochs"
    return f"{name} ({training:,} training and {validation:,} validation images), {epochs} {unit}"
