"""A report as data: the content of report.json, from which its table, page and plot are made."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from senet.paper import TITLES
from senet.runs.finished import FinishedRun
from senet.study.data_sets import data_set_of, training_images
from senet.study.report.report import ArmReport, StudyReport
from senet.study.report.report_text import with_text
from senet.study.report.statistics import ALPHA, POWER, Paired
from senet.study.report.tables import short_paths

__all__ = ["as_data"]


def as_data(report: StudyReport) -> dict[str, Any]:
    """Return a report as JSON values; unknown values are None."""
    plan, first = report.results.plan, report.results.runs[0]
    known = data_set_of(first)
    metric = first.task.decisive
    tau, p = report.order.tau, report.order.p
    agree, compared = report.signs
    data: dict[str, Any] = {
        "study": plan.study.name,
        "title": report.title,
        "table": plan.study.table,
        "table_title": TITLES.get(plan.study.table, ""),
        "metric": {key: getattr(metric, key) for key in ("key", "name", "noun", "unit", "better", "of_images")},
        "baseline": report.baseline,
        "data": short_paths(plan.data),
        "validation": short_paths(first.validation),
        "data_set": None if known is None else known.name,
        "classes": first.images.get("classes"),
        "training_images": training_images(first),
        "validation_images": first.images.get("images"),
        "recipe": Path(plan.recipe).name,
        "settings": [short_paths(setting) for setting in plan.settings],
        **{key: _lengths(report, key) for key in ("epochs", "iterations")},
        "counted": {"part": first.task.trunk_name, "sizes": _sizes(report)},
        "seeds": list(plan.seeds),
        "runs": len(report.results.runs),
        "planned": len(plan.runs),
        "alpha": ALPHA,
        "power": POWER,
        "tests": report.tests,
        "comparisons": report.comparisons,
        "order": {"arms": report.order.arms, "tau": tau, "p": p},
        "signs": {"agree": agree, "arms": compared},
        "arms": [_arm(arm) for arm in report.arms],
        "left_out": [
            {"arm": one.arm, "seed": one.seed, "reason": short_paths(one.reason), "failed": one.failed}
            for one in report.results.missing
        ],
        "study_notes": list(plan.study.notes),
    }
    if sum(arm["paper"] is not None for arm in data["arms"]) < 2:  # a single row gives no difference
        for arm in data["arms"]:
            arm["paper"] = None
    return with_text(data)


def _lengths(report: StudyReport, key: str) -> list[int]:
    return sorted({run.settings[key] for run in report.results.runs} - {0})


def _sizes(report: StudyReport) -> list[str]:
    """Return the sizes of images for which multiply-adds are known."""
    costs = [arm.runs.cost for arm in report.arms]
    return sorted({"x".join(map(str, cost.size)) for cost in costs if cost is not None and cost.macs is not None})


def _arm(report: ArmReport) -> dict[str, Any]:
    runs, arm = report.runs, report.arm
    last = [run.epochs[-1] for run in runs.runs.values()]
    entry = arm.entry
    return {
        "name": arm.name,
        "label": arm.label,
        "network": arm.network,
        "settings": [short_paths(setting) for setting in arm.settings],
        "seeds": sorted(runs.runs),
        "errors": [runs.errors[seed] for seed in sorted(runs.runs)],
        "mean": None if report.estimate is None else float(report.estimate.mean),
        "half": None if report.estimate is None else _number(report.estimate.half),
        "top5_mean": float(np.mean([epoch["top5_error"] for epoch in last]))
        if last and "top5_error" in last[0]
        else None,
        "best_epoch_mean": _best_epoch_mean(runs.runs.values()),
        "parameters": None if runs.cost is None else runs.cost.parameters,
        "macs": None if runs.cost is None else runs.cost.macs,
        "seconds_per_epoch": runs.seconds,
        "baseline": report.baseline,
        "without_baseline": report.no_baseline,
        "difference": None if report.difference is None else _difference(report, report.difference),
        "paper": None
        if entry is None
        else {
            "table": entry.table,
            "label": entry.label,
            "network": entry.network,
            "top1_error": entry.top1,
            "difference": report.paper_difference,
            "same_sign": report.sign_agrees,
        },
    }


def _difference(report: ArmReport, found: Paired) -> dict[str, Any]:
    return {
        "seeds": list(found.seeds),
        "values": list(found.values),
        "mean": found.mean,
        "half": None if found.constant else _number(found.estimate.half),
        "t_p": found.t_p,
        "p": report.p,
        "wilcoxon_p": found.wilcoxon_p,
        "significant": report.significant,
        "seeds_needed": report.needed,
        "detectable": report.detectable,
    }


def _best_epoch_mean(runs: Iterable[FinishedRun]) -> float | None:
    """Return the mean over runs of the best value of any epoch."""
    decisive = [(run, run.task.decisive) for run in runs]
    values = [metric.best(epoch[metric.key] for epoch in run.epochs) for run, metric in decisive]
    return float(np.mean(values)) if values else None


def _number(value: Any) -> float | None:
    """Return a number, or None for NaN, which JSON does not have."""
    return None if math.isnan(float(value)) else float(value)
