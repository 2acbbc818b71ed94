"""What folders hold of runs and studies."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from senet.runs.comparison import FinishedRun, read_run
from senet.utils.input_files import file_content, parse_json, reading
from senet.utils.renamed import current_settings

__all__ = ["Found", "Report", "collect"]


@dataclass(frozen=True)
class Report:
    """A study's report, as in its report.json.

    Attributes:
        path: of the study's folder, or of the file.
        data: see `senet.study.report.report_data.as_data`.
        runs: paths of each arm's runs, by its name; empty where the report is kept without them.
    """

    path: str
    data: dict[str, Any]
    runs: dict[str, set[str]] = field(default_factory=dict)


@dataclass
class Found:
    """What folders hold, before it is put beside the paper.

    Attributes:
        runs: complete ones, by the path of their folder.
        reports: of studies; their runs are among the runs.
        unused: what can not be used, with the reason.
    """

    runs: dict[str, FinishedRun] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def collect(paths: Sequence[str | PathLike[str]]) -> Found:
    """Read runs, studies and reports.

    Args:
        paths: output folders of `senet train` and `senet study`, folders of such folders, or a study's report.json.

    Raises:
        ValueError: a path that holds none of these, or a report that is broken.
    """
    found = Found()
    for path in paths:
        if not str(path).strip():  # an empty path would be the working directory
            raise ValueError(f"the name of a folder is empty, got {str(path)!r}; give an output folder or none")
        _collect(Path(path), found)
    return found


def _collect(path: Path, found: Found) -> None:
    """Runs and reports at a path, and in the folders under it."""
    from senet.study.report.report import make_report
    from senet.study.report.report_data import as_data

    if path.is_file():
        found.reports.append(_read_report(path))
        return
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}; give output folders of senet train or senet study")
    before = len(found.runs), len(found.reports), len(found.unused)
    for folder, names, files in os.walk(path):
        names.sort()
        if "study.json" in files:
            try:
                report = make_report(folder)
            except ValueError as error:
                found.unused.append(str(error))
            else:
                found.runs |= {str(run.path): run for run in report.results.runs}
                runs = {one.arm.name: {str(run.path) for run in one.runs.values()} for one in report.results.arms}
                found.reports.append(Report(folder, as_data(report), runs))
            names.clear()
        elif "run.json" in files:
            _collect_run(Path(folder), found)
            names.clear()
        elif "report.json" in files:  # a study's, kept without its runs
            try:
                found.reports.append(_read_report(Path(folder) / "report.json"))
            except ValueError as error:  # another program's, say: it was met, and not asked for
                found.unused.append(str(error))
    if before == (len(found.runs), len(found.reports), len(found.unused)):
        raise ValueError(f"{path} holds no run, study or report; give output folders of senet train or senet study")


def _collect_run(path: Path, found: Found) -> None:
    try:
        run = read_run(path)
    except ValueError as error:
        found.unused.append(str(error))
        return
    if len(run.epochs) != run.settings["epochs"]:
        found.unused.append(f"{path}: {len(run.epochs)} of {run.settings['epochs']} epochs")
    else:
        found.runs[str(path)] = run


def _read_report(path: Path) -> Report:
    with reading(path, message="{name} is no report.json of senet study report ({reason})"):
        data: dict[str, Any] = parse_json(file_content(path))
        _check_keys(data, ("title", "data", "recipe", "training_images", "validation_images", "epochs", "baseline"))
        for arm in data["arms"]:
            _check_keys(arm, ("name", "label", "network", "settings", "seeds", "mean", "half", "baseline"))
            for part, keys in (("paper", ("table", "label")), ("difference", ("mean", "half", "significant"))):
                if arm[part] is not None:
                    _check_keys(arm[part], keys)
            arm["settings"] = current_settings(arm["settings"])
    return Report(str(path), data)


def _check_keys(found: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Whether all are there.

    Raises:
        KeyError, TypeError: one is not, or it is no table at all.
    """
    for key in keys:
        found[key]
