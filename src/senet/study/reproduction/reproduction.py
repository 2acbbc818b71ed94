"""The paper's tables alongside what was measured here: runs of each row, and arms of studies that are related to it.

A run measures a row if its network, SE options and data set are the row's: a run on CIFAR-10 is never taken for one on
ImageNet. Other differences to the paper's experiment (epochs, recipe, a part of the images) are listed as deviations.
An arm of a study of another network or other data is shown as related, with its network and data.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike

from senet.paper import ENTRIES, Entry
from senet.study.report.tables import training_length
from senet.study.reproduction.collect import SavedReport, collect
from senet.study.reproduction.commands import commands_of
from senet.study.reproduction.matching import (
    describe_data,
    describe_images,
    describe_network,
    group_by_seed,
    is_of_row,
    measure,
)
from senet.study.reproduction.rows import RelatedArm, Reproduction, Row

__all__ = ["reproduce"]


def reproduce(paths: Sequence[str | PathLike[str]] = ()) -> Reproduction:
    """Read runs, studies and reports, and assign them to the rows of the paper's tables.

    Args:
        paths: output folders of `senet train` and `senet study`, folders of such folders, or a study's report.json.

    Raises:
        ValueError: a path has none of these.
    """
    found = collect(paths)
    rows: list[Row] = []
    used: set[str] = set()
    for entry in ENTRIES:
        commands = commands_of(entry)
        runs = [run for run in found.runs.values() if is_of_row(run, entry)]
        measured = tuple(measure(group, entry, commands) for group in group_by_seed(runs))
        own = {str(run.path) for run in runs}
        related = [(report.path, arm) for report in found.reports for arm in _related_arms(report, entry, own)]
        used |= own | {path for path, _ in related}
        rows.append(
            Row(entry=entry, commands=commands, measured=measured, related=_distinct(arm for _, arm in related))
        )
    in_studies: set[str] = set()
    for report in found.reports:
        inside = set().union(*report.runs.values())
        in_studies |= inside
        if report.path not in used and not inside & used:
            found.unused.append(f"{report.path}: the paper has no row of the study {report.data['title']!r}")
    for path, run in found.runs.items():
        if path not in used and path not in in_studies:
            found.unused.append(f"{path}: the paper has no row of {describe_network(run)} on {describe_data(run)}")
    return Reproduction(tuple(rows), tuple(found.unused))


def _related_arms(report: SavedReport, entry: Entry, measured: set[str]) -> Iterator[RelatedArm]:
    """Yield the arms of a study that correspond to a row and whose runs do not measure it."""
    data = report.data
    labels = {arm["name"]: arm["label"] for arm in data["arms"]}
    images = describe_images(
        data.get("data_set") or data["data"],
        data["training_images"],
        data["validation_images"],
        training_length(data),
    )
    for arm in data["arms"]:
        paper, found = arm["paper"], arm["difference"]
        if paper is None or (paper["table"], paper["label"]) != (entry.table, entry.label) or arm["mean"] is None:
            continue
        if measured & report.runs.get(arm["name"], set()):
            continue
        settings = " ".join(setting.removeprefix("network.") for setting in arm["settings"])
        yield RelatedArm(
            study=data["title"],
            network=f"{arm['network']} {settings}".strip(),
            where=f"{images} with the recipe {data['recipe']}",
            seeds=len(arm["seeds"]),
            mean=arm["mean"],
            half=arm["half"],
            difference=found and found["mean"],
            difference_half=found and found["half"],
            baseline=labels.get(arm["baseline"], ""),
            significant=bool(found and found["significant"]),
        )


def _distinct(arms: Iterable[RelatedArm]) -> tuple[RelatedArm, ...]:
    """Return the arms without those that another study has too."""
    found: dict[RelatedArm, RelatedArm] = {}
    for arm in arms:
        found.setdefault(replace(arm, study=""), arm)
    return tuple(found.values())
