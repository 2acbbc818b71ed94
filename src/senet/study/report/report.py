"""Compare the arms of a study: paired tests against the baseline, alongside the paper's results."""

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


@dataclass(frozen=True, kw_only=True)
class ArmReport:
    """An arm in a report.

    Attributes:
        runs: the arm and its complete runs.
        baseline: name of the arm that it is compared to; empty for a baseline, and for an arm without one.
        no_baseline: reason why the arm has no baseline; empty where it has one or is one.
        difference: differences to the baseline by seed; None without a seed in common.
        p: p value of the paired t test, after Holm's correction over all comparisons; None without a test.
        comparisons: number of comparisons that the study plans, whether they can be tested yet or not.
        paper_difference: difference between the paper's errors, in points; None where the paper has none.
    """

    runs: ArmRuns
    baseline: str
    no_baseline: str
    difference: Paired | None
    p: float | None
    comparisons: int
    paper_difference: float | None

    @property
    def arm(self) -> StudyArm:
        """The arm in its study."""
        return self.runs.arm

    @property
    def estimate(self) -> Estimate | None:
        """Mean over seeds of the error after the last epoch, with its interval; None without runs."""
        errors = list(self.runs.errors.values())
        return estimate(np.array(errors)) if errors else None

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at 0.05 after correction."""
        return self.p is not None and self.p < ALPHA

    @property
    def needed(self) -> int | None:
        """Number of seeds that detect the observed difference at 0.05 / comparisons, Holm's strictest step.

        None where the difference is significant, was not tested, or needs more than `MOST_SEEDS`.
        """
        if self.p is None or self.significant or self.difference is None:
            return None
        return seeds_needed(self.difference.mean / self.difference.deviation, ALPHA / self.comparisons)

    @property
    def detectable(self) -> float | None:
        """The smallest difference that these seeds detect with a power of 80 %; None without a test."""
        if self.p is None or self.difference is None:
            return None
        return detectable(self.difference.deviation, len(self.difference.seeds), ALPHA / self.comparisons)

    @property
    def sign_agrees(self) -> bool | None:
        """Whether the arm is on the same side of its baseline as in the paper; None if a difference is missing or 0."""
        if self.difference is None or not self.difference.mean or not self.paper_difference:
            return None
        return self.difference.mean * self.paper_difference > 0


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """A report of a study.

    Attributes:
        results: the study's runs.
        baseline: name of the arm that the others are compared to; "twins" where each network with SE is compared to the
            plain one; empty where no arm is compared to any.
        arms: in the study's order.
        order: agreement of the order of the arms with the paper's.
    """

    results: StudyResults
    baseline: str
    arms: tuple[ArmReport, ...]
    order: Agreement

    @property
    def title(self) -> str:
        """What varies."""
        return self.results.plan.study.title

    @property
    def signs(self) -> tuple[int, int]:
        """Number of arms on the paper's side of their baseline, and number of arms where both sides are known."""
        known = [arm.sign_agrees for arm in self.arms if arm.sign_agrees is not None]
        return sum(known), len(known)

    @property
    def tests(self) -> int:
        """Number of arms that were tested."""
        return sum(arm.p is not None for arm in self.arms)

    @property
    def comparisons(self) -> int:
        """Number of planned tests, for which p values are corrected."""
        return sum(bool(arm.baseline) for arm in self.arms)


def make_report(folder: str | PathLike[str], *, baseline: str | None = None) -> StudyReport:
    """Read a study folder and compare its arms.

    Args:
        folder: output folder of `senet study`.
        baseline: name of the arm to compare to; the study's own unless given. A study of several networks that names
            none compares each network with SE to the plain one.

    Raises:
        ValueError: no study, no complete run, an unknown arm, or scipy is missing.
    """
    results = read_results(folder)
    study = results.plan.study
    against, no_baseline = _baselines(results, study.arm(baseline).name if baseline is not None else None)
    runs = {one.arm.name: one for one in results.arms}
    differences = {
        name: paired(runs[name].errors, runs[other].errors) if other else None for name, other in against.items()
    }
    tested = {name: found.t_p for name, found in differences.items() if found is not None and found.t_p is not None}
    # The family is all planned comparisons: the first of five arms to finish is no single test. Comparisons that cannot
    # be tested yet count with p = 1.
    comparisons = sum(map(bool, against.values()))
    family = [*tested.values(), *[1.0] * (comparisons - len(tested))]
    corrected = dict(zip(tested, holm(family), strict=False))
    arms = tuple(
        ArmReport(
            runs=one,
            baseline=against[one.arm.name],
            no_baseline=no_baseline.get(one.arm.name, ""),
            difference=differences[one.arm.name],
            p=corrected.get(one.arm.name),
            comparisons=comparisons,
            paper_difference=_paper_difference(
                one.arm.entry, runs[other].arm.entry if (other := against[one.arm.name]) else None
            ),
        )
        for one in results.arms
    )
    both = [
        (float(arm.estimate.mean), arm.arm.entry.top1)
        for arm in arms
        if arm.estimate is not None and arm.arm.entry is not None and arm.arm.entry.top1 is not None
    ]
    if len({_experiment(arm.arm.entry) for arm in arms if arm.arm.entry is not None}) > 1:
        both = []  # errors on different data have no order
    order = agreement([measured for measured, _ in both], [paper for _, paper in both])
    others = list(dict.fromkeys(filter(None, against.values())))
    if not others:  # a baseline that nothing is compared to yet, or none at all
        others = [name for name in against if name not in no_baseline][:1] or [""]
    return StudyReport(results=results, baseline=others[0] if len(others) == 1 else "twins", arms=arms, order=order)


def _baselines(results: StudyResults, given: str | None) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the baseline of each arm (empty: none), and the reason for each arm that neither has nor is one.

    The baseline is the given arm, or the study's if it has runs; else each arm's own; else the first arm with runs.
    """
    study = results.plan.study
    names = [arm.name for arm in study.arms]
    there = [one.arm.name for one in results.arms if one.runs]
    baseline = given or (study.baseline if study.baseline in there else None)
    if baseline is None and any(arm.against for arm in study.arms):
        against = {arm.name: arm.against if arm.against in names else "" for arm in study.arms}
        alone = [arm for arm in study.arms if not against[arm.name] and arm.name not in against.values()]
        return against, {arm.name: _reason_without_baseline(arm) for arm in alone}
    baseline = baseline or there[0]
    return {name: baseline if name != baseline else "" for name in names}, {}


def _reason_without_baseline(arm: StudyArm) -> str:
    """Return why an arm that is no baseline has none."""
    if not has_se(arm.network):
        return "the study has no arm of the same network with SE and the same recipe"
    if not arm.against:
        return f"the study has no arm of {plain_name(arm.network)} with the same recipe"
    return f"the arm {arm.against} is not in the study; run it too"


def _paper_difference(entry: Entry | None, baseline: Entry | None) -> float | None:
    """Return the difference in points; None where an error is missing, or the data differ."""
    if entry is None or baseline is None or entry.top1 is None or baseline.top1 is None:
        return None
    return None if _experiment(entry) != _experiment(baseline) else round(entry.top1 - baseline.top1, 6)


def _experiment(entry: Entry) -> str:
    """Return the group of the paper's rows that may be compared: a table, or all ablations."""
    return "ablations" if entry.table in ABLATIONS else entry.table
