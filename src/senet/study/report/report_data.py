"""What a report holds, as data: report.json, and what its table, page and picture are made from."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from senet.paper import TITLES
from senet.study.report.report import ArmReport, StudyReport
from senet.study.report.statistics import ALPHA, LEAST_FOR_WILCOXON, POWER, Paired
from senet.study.report.tables import short_paths
from senet.study.reproduction.data_sets import DATA_SETS, data_set_of, training_images

__all__ = ["as_data"]


def as_data(report: StudyReport) -> dict[str, Any]:
    """A report as JSON has it; what cannot be told is None."""
    plan, first = report.results.plan, report.results.runs[0]
    known = data_set_of(first)
    tau, p = report.order.tau, report.order.p
    agree, told = report.signs
    data: dict[str, Any] = {
        "study": plan.study.name,
        "title": report.title,
        "table": plan.study.table,
        "table_title": TITLES.get(plan.study.table, ""),
        "baseline": report.baseline,
        "data": short_paths(plan.data),
        "validation": short_paths(first.validation),
        "data_set": None if known is None else known.name,
        "classes": first.images.get("classes"),
        "training_images": training_images(first),
        "validation_images": first.images.get("images"),
        "recipe": Path(plan.recipe).name,
        "settings": [short_paths(setting) for setting in plan.settings],
        "epochs": sorted({run.settings["epochs"] for run in report.results.runs}),
        "seeds": list(plan.seeds),
        "runs": len(report.results.runs),
        "planned": len(plan.runs),
        "alpha": ALPHA,
        "power": POWER,
        "tests": report.tests,
        "comparisons": report.comparisons,
        "order": {"arms": report.order.arms, "tau": tau, "p": p},
        "signs": {"agree": agree, "arms": told},
        "arms": [_arm(arm) for arm in report.arms],
        "left_out": [
            {"arm": one.arm, "seed": one.seed, "reason": short_paths(one.reason), "failed": one.failed}
            for one in report.results.left_out
        ],
        "study_notes": list(plan.study.notes),
    }
    if sum(arm["paper"] is not None for arm in data["arms"]) < 2:  # one row alone says nothing of a difference
        for arm in data["arms"]:
            arm["paper"] = None
    return data | {"summary": _summary(data), "notes": _notes(report, data)}


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
        "top5_mean": float(np.mean([epoch["top5_error"] for epoch in last])) if last else None,
        "best_epoch_mean": _best(runs.runs.values()),
        "parameters": None if runs.cost is None else runs.cost.parameters,
        "macs": None if runs.cost is None else runs.cost.macs,
        "seconds_per_epoch": runs.seconds,
        "baseline": report.baseline,
        "without_baseline": report.missing,
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
        "verdict": report.verdict,
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


def _best(runs: Any) -> float | None:
    errors = [min(epoch["top1_error"] for epoch in run.epochs) for run in runs]
    return float(np.mean(errors)) if errors else None


def _number(value: Any) -> float | None:
    return None if math.isnan(float(value)) else float(value)


def _summary(data: dict[str, Any]) -> list[str]:
    """What the study says, in a few sentences."""
    found = [arm for arm in data["arms"] if arm["difference"] and arm["difference"]["significant"]]
    tests = data["tests"]
    against = (
        "its plain twin"
        if data["baseline"] == "twins"
        else next(
            (repr(arm["label"]) for arm in data["arms"] if arm["name"] == data["baseline"]), repr(data["baseline"])
        )
    )
    sentences = []
    alone = [arm["label"] for arm in data["arms"] if arm["without_baseline"]]
    if len(alone) == len(data["arms"]):
        sentences.append("No arm has a baseline here, so that nothing is compared: see what is said of each.")
    elif not tests:
        sentences.append(f"No arm can be tested against {against} yet: a test takes two seeds or more in common.")
    elif not found:
        what = "The one arm that was tested does not differ" if tests == 1 else f"None of {tests} arms differs"
        sentences.append(f"{what} significantly from {against}.")
    else:
        lower, higher = (
            ", ".join(arm["label"] for arm in found if (arm["difference"]["mean"] < 0) == below)
            for below in (True, False)
        )
        parts = [f"{side} error with {names}" for side, names in (("lower", lower), ("higher", higher)) if names]
        verb = "differs" if len(found) == 1 else "differ"
        what = "The one arm that was tested" if tests == 1 else f"{len(found)} of {tests} arms"
        sentences.append(f"{what} {verb} significantly from {against}: {'; '.join(parts)}.")
    if 0 < len(alone) < len(data["arms"]):
        verb = "has no baseline and is" if len(alone) == 1 else "have no baseline and are"
        sentences.append(f"{', '.join(alone)} {verb} compared to nothing.")
    if 0 < tests < data["comparisons"]:
        sentences.append(
            f"Of {data['comparisons']} arms, {tests} could be tested; p is corrected for all {data['comparisons']}."
        )
    signs = data["signs"]
    if signs["arms"]:
        sentences.append(
            f"{signs['agree']} of {signs['arms']} {'arm is' if signs['arms'] == 1 else 'arms are'} on the same side of "
            f"{against} as in the paper, significant or not."
        )
    order = data["order"]
    if order["tau"] is not None and order["arms"] > 2:
        chance = "no more than chance often gives" if order["p"] >= ALPHA else "more than chance gives"
        sentences.append(
            f"The order of {order['arms']} arms agrees with the paper's by Kendall's tau = {order['tau']:.2f}, where 1 "
            f"is the same order (p = {order['p']:.2g}: {chance})."
        )
    if data["left_out"]:
        count = len(data["left_out"])
        sentences.append(
            f"{count} of {data['planned']} runs {'is' if count == 1 else 'are'} missing, and so is what "
            f"{'it' if count == 1 else 'they'} would say."
        )
        failed = sum(one["failed"] for one in data["left_out"])
        if failed:
            runs = "1 run failed: its arm's mean is" if failed == 1 else f"{failed} runs failed: their arms' means are"
            sentences.append(f"{runs} of the seeds that did not fail, and may be too low.")
    return sentences


def _notes(report: StudyReport, data: dict[str, Any]) -> list[str]:
    """How to read the figures, and what they do not say."""
    tests, comparisons = data["tests"], data["comparisons"]
    notes = [
        "Errors are top-1, in percent of the validation images, after the last epoch. The best epoch's would be too "
        "low: it is selected on the images that it is measured on.",
        "Mean ± half of the 95 % t interval over seeds. One seed has no interval.",
    ]
    if any(arm["difference"] for arm in data["arms"]):
        notes.append("Differences are to the baseline with the same seed, in points.")
    if tests:
        notes.append(
            f"p is of the paired t test, two-sided, after Holm's correction over {comparisons} "
            f"{'test' if comparisons == 1 else 'tests'}"
            + (f", of which {comparisons - tests} cannot be made yet." if tests < comparisons else ".")
        )
        notes.append(
            "The seeds that would be needed: for a paired t test at "
            + (f"{ALPHA} / {comparisons}" if comparisons > 1 else f"{ALPHA}")
            + f" to find the difference as observed with a chance of {100 * POWER:.0f} %; and what the seeds that are "
            "there would find with that chance. A difference observed with few seeds is a rough guess, often too "
            "large, and so that number is a rough guess, often too small."
        )
        if any(arm["difference"] and arm["difference"]["wilcoxon_p"] is not None for arm in data["arms"]):
            notes.append("Wilcoxon's signed rank test is exact, and not corrected.")
        else:
            notes.append(
                f"Wilcoxon's signed rank test is left out: with fewer than {LEAST_FOR_WILCOXON} seeds that differ its "
                f"p value cannot come below {ALPHA}."
            )
    means = [arm["mean"] for arm in data["arms"] if arm["mean"] is not None]
    rate = float(np.median(means)) / 100
    spread = 196 * math.sqrt(rate * (1 - rate) / max(1, data["validation_images"] or 1))
    notes.append(
        f"The {data['validation_images']:,} validation images are the same for all runs, and no interval here is about "
        f"other images: of an error of {100 * rate:.1f} %, chance in drawing them alone makes ± {spread:.1f} points."
    )
    notes += _about_paper(data)
    notes.append("Seconds are those of training an epoch, the median, with whatever else the machine did at the time.")
    return notes


def _about_paper(data: dict[str, Any]) -> list[str]:
    """In what the paper's figures are other ones."""
    rows = [(arm["network"], arm["paper"]) for arm in data["arms"] if arm["paper"]]
    sets = sorted({DATA_SETS[paper["table"]].name for _, paper in rows if paper["table"] in DATA_SETS})
    other_networks = any(network != paper["network"] for network, paper in rows)
    of = "of other networks" if other_networks else ""
    on = f"on {' and '.join(sets)}" if sets and sets != [data["data_set"]] else ""
    if not of and not on:
        return []
    what = ", ".join(part for part in (of, on) if part)
    return [f"The paper's errors are {what}: signs and order may be compared, sizes not."]
