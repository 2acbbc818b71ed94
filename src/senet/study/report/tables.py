"""A report's headings and table as text, the same in the terminal, in Markdown and in HTML."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

__all__ = [
    "EFFECTS",
    "Effect",
    "axis_of_metric",
    "better_side",
    "difference_to",
    "effect",
    "heading",
    "measured_on",
    "report_rows",
    "short_paths",
    "training_length",
]

# Of an arm relative to its baseline.
Effect = Literal["better", "worse", "inconclusive"]
EFFECTS: tuple[Effect, ...] = get_args(Effect)


def heading(data: Mapping[str, Any]) -> str:
    """Return a report's title: what varies, and the networks.

    Args:
        data: see `senet.study.report.report_data.as_data`.
    """
    title = data["title"][:1].upper() + data["title"][1:]
    networks = list(dict.fromkeys(arm["network"] for arm in data["arms"]))
    return f"{title}: {' and '.join(networks)}" if len(networks) < 3 else f"{title}: {len(networks)} networks"


def difference_to(data: Mapping[str, Any]) -> str:
    """Return the head of the column of differences, with the baseline."""
    if not data["baseline"]:
        return "difference (no arm has a baseline)"
    labels = {"twins": "its plain twin"} | {arm["name"]: str(arm["label"]) for arm in data["arms"]}
    return f"difference to {labels.get(data['baseline'], data['baseline'])}"


def better_side(data: Mapping[str, Any]) -> str:
    """Return the side of an axis of the metric on which better arms are: "left" or "right"."""
    return "left" if data["metric"]["better"] == "lower" else "right"


def effect(data: Mapping[str, Any], difference: Mapping[str, Any]) -> Effect:
    """Return what a difference of an arm means: significantly better or worse, or inconclusive."""
    if not difference["significant"]:
        return "inconclusive"
    return "better" if (difference["mean"] < 0) == (better_side(data) == "left") else "worse"


def axis_of_metric(data: Mapping[str, Any]) -> str:
    """Return the label of the axis of the metric."""
    unit = f" ({data['metric']['unit']})" if data["metric"]["unit"] else ""
    return f"{data['metric']['name']} after the last epoch{unit}"


def measured_on(data: Mapping[str, Any]) -> str:
    """Return data, recipe, epochs and seeds, in a line."""
    images = data["data_set"] or data["data"]
    settings = f" with {', '.join(data['settings'])}" if data["settings"] else ""
    return (
        f"{images}: {data['training_images']:,} training and {data['validation_images']:,} validation images; "
        f"{training_length(data)} of the recipe {data['recipe']}{settings}; "
        f"{data['runs']} of {data['planned']} runs complete, "
        f"{len(data['seeds'])} {'seed' if len(data['seeds']) == 1 else 'seeds'} planned"
    )


def training_length(data: Mapping[str, Any]) -> str:
    """Return the numbers of epochs and iterations of runs, in words: "1 or 2 epochs".

    Args:
        data: lists of `epochs`, and, unless all runs have these, of `iterations`.
    """
    parts = []
    for unit in ("epochs", "iterations"):
        if numbers := data.get(unit, []):
            name = unit.removesuffix("s") if numbers == [1] else unit
            parts.append(f"{' or '.join(f'{number:,}' for number in numbers)} {name}")
    return " or ".join(parts)


def short_paths(text: str) -> str:
    """Return text with each absolute path shortened to its last two parts, so that a report can be published."""
    return re.sub(r"(?<![\w.~])/(?:[^\s/:'\"]+/)+(?=[^\s/:'\"]+/[^\s/:'\"]+)", "…/", text)


def report_rows(data: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the columns, and a row for each arm, without empty columns (the first three always stay).

    Args:
        data: see `senet.study.report.report_data.as_data`.
    """
    makers: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "arm": lambda arm: arm["label"],
        "seeds": lambda arm: str(len(arm["seeds"])),
        f"{data['metric']['noun']} {data['metric']['unit']}".rstrip(): lambda arm: _with_half(
            arm["mean"], arm["half"], ""
        ),
        "difference": lambda arm: "no baseline" if arm["without_baseline"] else _difference(arm),
        "p (Holm)": lambda arm: _p((arm["difference"] or {}).get("p")),
        "p (Wilcoxon)": lambda arm: _p((arm["difference"] or {}).get("wilcoxon_p")),
        "paper's error %": lambda arm: _paper(arm, "top1_error", ".2f"),
        "paper's difference": lambda arm: _paper(arm, "difference", "+.2f") if arm["baseline"] else "",
        "same side": lambda arm: {None: "", True: "yes", False: "no"}[(arm["paper"] or {}).get("same_sign")],
        "parameters": lambda arm: "" if arm["parameters"] is None else f"{arm['parameters']:,}",
        "multiply-adds": lambda arm: "" if arm["macs"] is None else _macs(arm["macs"]),
        "s per epoch": lambda arm: "" if arm["seconds_per_epoch"] is None else f"{arm['seconds_per_epoch']:.3g}",
        "": lambda arm: arm["verdict"],
    }
    made = {name: [make(arm) for arm in data["arms"]] for name, make in makers.items()}
    kept = [name for index, name in enumerate(made) if index < 3 or any(made[name])]
    return kept, [[made[name][index] for name in kept] for index in range(len(data["arms"]))]


def _with_half(mean: float | None, half: float | None, sign: str) -> str:
    if mean is None:
        return ""
    return f"{mean:{sign}.2f}" + ("" if half is None else f" ± {half:.2f}")


def _difference(arm: Mapping[str, Any]) -> str:
    found = arm["difference"]
    return "" if found is None else _with_half(found["mean"], found["half"], "+")


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _paper(arm: Mapping[str, Any], key: str, digits: str) -> str:
    value = (arm["paper"] or {}).get(key)
    return "" if value is None else f"{value:{digits}}"


def _macs(count: int) -> str:
    return f"{count / 1e9:.3f} G" if count >= 1e9 else f"{count / 1e6:.2f} M"
