"""Tables of the fine-tuning study: paired differences from the plain network over seeds."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write_section
from numpy.typing import NDArray
from page_charts import draw_fine_tuning
from ratio_chart import pictures

from finetune_cases.arms import ARMS
from senet.study.report.statistics import Paired, holm, paired

__all__ = ["BEGIN", "write_report"]

BEGIN = "<!-- measured: written by benchmarks/finetune.py -->"
_BASE = "plain"
# A group of runs: network, training images and epochs; and its arms, each with results by seed.
_Group = tuple[str, int, int]
_Arms = dict[str, dict[int, dict[str, Any]]]


def write_report(page: Path, about: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Write a table for each network, number of images and epochs into a page, and a picture of the differences.

    Args:
        page: a Markdown file with the markers of this script; the picture has its name and ends in .png.
        about: what all results have in common.
        results: of all runs.
    """
    groups: dict[_Group, _Arms] = {}
    for one in results:
        group = (one["network"], one["images"], one["epochs"])
        groups.setdefault(group, {}).setdefault(one["arm"], {})[one["seed"]] = one
    groups = {group: {name: arms[name] for name in ARMS if name in arms} for group, arms in groups.items()}
    hardware = about["hardware"]
    device = hardware.get("gpu", hardware["processor"])
    images = {4 * len(one["correct"]) for one in results}
    parts = [
        f"{len(results)} runs, {device}, PyTorch {hardware['torch']}, senet {hardware['senet']}. Errors in percent of "
        f"the validation images ({max(images, default=0):,} or a few fewer), differences from plain in points with "
        f"95 % t intervals over seeds; p of paired t tests, also corrected by Holm's method over the arms of a table. "
        f"± images: half of the 95 % interval of the mean difference over validation images instead of seeds.",
        pictures("Difference of the validation error from the plain network, with 95 % intervals.", page.stem),
    ]
    for group, arms in groups.items():
        network, count, epochs = group
        parts.append(f"### `{network}`, {count:,} images, {epochs} epoch{'s' if epochs > 1 else ''}")
        parts.append(_table(arms))
        if choice := _best_of_each(arms):
            parts.append(choice)
    write_section(page, BEGIN, parts)
    draw_fine_tuning(page)


def _final(runs: dict[int, dict[str, Any]]) -> dict[int, float]:
    return {seed: run["errors"][-1] for seed, run in runs.items()}


def _table(arms: _Arms) -> str:
    """Markdown: a row for each arm."""
    base = _final(arms.get(_BASE, {}))
    found = {name: paired(_final(runs), base) for name, runs in arms.items() if name != _BASE}
    tested = {name: p for name, one in found.items() if one is not None and (p := one.t_p) is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    rows = []
    for name, runs in arms.items():
        errors, pair = list(_final(runs).values()), found.get(name)
        row = [name, str(len(errors)), f"{np.mean(errors):.2f}"]
        if pair is None:
            rows.append([*row, "", "", "", ""])
            continue
        images = _over_images(runs, arms[_BASE])
        row += [_interval(pair), f"{images:.2f}", f"{tested[name]:.4f}" if name in tested else "-"]
        rows.append([*row, f"{corrected[name]:.4f}" if name in corrected else "-"])
    return markdown(["arm", "seeds", "error", "difference", "± images", "p", "p, Holm"], rows)


def _interval(pair: Paired) -> str:
    half = float(pair.estimate.half)
    return f"{pair.mean:+.2f}" + ("" if math.isnan(half) else f" ({pair.mean - half:+.2f} to {pair.mean + half:+.2f})")


def _correct(run: dict[str, Any]) -> NDArray[np.float64]:
    """(V,), 1 for each validation image that is classified correctly; padded with zeros to full bytes."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(run["correct"]), np.uint8)).astype(float)


def _over_images(runs: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]]) -> float:
    """Return half of the 95 % interval of the mean difference over images, in points."""
    seeds = sorted(runs.keys() & base.keys())
    differences = np.mean([_correct(base[seed]) - _correct(runs[seed]) for seed in seeds], axis=0)
    return float(196 * differences.std(ddof=1) / math.sqrt(len(differences)))


def _best_of_each(arms: _Arms) -> str:
    """Compare the best plain arm with the best arm with SE, chosen on one half of the images, measured on the other.

    Each half chooses once and measures once, and the difference is their mean, so that the choice costs no images.
    """
    arms = {name: runs for name, runs in arms.items() if len(runs) > 1}
    kinds = {
        "plain": {name: runs for name, runs in arms.items() if name.startswith("plain")},
        "SE": {name: runs for name, runs in arms.items() if not name.startswith("plain")},
    }
    if min(len(kind) for kind in kinds.values()) < 2:
        return ""
    seeds = set.intersection(*(set(runs) for runs in arms.values()))
    if len(seeds) < 2:
        return ""
    errors: dict[str, dict[int, float]] = {"plain": defaultdict(float), "SE": defaultdict(float)}
    chosen: dict[str, list[str]] = {"plain": [], "SE": []}
    for half in (0, 1):
        for what, kind in kinds.items():
            wrong = {name: {s: 100 * (1 - _correct(runs[s])) for s in seeds} for name, runs in kind.items()}
            # Padding counts as wrong in every arm, and cancels in differences.
            name = min(wrong, key=lambda one: float(np.mean([values[half::2] for values in wrong[one].values()])))
            chosen[what].append(name)
            for seed in seeds:
                errors[what][seed] += 0.5 * float(wrong[name][seed][1 - half :: 2].mean())
    pair = paired(errors["SE"], errors["plain"])
    assert pair is not None
    p, names = pair.t_p, {what: " and ".join(dict.fromkeys(chosen[what])) for what in chosen}
    return (
        f"Best with SE ({names['SE']}) minus best plain ({names['plain']}), chosen on one half of the images and "
        f"measured on the other, both ways, {len(seeds)} seeds: {_interval(pair)} points, p "
        f"{'-' if p is None else f'{p:.4f}'}."
    )
