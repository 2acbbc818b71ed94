"""The sentences of a report, from its data: a verdict for each arm, a summary, and notes on how to read the figures."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from senet.study.data_sets import DATA_SETS
from senet.study.report.statistics import ALPHA, LEAST_FOR_WILCOXON, MOST_SEEDS, POWER

__all__ = ["verdict", "with_text"]


def with_text(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report's data with its sentences: `verdict` of each arm, `summary` and `notes`.

    Args:
        data: figures, see `senet.study.report.report_data.as_data`.
    """
    arms = [{**arm, "verdict": verdict(arm, data["metric"]["noun"])} for arm in data["arms"]]
    return {**data, "arms": arms, "summary": list(_summary(data)), "notes": list(_notes(data))}


def verdict(arm: Mapping[str, Any], noun: str = "error") -> str:
    """Return the conclusion about an arm, in a line, given the noun of the metric."""
    found = arm["difference"]
    if not arm["errors"]:
        return "no complete run"
    if arm["without_baseline"]:
        return f"no baseline: {arm['without_baseline']}"
    if not arm["baseline"]:
        return "baseline"
    if found is None:
        return f"no seed in common with {arm['baseline']}"
    seeds = len(found["seeds"])
    if seeds == 1:
        return "one seed in common with the baseline: no interval and no test"
    if found["t_p"] is None:
        same = "the same difference" if found["mean"] else "no difference"
        return f"{same} with each of {seeds} seeds: no t test is possible"
    if found["significant"]:
        return f"{'lower' if found['mean'] < 0 else 'higher'} {noun}, significant with {seeds} seeds"
    needed = f"more than {MOST_SEEDS:,}" if found["seeds_needed"] is None else f"about {found['seeds_needed']:,}"
    return (
        f"not significant with {seeds} seeds, which detect {found['detectable']:.2g} points; {needed} seeds would "
        f"detect the observed difference"
    )


def _summary(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the results in a few sentences."""
    against = _baseline_label(data)
    yield _significance(data, against)
    alone = [arm["label"] for arm in data["arms"] if arm["without_baseline"]]
    if 0 < len(alone) < len(data["arms"]):
        verb = "has no baseline and is" if len(alone) == 1 else "have no baseline and are"
        yield f"{', '.join(alone)} {verb} not compared."
    tests, comparisons, signs, order = data["tests"], data["comparisons"], data["signs"], data["order"]
    if 0 < tests < comparisons:
        yield f"Of {comparisons} arms, {tests} could be tested; p is corrected for all {comparisons}."
    if signs["arms"]:
        yield (
            f"{signs['agree']} of {signs['arms']} {'arm is' if signs['arms'] == 1 else 'arms are'} on the same side of "
            f"{against} as in the paper, significant or not."
        )
    if order["tau"] is not None and order["arms"] > 2:
        chance = "no more than expected by chance" if order["p"] >= ALPHA else "more than expected by chance"
        yield (
            f"The order of {order['arms']} arms agrees with the paper's {chance}: Kendall's tau = {order['tau']:.2f} "
            f"(1 is the same order), p = {order['p']:.2g}."
        )
    if data["left_out"]:
        count = len(data["left_out"])
        yield f"{count} of {data['planned']} runs {'is' if count == 1 else 'are'} missing."
    failed = sum(one["failed"] for one in data["left_out"])
    if failed:
        runs = "1 run failed: its arm's mean is" if failed == 1 else f"{failed} runs failed: their arms' means are"
        bias = "low" if data["metric"]["better"] == "lower" else "high"
        yield f"{runs} over the seeds that did not fail, and may be too {bias}."


def _baseline_label(data: Mapping[str, Any]) -> str:
    if data["baseline"] == "twins":
        return "its plain twin"
    labels = (arm["label"] for arm in data["arms"] if arm["name"] == data["baseline"])
    return repr(next(labels, data["baseline"]))


def _significance(data: Mapping[str, Any], against: str) -> str:
    """Return the sentence about significant differences."""
    tests = data["tests"]
    if all(arm["without_baseline"] for arm in data["arms"]):
        return "No arm has a baseline, so nothing is compared; the verdict of each arm gives the reason."
    if not tests:
        return f"No arm can be tested against {against} yet: a test needs two or more seeds in common."
    found = [arm for arm in data["arms"] if arm["difference"] and arm["difference"]["significant"]]
    if not found:
        what = "The one arm that was tested does not differ" if tests == 1 else f"None of {tests} arms differs"
        return f"{what} significantly from {against}."
    lower, higher = (
        ", ".join(arm["label"] for arm in found if (arm["difference"]["mean"] < 0) == below) for below in (True, False)
    )
    noun = data["metric"]["noun"]
    parts = [f"{side} {noun} with {names}" for side, names in (("lower", lower), ("higher", higher)) if names]
    verb = "differs" if len(found) == 1 else "differ"
    what = "The one arm that was tested" if tests == 1 else f"{len(found)} of {tests} arms"
    return f"{what} {verb} significantly from {against}: {'; '.join(parts)}."


def _notes(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield how to read the figures, and what they do not cover."""
    metric = data["metric"]
    unit = f", in {metric['unit']}" if metric["unit"] else ""
    yield (
        f"The {metric['name']} is that of the validation images after the last epoch{unit}. The best epoch's would be "
        f"too {'low' if metric['better'] == 'lower' else 'high'}: the epoch is selected on the images that it is "
        "measured on."
    )
    yield "Mean ± half of the 95 % t interval over seeds. A single seed has no interval."
    if any(arm["difference"] for arm in data["arms"]):
        yield "Differences are to the baseline with the same seed, in points."
    if data["tests"]:
        yield from _test_notes(data)
    yield _image_note(data)
    yield from _paper_notes(data)
    if sizes := data["counted"]["sizes"]:
        yield f"Multiply-adds are those of the {data['counted']['part']} for an image of {' or '.join(sizes)} pixels."
    yield "Seconds: median time to train an epoch. Other load on the machine is included."


def _test_notes(data: Mapping[str, Any]) -> Iterator[str]:
    tests, comparisons = data["tests"], data["comparisons"]
    yield (
        f"p: paired t test, two-sided, after Holm's correction over {comparisons} "
        f"{'test' if comparisons == 1 else 'tests'}"
        + (f", of which {comparisons - tests} cannot be made yet." if tests < comparisons else ".")
    )
    alpha = f"{ALPHA} / {comparisons}" if comparisons > 1 else f"{ALPHA}"
    yield (
        f"Numbers of seeds and detectable differences are those of a paired t test at {alpha} with a power of "
        f"{100 * POWER:.0f} %. A difference observed with few seeds is a rough estimate, often too large, so the "
        "number of seeds is often too small."
    )
    if any(arm["difference"] and arm["difference"]["wilcoxon_p"] is not None for arm in data["arms"]):
        yield "Wilcoxon's signed rank test is exact, and not corrected."
    else:
        yield (
            f"Wilcoxon's signed rank test is omitted: with fewer than {LEAST_FOR_WILCOXON} seeds that differ, its p "
            f"value cannot be below {ALPHA}."
        )


def _image_note(data: Mapping[str, Any]) -> str:
    """Return what a random choice of validation images would add: 1.96 binomial standard deviations."""
    images = f"The {data['validation_images']:,} validation images are the same for all runs."
    if not data["metric"]["of_images"]:
        return f"{images} The intervals do not cover the choice of these images."
    means = [arm["mean"] for arm in data["arms"] if arm["mean"] is not None]
    rate = float(np.median(means)) / 100
    spread = 196 * math.sqrt(rate * (1 - rate) / max(1, data["validation_images"] or 1))
    return (
        f"{images} The intervals do not cover the choice of these images: at an error of {100 * rate:.1f} %, a random "
        f"choice alone gives ± {spread:.1f} points."
    )


def _paper_notes(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield how the paper's experiments differ."""
    rows = [(arm["network"], arm["paper"]) for arm in data["arms"] if arm["paper"]]
    sets = sorted({DATA_SETS[paper["table"]].name for _, paper in rows if paper["table"] in DATA_SETS})
    parts = []
    if any(network != paper["network"] for network, paper in rows):
        parts.append("of other networks")
    if sets and sets != [data["data_set"]]:
        parts.append(f"on {' and '.join(sets)}")
    if parts:
        yield f"The paper's errors are {', '.join(parts)}: compare signs and order, not sizes."
