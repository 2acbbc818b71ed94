"""The section of docs/deploy.md with the results of `benchmarks/deploy_sweep.py`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from textwrap import fill
from typing import Any

import numpy as np
from common import markdown

from sweep_cases.compare import RATIO, TOLERANCE

__all__ = ["WAITING", "architectures", "sections", "summary"]

# Status of a network that was not compared yet.
WAITING = "not run so far"

Result = Mapping[str, Any]
_REASONS = {
    "in place": "SE in its place, not before a convolution",
    "left": "SE left unchanged",
    "norms left": "Batch norms left",
}


def architectures(results: Mapping[str, Result]) -> dict[str, list[str]]:
    """Group the networks with SE by architecture; the key is the first name of each."""
    found = defaultdict(list)
    for name, one in results.items():
        if one.get("modules"):
            found[one["digest"]].append(name)
    return {names[0]: names for names in found.values()}


def summary(results: Mapping[str, Result]) -> str:
    """Return the number of architectures by status, in a line."""
    counts = Counter(results[name]["status"].partition(":")[0] for name in architectures(results))
    words = {"differs": "above a limit"}
    return ", ".join(f"{count} {words.get(status, status)}" for status, count in counts.most_common())


def sections(results: Mapping[str, Result], total: int) -> list[str]:
    """Return Markdown of the results.

    Args:
        results: by network, and what they have in common.
        total: number of networks that timm has.
    """
    groups, about = architectures(results), results["about"]
    named = sum(map(len, groups.values()))
    caption = (
        f"timm {about['timm']}, PyTorch {about['torch']}, senet {about['senet']}, on a CPU. {len(results) - 1} of the "
        f"{total} networks of timm were searched; {named} have SE, of {len(groups)} architectures: {summary(results)}. "
        f"Bytes: what the operations of a run read and write, relative to the original. Difference: the largest in "
        f"float64, of both sizes; in brackets, what a change of each weight by one unit in its last place changes on "
        f"the first. Float32: the error relative to that of the original, median and largest."
    )
    parts = [fill(caption, 118, break_on_hyphens=False), _families(results, groups)]
    for what, title in _REASONS.items():
        if rows := _reasons([results[name] for name in groups], what):
            parts += [f"#### {title}", markdown(["reason", "modules", "networks"], rows)]
    others = _others(results, groups)
    if others:
        parts += ["#### Not compared, or not equal", "\n".join(others)]
    same = [_item(", ".join(f"`{name}`" for name in names)) for names in groups.values() if len(names) > 1]
    if same:
        parts += ["#### Names of one architecture", "The first of each line was compared.", "\n".join(same)]
    return parts


def _families(results: Mapping[str, Result], groups: Mapping[str, list[str]]) -> str:
    families = defaultdict(list)
    for name in groups:
        families[results[name]["family"]].append(name)
    rows = []
    for family, names in sorted(families.items()):
        compared = [results[name] for name in names if _is_compared(results[name])]
        equal = sum(results[name]["status"] == "equal" for name in names)
        row = [f"`{family}`", str(sum(len(groups[name]) for name in names)), str(len(names)), str(equal)]
        row += [str(sum(one["se"][action] for one in compared)) for action in ("moved", "replaced", "constant", "left")]
        row += [str(sum(one["norms"][action] for one in compared)) for action in ("folded", "left")]
        rows.append(row + (_figures(compared) if compared else ["-"] * 3))
    header = ["family", "names", "architectures", "equal", "SE before convolutions", "in place", "constant", "left"]
    return markdown([*header, "norms folded", "left", "bytes", "difference", "float32"], rows)


def _is_compared(one: Result) -> bool:
    """Return whether a network was compared; a network to compare again keeps its results until then."""
    return "error" in one and one["status"] != WAITING


def _figures(compared: list[Result]) -> list[str]:
    saved, ratios = ([one[what] for one in compared] for what in ("bytes", "float32"))
    worst = max(compared, key=lambda one: one["error"])
    return [
        f"{min(saved):.2f} to {max(saved):.2f}",
        f"{worst['error']:.0e} ({worst['rounding']:.0e})",
        f"{np.median(ratios):.2f}, {max(ratios):.2f}",
    ]


def _reasons(found: Iterable[Result], what: str) -> list[list[str]]:
    modules: Counter[str] = Counter()
    networks: Counter[str] = Counter()
    for one in found:
        for reason, count in one.get("reasons", {}).get(what, {}).items():
            modules[reason] += count
            networks[reason] += 1
    return [
        [reason or "no convolution is before it", str(n), str(networks[reason])] for reason, n in modules.most_common()
    ]


def _others(results: Mapping[str, Result], groups: Mapping[str, list[str]]) -> list[str]:
    """Return a line for each reason why architectures are not equal, or networks were not built."""
    reasons = defaultdict(list)
    for name, one in results.items():
        if (name in groups and one["status"] != "equal") or one.get("status", "").startswith("not built"):
            why = _why(one)
            if why == WAITING:
                family = [results[other] for other in groups if results[other]["family"] == one["family"]]
                equal = sum(other["status"] == "equal" for other in family)
                why += f"; {equal} of {len(family)} architectures of the family `{one['family']}` are equal"
            reasons[why].append(f"`{name}`")
    return [_item(f"{', '.join(names)}: {reason}") for reason, names in reasons.items()]


def _item(text: str) -> str:
    return fill(text, 118, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def _why(one: Result) -> str:
    if not _is_compared(one):
        return str(one["status"])
    if one["status"] != "differs":
        return (
            f"equal within rounding: differs by {one['error']:.1g} on the larger image, where one unit in the last "
            f"place of the original's weights changes {one['other rounding']:.1g}"
        )
    on_larger = "other rounding" in one
    where, changed = (" on the larger image", one["other rounding"]) if on_larger else ("", one["rounding"])
    return (
        f"differs by {one['error']:.1g} in float64{where} (limit {TOLERANCE:g}; one unit in the last place of its "
        f"weights: {changed:.1g}), and has {one['float32']:.2f} times the original's error in float32 (limit {RATIO:g})"
    )
