"""Find runs, studies and reports in folders."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from senet.runs.finished import FinishedRun, read_run
from senet.runs.folder import RunFolder
from senet.study.report.report import make_report
from senet.study.report.report_data import as_data
from senet.utils.input_files import file_content, parse_json, reading
from senet.utils.renamed import current_settings

__all__ = ["Collection", "SavedReport", "collect"]


@dataclass(frozen=True)
class SavedReport:
    """A study's report, as in report.json.

    Attributes:
        path: path of the study's folder, or of the file.
        data: see `senet.study.report.report_data.as_data`.
        runs: paths of each arm's runs, by the arm's name; empty for a report without its runs.
    """

    path: str
    data: dict[str, Any]
    runs: dict[str, set[str]] = field(default_factory=dict)


@dataclass
class Collection:
    """Runs and reports in folders.

    Attributes:
        runs: complete runs by the path of their folder.
        reports: reports of studies, whose runs are among `runs`.
        unused: incomplete and damaged runs and studies, each with the reason.
    """

    runs: dict[str, FinishedRun] = field(default_factory=dict)
    reports: list[SavedReport] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def collect(paths: Sequence[str | PathLike[str]]) -> Collection:
    """Find runs, studies and reports, and read them.

    Args:
        paths: output folders of `senet train` and `senet study`, folders of such folders, or a study's report.json.

    Raises:
        ValueError: a path has none of these, or is a broken report.
    """
    found = Collection()
    for path in paths:
        if not str(path).strip():  # an empty path would be the working directory
            raise ValueError(f"expected the path of an output folder, got {str(path)!r}")
        _collect(Path(path), found)
    return found


def _collect(path: Path, found: Collection) -> None:
    """Add the runs and reports at a path, and in the folders under it."""
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
                found.reports.append(SavedReport(folder, as_data(report), runs))
            names.clear()
        elif RunFolder(Path(folder)).is_run:
            _collect_run(Path(folder), found)
            names.clear()
        elif "report.json" in files:  # of a study, without its runs
            try:
                found.reports.append(_read_report(Path(folder) / "report.json"))
            except ValueError as error:  # such as another program's file
                found.unused.append(str(error))
    if before == (len(found.runs), len(found.reports), len(found.unused)):
        raise ValueError(f"{path} has no run, study or report; give output folders of senet train or senet study")


def _collect_run(path: Path, found: Collection) -> None:
    try:
        run = read_run(path)
    except ValueError as error:
        found.unused.append(str(error))
        return
    if len(run.epochs) != run.all_epochs:
        found.unused.append(f"{path}: {len(run.epochs)} of {run.all_epochs} epochs")
    else:
        found.runs[str(path)] = run


def _read_report(path: Path) -> SavedReport:
    with reading(path, message="{name} is no report.json of senet study report ({reason})"):
        data: dict[str, Any] = parse_json(file_content(path))
        _check_keys(data, ("title", "data", "recipe", "training_images", "validation_images", "epochs", "baseline"))
        for arm in data["arms"]:
            _check_keys(arm, ("name", "label", "network", "settings", "seeds", "mean", "half", "baseline"))
            for part, keys in (("paper", ("table", "label")), ("difference", ("mean", "half", "significant"))):
                if arm[part] is not None:
                    _check_keys(arm[part], keys)
            arm["settings"] = current_settings(arm["settings"])
    return SavedReport(str(path), data)


def _check_keys(found: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Check that a table has keys.

    Raises:
        KeyError, TypeError: a key is missing, or it is no table.
    """
    for key in keys:
        found[key]
