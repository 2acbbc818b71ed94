"""A study's report: what each arm came to, beside the baseline and the paper, and what that says."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike

import numpy as np

from senet.models import plain_name
from senet.paper import Entry
from senet.runs.comparison import Estimate, estimate
from senet.study.plan.se_keys import has_se
from senet.study.plan.study import StudyArm
from senet.study.report.results import ArmRuns, StudyResults, read_results
from senet.study.report.statistics import (
    ALPHA,
    MOST_SEEDS,
    Agreement,
    Paired,
    agreement,
    detectable,
    holm,
    paired,
    seeds_needed,
)

__all__ = ["ArmReport", "StudyReport", "make_report"]

ABLATIONS = ("10", "11", "12", "13", "14", "15", "16")


@dataclass(frozen=True)
class ArmReport:
    """An arm in a report.

    Attributes:
        runs: of the arm.
        baseline: name of the arm that it is compared to; empty for a baseline itself, and for an arm without one.
        missing: why there is no arm to compare it to; empty where there is one, and for a baseline itself.
        difference: to the baseline, by seed; None without a seed in common.
        p: of the paired t test, after Holm's correction over all comparisons; None where there was no test.
        comparisons: that the study is to make, this one among them, whether they can be tested yet or not.
        paper_difference: of the paper's errors, in points; None where it has none.
    """

    runs: ArmRuns
    baseline: str
    missing: str
    difference: Paired | None
    p: float | None
    comparisons: int
    paper_difference: float | None

    @property
    def arm(self) -> StudyArm:
        """Of the study."""
        return self.runs.arm

    @property
    def estimate(self) -> Estimate | None:
        """Of the error after the last epoch, over seeds; None without runs."""
        errors = list(self.runs.errors.values())
        return estimate(np.array(errors)) if errors else None

    @property
    def significant(self) -> bool:
        """Whether the difference is, at 0.05 after correction."""
        return self.p is not None and self.p < ALPHA

    @property
    def needed(self) -> int | None:
        """Seeds that would be needed to find the observed difference, at 0.05 / comparisons, Holm's strictest step.

        None where the difference is found, was not tested, or would take more than `MOST_SEEDS`.
        """
        if self.p is None or self.significant or self.difference is None:
            return None
        return seeds_needed(self.difference.mean / self.difference.deviation, ALPHA / self.comparisons)

    @property
    def detectable(self) -> float | None:
        """The least difference that as many seeds find with a chance of 80 %; None where there was no test."""
        if self.p is None or self.difference is None:
            return None
        return detectable(self.difference.deviation, len(self.difference.seeds), ALPHA / self.comparisons)

    @property
    def sign_agrees(self) -> bool | None:
        """Whether the arm is on the same side of its baseline as in the paper; None where either has no difference."""
        if self.difference is None or not self.difference.mean or not self.paper_difference:
            return None
        return self.difference.mean * self.paper_difference > 0

    @property
    def verdict(self) -> str:
        """What can be said about the arm, in a line."""
        found = self.difference
        if not self.runs.runs:
            return "no complete run"
        if self.missing:
            return f"no baseline, compared to nothing: {self.missing}"
        if not self.baseline:
            return "baseline"
        if found is None:
            return f"no seed in common with {self.baseline}"
        seeds = len(found.seeds)
        if seeds == 1:
            return "one seed in common with the baseline: no interval and no test"
        if found.constant:
            what = "no difference" if not found.mean else "the same difference"
            return f"{what} with each of {seeds} seeds, so that no t test can be made"
        if self.significant:
            return f"{'lower' if found.mean < 0 else 'higher'} error, significant with {seeds} seeds"
        needed = f"more than {MOST_SEEDS:,}" if self.needed is None else f"about {self.needed:,}"
        return (
            f"not significant with {seeds} seeds, which would find {self.detectable:.2g} points; {needed} would be "
            f"needed for what is observed"
        )


@dataclass(frozen=True)
class StudyReport:
    """A report of a study.

    Attributes:
        results: its runs.
        baseline: name of the arm that the others are compared to; "twins" where each network with SE is compared to the
            same without; empty where no arm is compared to any.
        arms: in the study's order.
        order: of the arms that the paper has, measured and there.
    """

    results: StudyResults
    baseline: str
    arms: tuple[ArmReport, ...]
    order: Agreement

    @property
    def title(self) -> str:
        """Of the report."""
        return self.results.plan.study.title

    @property
    def signs(self) -> tuple[int, int]:
        """Arms on the same side of their baseline as in the paper, of how many that can be told of."""
        told = [arm.sign_agrees for arm in self.arms if arm.sign_agrees is not None]
        return sum(told), len(told)

    @property
    def tests(self) -> int:
        """Arms that were tested."""
        return sum(arm.p is not None for arm in self.arms)

    @property
    def comparisons(self) -> int:
        """Arms that are to be tested, and that p values are corrected for."""
        return sum(bool(arm.baseline) for arm in self.arms)


def make_report(folder: str | PathLike[str], *, baseline: str | None = None) -> StudyReport:
    """Read a study folder and compare its arms.

    Args:
        folder: of `senet study`.
        baseline: name of the arm to compare to; the study's own unless given. A study of several networks that names
            none compares each network with SE to the same without.

    Raises:
        ValueError: no study, no complete run, no arm of that name, or there is no scipy.
    """
    results = read_results(folder)
    study = results.plan.study
    against, missing = _baselines(results, study.arm(baseline).name if baseline is not None else None)
    runs = {one.arm.name: one for one in results.arms}
    differences = {
        name: paired(runs[name].errors, runs[other].errors) if other else None for name, other in against.items()
    }
    tested = {name: found.t_p for name, found in differences.items() if found is not None and found.t_p is not None}
    # The family is what the study plans to compare: a first look at one arm of five is no single test. Comparisons that
    # cannot be tested yet count as ones that find nothing.
    comparisons = sum(map(bool, against.values()))
    family = [*tested.values(), *[1.0] * (comparisons - len(tested))]
    corrected = dict(zip(tested, holm(family), strict=False))
    arms = tuple(
        ArmReport(
            one,
            against[one.arm.name],
            missing.get(one.arm.name, ""),
            differences[one.arm.name],
            corrected.get(one.arm.name),
            comparisons,
            _paper_difference(one.arm.entry, runs[other].arm.entry if (other := against[one.arm.name]) else None),
        )
        for one in results.arms
    )
    both = [
        (float(arm.estimate.mean), arm.arm.entry.top1)
        for arm in arms
        if arm.estimate is not None and arm.arm.entry is not None and arm.arm.entry.top1 is not None
    ]
    if len({_setting(arm.arm.entry) for arm in arms if arm.arm.entry is not None}) > 1:
        both = []  # errors on different data have no order
    order = agreement([measured for measured, _ in both], [paper for _, paper in both])
    others = list(dict.fromkeys(filter(None, against.values())))
    if not others:  # a baseline that nothing is compared to yet, or none at all
        others = [name for name in against if name not in missing][:1] or [""]
    return StudyReport(results, others[0] if len(others) == 1 else "twins", arms, order)


def _baselines(results: StudyResults, given: str | None) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """What each arm is compared to, by name, empty for nothing; and why some have no baseline, and are none either.

    To the arm that is given, or that the study names if it has runs; else to what each arm says itself; else to the
    first that has runs.
    """
    study = results.plan.study
    names = [arm.name for arm in study.arms]
    there = [one.arm.name for one in results.arms if one.runs]
    baseline = given or (study.baseline if study.baseline in there else None)
    if baseline is None and any(arm.against for arm in study.arms):
        against = {arm.name: arm.against if arm.against in names else "" for arm in study.arms}
        alone = [arm for arm in study.arms if not against[arm.name] and arm.name not in against.values()]
        return against, {arm.name: _why_none(arm) for arm in alone}
    baseline = baseline or there[0]
    return {name: baseline if name != baseline else "" for name in names}, {}


def _why_none(arm: StudyArm) -> str:
    """Why there is no arm to compare an arm to, which is itself nobody's baseline."""
    if not has_se(arm.network):
        return "the study has no arm of the same network with SE, by the same recipe"
    if not arm.against:
        return f"the study has no arm of {plain_name(arm.network)} by the same recipe"
    return f"the arm {arm.against} is not in the study; run it too"


def _paper_difference(entry: Entry | None, baseline: Entry | None) -> float | None:
    """In points; None where either has no error, or they were measured on different data."""
    if entry is None or baseline is None or entry.top1 is None or baseline.top1 is None:
        return None
    return None if _setting(entry) != _setting(baseline) else round(entry.top1 - baseline.top1, 6)


def _setting(entry: Entry) -> str:
    """What was the same for the paper's rows that may be compared: a table, or that of all ablations."""
    return "ablations" if entry.table in ABLATIONS else entry.table
